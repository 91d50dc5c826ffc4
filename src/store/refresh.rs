//! Views of now that are kept: brought up to date by reading again what was touched since, in one moment of the database.
//! What comes out is what would be read anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use sqlx::PgConnection;

use crate::{
    domain::{PersonId, TenantId, Timestamp},
    scoring::{Policy, Rhythm, Tie},
    telemetry::names::Operation,
};

use super::{
    Basis, PersonMark, Seen, Store, StoreError, TieKey, Viewed,
    changes::{self, Change, MOST_CHANGES, Touched},
    commitment,
    lease::within,
    moment::Moment,
    overlay::Overlay,
    rhythm, tie,
    view::{Asked, MAX_ROWS, commits},
};

/// About how many bytes a peer takes in memory, with what finds it, a tie, and a commitment.
const PEER_BYTES: usize = 350;
const TIE_BYTES: usize = 240;
const COMMITMENT_BYTES: usize = 150;
/// The most peers and persons who are read again; of more, all is.
const MOST_FRESH: usize = 10_000;

/// A view of all peers, as of now when it was made, that is kept.
#[derive(Debug)]
pub struct KeptView {
    tenant: TenantId,
    owner: PersonId,
    viewed: Viewed,
    /// The marks of the owner and all peers, in ascending order.
    marks: Arc<[PersonMark]>,
    /// Whose marks they are.
    persons: Vec<PersonId>,
}

impl Deref for KeptView {
    type Target = Viewed;

    fn deref(&self) -> &Viewed {
        &self.viewed
    }
}

/// Whom of a view to read again.
#[derive(Default)]
struct Changed {
    /// The peers whose ties changed, either way.
    peers: BTreeSet<PersonId>,
    /// Everybody whose rhythm may have, these peers among them.
    persons: BTreeSet<PersonId>,
}

/// What was touched of a view, read again.
struct Fresh {
    basis: Basis,
    policy: Arc<Policy>,
    as_of: Timestamp,
    /// The peers whose ties changed, either way, with these and their commitments.
    peers: BTreeSet<PersonId>,
    ties: HashMap<TieKey, Tie>,
    commitments: commitment::Commitments,
    /// Whose rhythms changed, with these.
    rhythms: BTreeMap<PersonId, Option<Rhythm>>,
}

impl KeptView {
    /// Keeps a view of all of an owner's peers; gives it back when it will change by itself as time goes on.
    pub fn new(tenant: &TenantId, owner: &PersonId, viewed: Box<Viewed>) -> Result<Self, Box<Viewed>> {
        if viewed.view.goes_on {
            return Err(viewed);
        }
        let (marks, persons) = (Arc::from([]), Vec::new());
        let mut kept = Self { tenant: tenant.clone(), owner: owner.clone(), viewed: *viewed, marks, persons };
        kept.mark_persons();
        Ok(kept)
    }

    /// The marks of the owner and all peers, in ascending order.
    pub fn marks(&self) -> &Arc<[PersonMark]> {
        &self.marks
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> u64 {
        let view = &self.viewed.view;
        let bytes = view.peers.len() * PEER_BYTES + view.ties() * TIE_BYTES + view.commitments() * COMMITMENT_BYTES;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether it shows all that had been recorded then.
    pub fn shows(&self, then: Basis) -> bool {
        self.viewed.basis.origin == then.origin && self.viewed.basis.revision >= then.revision
    }

    /// The same view as of a later time; `false` when that is earlier.
    pub fn advance(&mut self, as_of: Timestamp) -> bool {
        let is_later = as_of >= self.viewed.as_of;
        if is_later {
            self.viewed.as_of = as_of;
        }
        is_later
    }

    fn mark_persons(&mut self) {
        let persons = self.viewed.view.peers.keys().chain([&self.owner]);
        let mut marked: Vec<_> = persons.map(|person| (PersonMark::of(person), person.clone())).collect();
        marked.sort_unstable();
        let (marks, persons): (Vec<_>, _) = marked.into_iter().unzip();
        (self.marks, self.persons) = (marks.into(), persons);
    }

    /// Everybody in the view whom a mark stands for.
    fn marked(&self, mark: PersonMark) -> &[PersonId] {
        let first = self.marks.partition_point(|one| *one < mark);
        let count = self.marks[first..].iter().take_while(|one| **one == mark).count();
        &self.persons[first..first + count]
    }

    /// What of it was touched since, by what was seen; `None` when that is not known.
    fn touched(&self, seen: &Seen) -> Option<Touched> {
        seen.touched(PersonMark::of(&self.owner), &self.marks, self.viewed.basis)
    }

    fn asked(&self, as_of: Timestamp) -> Asked<'_> {
        Asked { tenant: &self.tenant, owner: &self.owner, peer: None, as_of }
    }

    /// Notes what one revision changed of it; `false` when that is not told, or too much by now.
    fn note(&self, change: Change, changed: &mut Changed) -> bool {
        changed.persons.extend(change.persons.iter().flat_map(|mark| self.marked(*mark)).cloned());
        let Some(peers) = change.peers else {
            return change.persons.iter().all(|mark| self.marked(*mark).is_empty());
        };
        for peer in peers {
            let Ok(peer) = PersonId::recorded(&peer) else { return false };
            changed.persons.insert(peer.clone());
            changed.peers.insert(peer);
        }
        changed.persons.len() <= MOST_FRESH
    }

    fn take_in(&mut self, fresh: Fresh) {
        let Fresh { basis, policy, as_of, peers, ties, commitments, rhythms } = fresh;
        let view = &mut self.viewed.view;
        let before = view.peers.len();
        for peer in &peers {
            let peer = view.peers.entry(peer.clone()).or_default();
            (peer.theirs, peer.yours) = Default::default();
        }
        for (key, tie) in ties {
            view.side_mut(&self.owner, &key.actor, &key.recipient).tie = Some(Box::new(tie));
        }
        view.add_commitments(&self.owner, commitments, as_of);
        for (person, rhythm) in rhythms {
            *view.rhythm_mut(&person) = rhythm;
        }
        let has_more = view.peers.len() > before;
        (self.viewed.basis, self.viewed.policy, self.viewed.as_of) = (basis, policy, as_of);
        if has_more {
            self.mark_persons();
        }
    }
}

impl Store {
    /// Brings a kept view up to date; `false` when it has to be made anew.
    pub async fn refresh(
        &self,
        kept: &mut KeptView,
        as_of: impl FnOnce() -> Timestamp + Send,
    ) -> Result<bool, StoreError> {
        let Some(touched) = self.changes(&kept.tenant, |seen| kept.touched(seen)).await? else { return Ok(false) };
        let mut lease = self.lease(Operation::Refresh).await?;
        let fresh = within(async {
            let (mut snapshot, moment) = self.snapshot(&mut lease, &kept.tenant).await?;
            let fresh = self.fresh(&mut snapshot, kept, &touched, moment, as_of).await?;
            snapshot.commit().await?;
            Ok(fresh)
        });
        let fresh = fresh.await;
        let fresh = lease.end(fresh)?;
        Ok(fresh.map(|fresh| kept.take_in(fresh)).is_some())
    }

