//! What changes, and when. Every transaction that records raises the revision of its tenants and notes whose ties or rhythms
//! it touched; a server follows that, and so knows which of the answers it gave still hold. One that puts another policy to
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

use sqlx::{PgConnection, postgres::types::Oid, types::time::OffsetDateTime};
use tokio::time::timeout;

use crate::{
    domain::{PersonId, TenantId},
    telemetry::names::{DatabaseRole, Operation},
};

use super::{
    Store, StoreError,
    lease::within,
    policy::{self, Which},
    rows::from_sql,
};

/// How long a look may take, with those before it that it waits for; longer than waiting for a connection takes.
const LOOK_LIMIT: Duration = Duration::from_secs(6);
/// The most changes of one tenant that are read to catch up; who is further behind begins anew.
pub(super) const MOST_CHANGES: i64 = 1000;
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

/// What a tenant's answers are made from, in the moment that a transaction sees.
pub(super) struct Moment {
    /// The revision, and in which database.
    pub basis: Basis,
    /// The policy in use.
    pub policy: Which,
}

/// What the connection's transaction sees of a tenant. In place of a primary, a standby sees nothing that counts.
pub(super) async fn moment(
    connection: &mut PgConnection,
    tenant: &TenantId,
    role: DatabaseRole,
) -> Result<Moment, StoreError> {
    let now = sqlx::query!(
        r#"SELECT coalesce((SELECT revision FROM tenant_revision WHERE tenant = $1), 0) AS "revision!",
               (SELECT version FROM policy_use WHERE tenant = $1 ORDER BY place DESC LIMIT 1) AS policy,
               pg_is_in_recovery() AS "standby!", pg_postmaster_start_time() AS "started!",
               (SELECT oid FROM pg_database WHERE datname = current_database()) AS "database!""#,
        tenant.as_str(),
    );
    let now = now.fetch_one(connection).await?;
    let origin = Origin::of(now.standby, role, now.database, now.started)?;
    Ok(Moment { basis: Basis { revision: now.revision, origin }, policy: policy::which(now.policy)? })
}

/// The revision of a tenant in a transaction of the primary's.
pub(super) async fn revision(connection: &mut PgConnection, tenant: &TenantId) -> Result<i64, StoreError> {
    Ok(moment(connection, tenant, DatabaseRole::Primary).await?.basis.revision)
}

/// Which database answered. Another one that takes over may know other things by the same revision, and so may one that was
/// started again. One that crashed and recovered by itself does not, with `synchronous_commit` on: what could be seen of it
/// is on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Which database of that PostgreSQL.
    database: Oid,
    /// When the PostgreSQL was started, in microseconds since 1970: a pooler may turn from one to another by itself.
    started: i64,
}

impl Origin {
    fn of(is_standby: bool, role: DatabaseRole, database: Oid, started: OffsetDateTime) -> Result<Self, StoreError> {
        if is_standby && role == DatabaseRole::Primary {
            return Err(StoreError::Standby);
        }
        Ok(Self { database, started: from_sql("pg_catalog", started)?.micros() })
    }
}

/// What an answer is made from: a revision of its tenant, in the database that the connections of a server lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    /// The revision.
    pub revision: i64,
    /// In which database.
    pub(super) origin: Origin,
}

impl Basis {
    /// The same database at another revision.
    #[must_use]
    pub fn at(self, revision: i64) -> Self {
        Self { revision, ..self }
    }
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
        most_persons: usize,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query!(
            r#"SELECT coalesce((SELECT revision FROM tenant_revision WHERE tenant = $1), 0) AS "now!",
                   (SELECT version FROM policy_use WHERE tenant = $1 ORDER BY place DESC LIMIT 1) AS policy,
                   pg_is_in_recovery() AS "standby!", pg_postmaster_start_time() AS "started!",
                   (SELECT oid FROM pg_database WHERE datname = current_database()) AS "database!",
                   change.revision AS "revision?", persons AS "persons?"
               FROM (SELECT) AS always
               LEFT JOIN change ON change.tenant = $1 AND change.revision > $2
               ORDER BY change.revision LIMIT $3"#,
            tenant.as_str(),
            self.now.revision,
            MOST_CHANGES,
        );
        let rows = rows.fetch_all(connection).await?;
        let nothing = StoreError::Inconsistent { table: "change", what: "a look saw nothing" };
        let first = rows.first().ok_or(nothing)?;
        let origin = Origin::of(first.standby, role, first.database, first.started)?;
        let (revision, policy) = (first.now, first.policy.clone());
        let changes: Vec<_> = rows.into_iter().filter_map(|row| row.revision.zip(row.persons)).collect();
        let is_next = origin == self.now.origin
            && i64::try_from(changes.len()).is_ok_and(|count| count == revision - self.now.revision);
        (self.now, self.policy) = (Basis { revision, origin }, policy);
        if is_next {
            self.remember(changes, most_persons);
        } else {
            self.since = revision;
            self.touched.clear();
        }
        Ok(())
    }

    fn remember(&mut self, changes: Vec<(i64, Vec<i64>)>, most_persons: usize) {
        for (revision, persons) in changes {
            self.touched.extend(persons.into_iter().map(|mark| (revision, PersonMark(mark))));
        }
        while self.touched.len() > most_persons
            && let Some((revision, _)) = self.touched.pop_front()
        {
            self.since = revision;
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

/// What one revision changed.
pub(super) struct Change {
    /// Whom it touched.
    pub persons: Vec<PersonMark>,
    /// The ties that it changed, as actor and recipient, and with them all else that it changed; `None` when that is not told.
    pub ties: Option<Vec<(String, String)>>,
}

/// What these revisions of a tenant changed; `None` unless all are still known.
pub(super) async fn at(
    connection: &mut PgConnection,
    tenant: &TenantId,
    revisions: &[i64],
) -> Result<Option<Vec<Change>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT persons, actors, recipients FROM change WHERE tenant = $1 AND revision = ANY($2)",
        tenant.as_str(),
        revisions,
    );
    let rows = rows.fetch_all(connection).await?;
    let changes = rows.into_iter().map(|row| Change {
        persons: row.persons.into_iter().map(PersonMark).collect(),
        ties: row.actors.zip(row.recipients).map(|(actors, recipients)| actors.into_iter().zip(recipients).collect()),
    });
    let changes: Vec<_> = changes.collect();
    Ok(Some(changes).filter(|changes| changes.len() == revisions.len()))
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
        timeout(LOOK_LIMIT, self.look(tenant, judge)).await.unwrap_or(Err(StoreError::Silent))
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
            let caught_up = within(seen.catch_up(&mut lease, tenant, self.role, most_persons)).await;
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
        seen.remember((1..=10).map(|revision| (revision, vec![revision, -revision])).collect(), 4);
        seen.now.revision = 10;
        let at = |revision| Basis { revision, ..Basis::default() };
        // What came after is known from the revision on of which all is remembered.
        assert!(!seen.left_alone(&[PersonMark(9)], at(8)) && seen.left_alone(&[PersonMark(9)], at(9)));
        assert!(!seen.left_alone(&[], at(7)));
    }
}
