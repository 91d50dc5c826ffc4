//! What changes, and when. Everybody who records raises the revision of its tenants and notes whose ties or rhythms that
//! touches; a server follows that, and so knows which of the answers it gave still hold. One that puts another policy to
//! use does so too, and touches nobody: a revision stands for all that rankings are made of. Anything else that is ever to
//! change them has to raise it, or a replica would be believed to have seen it.
//!
//! Many who ask at the same time share one look at the database, which begins after the last of them has asked: whatever was
//! acknowledged before that, by any server, is seen.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::PgConnection;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use crate::{
    domain::{PersonId, TenantId},
    telemetry::names::{DatabaseRole, Operation},
};

use super::{
    Store, StoreError,
    lease::within,
    moment::{Basis, Origin},
};

/// How long a look may take, with those before it that it waits for; longer than waiting for a connection takes.
const LOOK_LIMIT: Duration = Duration::from_secs(6);
/// The most changes of one tenant that are read to catch up; who is further behind begins anew.
pub(super) const MOST_CHANGES: i64 = 1000;
/// At which revisions older changes are forgotten, many at once: the multiples of it.
const FORGETS_AT: i64 = 256;
/// The most persons of one tenant that are remembered to have been touched.
const MOST_PERSONS: usize = 100_000;
/// How many are shared out among the tenants that are followed, 16 bytes each.
const PERSONS_IN_ALL: usize = 1_000_000;
/// The most tenants that are followed at once; beyond, all are followed anew.
const MOST_TENANTS: usize = 1000;

/// What stands for a person in the notes of changes. Two persons may share a mark: then what touches one seems to touch both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonMark(pub(super) i64);

impl PersonMark {
    /// The mark of a person: the first 8 bytes of the BLAKE3 hash of their id.
    pub fn of(person: &PersonId) -> Self {
        let hash = blake3::hash(person.as_str().as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(i64::from_le_bytes(*first))
    }
}

/// A person of a tenant as changes note them.
pub(super) fn mark<'a>(tenant: &'a TenantId, person: &PersonId) -> (&'a str, i64) {
    (tenant.as_str(), PersonMark::of(person).0)
}

