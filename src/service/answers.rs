//! Rankings that were answered, kept for as long as they hold: until something is recorded that concerns them, another policy
//! is put to use, or the day ends. Whether that is so is asked of the database for every call, so that an answer never
//! misses what was acknowledged before the call, by whatever server.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use quick_cache::{Weighter, sync::Cache};

use crate::{
    domain::{Channel, ConnectionStatus, PersonId, RankOrder, TenantId, Timestamp, Topic},
    store::{Basis, KeptView, PersonMark, Seen},
    telemetry::names::DatabaseRole,
};

use super::{LAID_OUT_FOR, RankPage, RankQuery};

/// About how many bytes a connection takes in memory, and how many one reason or a person does.
const CONNECTION_BYTES: usize = 600;
const REASON_BYTES: usize = 250;
const MARK_BYTES: usize = size_of::<PersonMark>();
/// Around how many bytes an answer takes that holds nothing.
const EMPTY_BYTES: usize = 500;

/// What was asked, and of which database: everything that an answer depends on beside the ledger, the policies and the day.
/// What a replica answered holds by what is seen there, and says nothing of the primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    asked: DatabaseRole,
    tenant: TenantId,
    person: PersonId,
    order: RankOrder,
    statuses: Vec<ConnectionStatus>,
    channels: Vec<Channel>,
    topics: Vec<Topic>,
    minimum_score_bits: u64,
    page_size: usize,
    explain: bool,
}

impl Question {
    /// What a query asks, when it is about now and from the best connection on.
    pub(super) fn about_now(asked: DatabaseRole, tenant: &TenantId, query: &RankQuery) -> Option<Self> {
        let is_about_now = query.as_of.is_none() && query.policy.is_none() && query.after.is_none();
        is_about_now.then(|| Self {
            asked,
            tenant: tenant.clone(),
            person: query.person.clone(),
            order: query.order,
            statuses: query.statuses.clone(),
            channels: query.channels.clone(),
            topics: query.topics.clone(),
            minimum_score_bits: query.minimum_score.to_bits(),
            page_size: query.page_size,
            explain: query.explain,
        })
    }
}

/// An answer, and what it holds by.
#[derive(Debug)]
struct Given {
    page: RankPage,
    /// The owner and all peers, in ascending order.
    persons: Arc<[PersonMark]>,
    basis: Basis,
    /// The revision at which it was last found to hold.
    held_at: AtomicI64,
}

impl Given {
    fn holds(&self, seen: &Seen, built_in: &str, as_of: Timestamp) -> bool {
        let basis = self.basis.at(self.held_at.load(Ordering::Relaxed));
        let holds = as_of >= self.page.as_of
            && as_of.day() == self.page.as_of.day()
            && seen.policy().unwrap_or(built_in) == self.page.policy.as_str()
            && seen.left_alone(&self.persons, basis);
        if holds {
            self.held_at.fetch_max(seen.now().revision, Ordering::Relaxed);
        }
        holds
    }
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Question, Arc<Given>> for Bytes {
    fn weight(&self, _: &Question, given: &Arc<Given>) -> u64 {
        let reasons: usize = given.page.connections.iter().map(|connection| connection.reasons.len()).sum();
        let bytes = EMPTY_BYTES
            + given.page.connections.len() * CONNECTION_BYTES
            + reasons * REASON_BYTES
            + given.persons.len() * MARK_BYTES;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// The answers of a server. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Answers(Arc<Cache<Question, Arc<Given>, Bytes>>);

impl Answers {
    /// Room for about that many bytes; none for 0.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(Cache::with_weighter(LAID_OUT_FOR, bytes, Bytes)))
    }

    /// What was answered before, if it still holds at `as_of`.
    pub(super) fn get(&self, question: &Question, seen: &Seen, built_in: &str, as_of: Timestamp) -> Option<RankPage> {
        let given = self.0.get(question).filter(|given| given.holds(seen, built_in, as_of))?;
        Some(RankPage { as_of, revision: seen.now().revision, ..given.page.clone() })
    }

    /// What was answered from this very view, by somebody who asked the same and was first.
    pub(super) fn from(&self, question: &Question, view: &KeptView) -> Option<RankPage> {
        let given = self.0.get(question)?;
        let is_of_it = given.basis.at(given.held_at.load(Ordering::Relaxed)) == view.basis
            && view.as_of >= given.page.as_of
            && view.as_of.day() == given.page.as_of.day();
        is_of_it.then(|| RankPage { as_of: view.as_of, ..given.page.clone() })
    }

    /// Keeps an answer that was made from a view.
    pub(super) fn keep(&self, question: Question, view: &KeptView, page: &RankPage) {
        let held_at = AtomicI64::new(view.basis.revision);
        let given = Given { page: page.clone(), persons: Arc::clone(view.marks()), basis: view.basis, held_at };
        self.0.insert(question, Arc::new(given));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PolicyVersion;

    #[test]
    fn one_answer_may_take_nearly_all_there_is() {
        let (tenant, person) = (TenantId::unnamed(), PersonId::parse("ada").unwrap());
        let question = Question {
            asked: DatabaseRole::Primary,
            tenant,
            person: person.clone(),
            order: RankOrder::Mutual,
            statuses: Vec::new(),
            channels: Vec::new(),
            topics: Vec::new(),
            minimum_score_bits: 0,
            page_size: 20,
            explain: false,
        };
        let page = RankPage {
            connections: Vec::new(),
            next: None,
            as_of: Timestamp::MIN,
            policy: PolicyVersion::parse("p").unwrap(),
            revision: 1,
        };
        let bytes: u32 = 32 << 20;
        let persons: Arc<[PersonMark]> =
            vec![PersonMark::of(&person); usize::try_from(bytes).unwrap() * 9 / 10 / MARK_BYTES].into();
        let given = Given { page, persons, basis: Basis::default(), held_at: AtomicI64::new(1) };
        let answers = Answers::new(bytes.into());
        answers.0.insert(question.clone(), Arc::new(given));
        assert!(answers.0.get(&question).is_some());
    }
}