    /// What was touched of a view until this moment, read again; `None` when it has to be made anew.
    async fn fresh(
        &self,
        snapshot: &mut PgConnection,
        kept: &KeptView,
        touched: &Touched,
        moment: Moment,
        as_of: impl FnOnce() -> Timestamp + Send,
    ) -> Result<Option<Fresh>, StoreError> {
        let basis = moment.basis;
        let since = touched.until.revision;
        if basis.origin != touched.until.origin || basis.revision < since || basis.revision - since > MOST_CHANGES {
            return Ok(None);
        }
        // What was recorded while this began is not among what was seen.
        let revisions: Vec<i64> = touched.of_owner.iter().copied().chain(since + 1..=basis.revision).collect();
        let mut changed = Changed::default();
        changed.persons.extend(touched.persons.iter().flat_map(|mark| kept.marked(*mark)).cloned());
        if changed.persons.len() > MOST_FRESH {
            return Ok(None);
        }
        let whose = (&kept.tenant, &kept.owner);
        let note = |change| kept.note(change, &mut changed);
        if !revisions.is_empty() && !changes::each_at(snapshot, whose, &revisions, note).await? {
            return Ok(None);
        }
        let Changed { peers, persons } = changed;
        let policy = self.policies.used(snapshot, &kept.tenant, &moment.policy).await?;
        let as_of = as_of();
        let asked = kept.asked(as_of);
        let keys: HashSet<_> = peers.iter().flat_map(|peer| asked.both_ties(peer)).collect();
        let columns = keys.iter().collect();
        let overlay = Overlay::read(snapshot, &kept.tenant, &moment, Some(&persons), MOST_FRESH, self.policy);
        let overlay = match overlay.await {
            Err(StoreError::Lagging) => return Ok(None),
            overlay => overlay?,
        };
        let mut ties = if peers.is_empty() { HashMap::new() } else { tie::get(snapshot, &columns).await? };
        let is_fresh = |tie: &TieKey| keys.contains(tie);
        overlay.add_ties(&mut ties, is_fresh);
        let mut commitments = if ties.values().any(commits) {
            commitment::of_ties(snapshot, &columns, MAX_ROWS).await?
        } else {
            commitment::Commitments::new()
        };
        overlay.add_commitments(&mut commitments, is_fresh);
        let asked: Vec<_> = persons.iter().map(|person| (kept.tenant.clone(), person.clone())).collect();
        let mut found = if asked.is_empty() { HashMap::new() } else { rhythm::get(snapshot, &asked).await? };
        overlay.add_rhythms(&mut found, &asked, self.policy);
        let goes_on =
            ties.values().any(|tie| tie.last_time > as_of) || found.values().any(|rhythm| rhythm.last_time > as_of);
        let rhythms = asked
            .into_iter()
            .map(|key| {
                let rhythm = found.remove(&key);
                (key.1, rhythm)
            })
            .collect();
        let is_whole = as_of >= kept.as_of && !goes_on && kept.view.ties() + ties.len() <= MAX_ROWS;
        Ok(is_whole.then_some(Fresh { basis, policy, as_of, peers, ties, commitments, rhythms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scoring::DEFAULT, store::View};

    #[test]
    fn a_view_of_which_very_much_changed_is_made_anew() {
        let (tenant, owner) = (TenantId::unnamed(), PersonId::parse("ada").unwrap());
        let viewed = Viewed {
            view: View::default(),
            as_of: Timestamp::MIN,
            policy: Arc::new(DEFAULT.clone()),
            basis: Basis::default(),
        };
        let kept = KeptView::new(&tenant, &owner, Box::new(viewed)).unwrap();
        let (mut changed, peer) = (Changed::default(), |number: usize| vec![format!("peer-{number}")]);
        let mut note = |peers| kept.note(Change { persons: Vec::new(), peers }, &mut changed);
        assert!((0..MOST_FRESH).all(|number| note(Some(peer(number)))));
        assert!(note(Some(peer(0))), "nobody counts twice");
        assert!(!note(Some(peer(MOST_FRESH))));
    }
}