/// Raises the revisions of the tenants of these persons, and notes that they were touched. From there to the commit, whoever
/// records for such a tenant waits.
pub(super) async fn note<'a>(
    connection: &mut PgConnection,
    touched: impl IntoIterator<Item = (&'a TenantId, &'a PersonId)>,
) -> Result<(), StoreError> {
    let touched: BTreeSet<_> = touched.into_iter().map(|(tenant, person)| mark(tenant, person)).collect();
    if touched.is_empty() {
        return Ok(());
    }
    let (tenants, marks): (Vec<&str>, Vec<i64>) = touched.into_iter().unzip();
    sqlx::query!(
        "WITH touched AS MATERIALIZED (
             SELECT tenant, array_agg(person) AS persons
             FROM UNNEST($1::text[], $2::bigint[]) AS touched (tenant, person)
             GROUP BY tenant
         ), next AS (
             INSERT INTO tenant_revision (tenant, revision)
             SELECT tenant, 1 FROM touched ORDER BY tenant
             ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
             RETURNING tenant, revision
         )
         INSERT INTO change (tenant, revision, persons) SELECT tenant, revision, persons FROM next JOIN touched USING (tenant)",
        &tenants as _,
        &marks,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the changes that nobody catches up with any more, when it is time to, now that these revisions of tenants are
/// reached. They are kept for twice as long as anybody does.
pub(super) async fn forget(connection: &mut PgConnection, reached: &BTreeSet<(String, i64)>) -> Result<(), StoreError> {
    for (tenant, revision) in reached.iter().filter(|(_, revision)| revision % FORGETS_AT == 0) {
        let last = revision - 2 * MOST_CHANGES;
        sqlx::query!("DELETE FROM change WHERE tenant = $1 AND revision < $2", tenant, last)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// What is known of a tenant's changes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The latest revision.
    now: Basis,
    /// The revision from which on changes are known.
    since: i64,
    /// Whom they touched, in the order of revisions.
    touched: VecDeque<(i64, PersonMark)>,
    /// The version of the published policy in use; none for the one built in.
    policy: Option<String>,
}

impl Seen {
    /// The latest revision.
    pub fn now(&self) -> Basis {
        self.now
    }

    /// The version of the published policy in use; `None` for the one built into the program.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Who of these persons, in ascending order, was touched since at which revisions, if that is known.
    fn later<'a>(
        &'a self,
        persons: &'a [PersonMark],
        since: Basis,
    ) -> Option<impl Iterator<Item = (i64, PersonMark)> + 'a> {
        let is_known = since.origin == self.now.origin && (self.since..=self.now.revision).contains(&since.revision);
        let later = self.touched.partition_point(|(revision, _)| *revision <= since.revision);
        let touched = move || self.touched.range(later..).filter(|(_, person)| persons.binary_search(person).is_ok());
        is_known.then(|| touched().copied())
    }

    /// Whether it is known that none of these persons, in ascending order, was touched since.
    pub fn left_alone(&self, persons: &[PersonMark], since: Basis) -> bool {
        self.later(persons, since).is_some_and(|mut touched| touched.next().is_none())
    }

    /// What of an owner's view was touched since, if that is known; `persons` are the owner and all peers, in ascending order.
    pub(super) fn touched(&self, owner: PersonMark, persons: &[PersonMark], since: Basis) -> Option<Touched> {
        let mut touched = Touched { until: self.now, persons: BTreeSet::new(), of_owner: Vec::new() };
        for (revision, person) in self.later(persons, since)? {
            touched.persons.insert(person);
            if person == owner {
                touched.of_owner.push(revision);
            }
        }
        touched.of_owner.dedup();
        Some(touched)
    }

    async fn catch_up(
        &mut self,
        connection: &mut PgConnection,
        tenant: &TenantId,
        role: DatabaseRole,
        database: u32,
        most_persons: usize,
    ) -> Result<(), StoreError> {
        // The first look has nothing to go on from; to one that is too far behind, changes are of no use.
        let before = (self.now != Basis::default()).then_some(self.now.revision);
        let mut rows = sqlx::query!(
            r#"SELECT state.revision AS "now!",
                   (SELECT version FROM policy_use WHERE tenant = $1 ORDER BY place DESC LIMIT 1) AS policy,
                   pg_is_in_recovery() AS "standby!", pg_postmaster_start_time() AS "started!",
                   later.revision AS "revision?", later.persons AS "persons?"
               FROM (SELECT coalesce((SELECT revision FROM tenant_revision WHERE tenant = $1), 0) AS revision) AS state
               LEFT JOIN LATERAL (
                   SELECT change.revision, change.persons FROM change
                   WHERE change.tenant = $1 AND change.revision > $2 AND state.revision <= $2 + $3
                   ORDER BY change.revision DESC LIMIT $3
               ) AS later ON true
               ORDER BY later.revision DESC"#,
            tenant.as_str(),
            before,
            MOST_CHANGES,
        )
        .fetch(connection);
        let (mut changes, mut state) = (Changes::new(most_persons), None);
        while let Some(row) = rows.try_next().await? {
            if state.is_none() {
                let origin = Origin::of(row.standby, role, database, row.started)?;
                state = Some((Basis { revision: row.now, origin }, row.policy));
            }
            if let Some((revision, persons)) = row.revision.zip(row.persons) {
                changes.add(revision, &persons);
            }
        }
        drop(rows);
        let (now, policy) = state.ok_or(StoreError::Inconsistent { table: "change", what: "a look saw nothing" })?;
        let is_next =
            now.origin == self.now.origin && before.is_some_and(|before| changes.count == now.revision - before);
        (self.now, self.policy) = (now, policy);
        if is_next {
            self.remember(changes);
        } else {
            self.since = now.revision;
            self.touched = VecDeque::new();
        }
        Ok(())
    }

    fn remember(&mut self, changes: Changes) {
        let Changes { later, since, most_persons, .. } = changes;
        if let Some(since) = since {
            self.since = since;
            self.touched.clear();
        }
        let room = most_persons.saturating_sub(later.len());
        while self.touched.len() > room
            && let Some((revision, _)) = self.touched.pop_front()
        {
            self.since = revision;
        }
        self.touched.extend(later);
        self.touched.shrink_to(most_persons);
    }
}

/// Changes on their way into memory, the latest first; only as many persons as are remembered.
struct Changes {
    most_persons: usize,
    /// How many changes there are.
    count: i64,
    /// Whom they touched, in the order of revisions.
    later: VecDeque<(i64, PersonMark)>,
    /// The revision from which on all are there, unless all are.
    since: Option<i64>,
}

impl Changes {
    fn new(most_persons: usize) -> Self {
        Self { most_persons, count: 0, later: VecDeque::new(), since: None }
    }

    fn add(&mut self, revision: i64, persons: &[i64]) {
        self.count += 1;
        if self.since.is_none() && self.later.len() + persons.len() > self.most_persons {
            self.since = Some(revision);
        }
        if self.since.is_none() {
            for mark in persons {
                self.later.push_front((revision, PersonMark(*mark)));
            }
        }
    }
}

/// What of an owner's view was touched.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    /// Until when.
    pub until: Basis,
    /// Whom of it.
    pub persons: BTreeSet<PersonMark>,
    /// At which revisions the owner was touched.
    pub of_owner: Vec<i64>,
}

/// What one revision changed, as far as it concerns an owner.
pub(super) struct Change {
    /// Whom it touched.
    pub persons: Vec<PersonMark>,
    /// The others of the owner's ties that it changed, and with them all else that it changed of anybody; `None` when that is
    /// not told.
    pub peers: Option<Vec<String>>,
}

/// Hands on what these revisions of a tenant changed, one by one, until that is of no use any more; `false` then, and unless
/// all are still known.
pub(super) async fn each_at(
    connection: &mut PgConnection,
    (tenant, owner): (&TenantId, &PersonId),
    revisions: &[i64],
    mut hand_on: impl FnMut(Change) -> bool + Send,
) -> Result<bool, StoreError> {
    let mut rows = sqlx::query!(
        r#"SELECT persons, CASE WHEN actors IS NOT NULL THEN ARRAY(
               SELECT CASE WHEN tie.actor = $3 THEN tie.recipient ELSE tie.actor END
               FROM UNNEST(actors, recipients) AS tie (actor, recipient) WHERE $3 IN (tie.actor, tie.recipient)
           ) END AS peers
           FROM change WHERE tenant = $1 AND revision = ANY($2)"#,
        tenant.as_str(),
        revisions,
        owner.as_str(),
    )
    .fetch(connection);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        count += 1;
        if !hand_on(Change { persons: row.persons.into_iter().map(PersonMark).collect(), peers: row.peers }) {
            return Ok(false);
        }
    }
    Ok(count == revisions.len())
}

/// One tenant, followed.
#[derive(Debug, Default)]
struct Followed {
    /// How many looks have begun.
    begun: AtomicU64,
    /// How many were done, and what was seen.
    seen: tokio::sync::Mutex<(u64, Seen)>,
}

/// The tenants that are followed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower(Arc<Mutex<HashMap<TenantId, Arc<Followed>>>>);

impl Follower {
    /// A tenant, and how many of its persons may be remembered.
    fn of(&self, tenant: &TenantId) -> (Arc<Followed>, usize) {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.len() >= MOST_TENANTS && !followed.contains_key(tenant) {
            followed.clear();
        }
        let of_tenant = Arc::clone(followed.entry(tenant.clone()).or_default());
        (of_tenant, (PERSONS_IN_ALL / followed.len()).min(MOST_PERSONS))
    }
}

impl Store {
    /// Looks at what changed for a tenant until now, and tells what `judge` makes of it.
    pub async fn changes<T>(&self, tenant: &TenantId, judge: impl FnOnce(&Seen) -> T) -> Result<T, StoreError> {
        // So many may stand behind one look that nobody can wait until each of them has tried in turn.
        let answers = self.answers.load(Ordering::Relaxed);
        let looked = timeout(LOOK_LIMIT, self.look(tenant, judge)).await;
        looked.unwrap_or_else(|_| {
            let is_silent = self.answers.load(Ordering::Relaxed) == answers;
            Err(if is_silent { StoreError::Silent } else { StoreError::Busy })
        })
    }

    async fn look<T>(&self, tenant: &TenantId, judge: impl FnOnce(&Seen) -> T) -> Result<T, StoreError> {
        let (followed, most_persons) = self.follower.of(tenant);
        // A look that has begun already may be too early.
        let needed = followed.begun.load(Ordering::SeqCst) + 1;
        let mut seen = followed.seen.lock().await;
        let (done, seen) = &mut *seen;
        if *done < needed {
            let number = followed.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let mut lease = self.lease(Operation::Look).await?;
            let database = self.noted.database.load(Ordering::SeqCst);
            let caught_up = within(seen.catch_up(&mut lease, tenant, self.role, database, most_persons)).await;
            lease.end(caught_up)?;
            *done = number;
        }
        self.reached(seen.now.revision)?;
        Ok(judge(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_all_tenants_is_bounded() {
        let (follower, tenant) = (Follower::default(), |number: usize| TenantId::parse(&format!("t{number}")).unwrap());
        assert_eq!(follower.of(&tenant(0)).1, MOST_PERSONS);
        let shares: Vec<usize> = (0..2 * MOST_TENANTS).map(|number| follower.of(&tenant(number)).1).collect();
        assert_eq!(shares.iter().min(), Some(&(PERSONS_IN_ALL / MOST_TENANTS)));
        let mut seen = Seen::default();
        for revisions in [1..=3, 4..=10] {
            let mut changes = Changes::new(4);
            revisions.rev().for_each(|revision| changes.add(revision, &[revision, -revision]));
            seen.remember(changes);
        }
        seen.now.revision = 10;
        let at = |revision| Basis { revision, ..Basis::default() };
        // What came after is known from the revision on of which all is remembered.
        assert!(!seen.left_alone(&[PersonMark(9)], at(8)) && seen.left_alone(&[PersonMark(9)], at(9)));
        assert!(!seen.left_alone(&[], at(7)));
    }
}
