//! Folding: what is recorded is in the ledger first, and from there is taken into ties, commitments and rhythms, many acts at
//! once. Servers do so all the time, for what any of them recorded. Whoever reads meanwhile takes the rest in by itself, in
//! `overlay`, and sees all. What is not folded yet is noted beside the ledger, so a server that dies leaves it to the others.
//!
//! *Folded acts* are those of the ledger that `unfolded` does not name. They and what is derived from them change together,
//! in one transaction: whoever compares the two, or adds to what was derived, reads no others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::{Mutex, Notify},
    time::sleep,
};

use crate::telemetry::names::Operation;

use super::{
    Store, StoreError,
    absorb::absorb,
    changes, history,
    history::ActsByTie,
    lease::{Lease, within},
    rows::{ActRow, only},
    turns::{Turn, Turns},
};

/// How many folds of a server go on at once, each over a connection that is kept for it.
pub(super) const FOLDERS: usize = 2;
/// How long a server lets acts gather before it folds them.
const GATHERED_FOR: Duration = Duration::from_millis(20);
/// How many acts are folded at once, beside what is being folded already.
const BESIDE: usize = 512;
/// How many acts that a server recorded may wait to be folded before it records no more.
const MOST_AHEAD: usize = 1024;
/// The most revisions that are folded in one transaction, and with how many acts it takes no more.
const MOST_AT_ONCE: i64 = 256;
const ENOUGH_ACTS: i64 = 4096;
/// How often folding is tried when others begin the same ties.
const ATTEMPTS: u32 = 5;
/// Begins a fold. What a crash takes back of it is unfolded again, so its commit waits neither for disks nor for standbys.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off";
/// How long a server pauses when it cannot fold.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How long it leaves a tenant alone whose acts could not be folded, if that may pass; and if trying again cannot help.
const LEFT_ALONE_FOR: [Duration; 2] = [Duration::from_secs(5), Duration::from_mins(1)];

/// What a server recorded and does not fold yet.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    acts: AtomicUsize,
    /// Whether to look for what others left.
    looks: AtomicBool,
    grown: Notify,
    /// Held by whoever folds when nobody else does.
    alone: Mutex<()>,
    /// Told when there is room for more.
    pub room: Notify,
    /// Tenants whose acts could not be folded, so that they keep nobody else's from it, and until when.
    left_alone: std::sync::Mutex<HashMap<String, Instant>>,
    turns: Turns,
}

impl Ahead {
    /// Notes that so many acts were recorded.
    pub(super) fn add(&self, acts: usize) {
        self.acts.fetch_add(acts, Ordering::SeqCst);
        self.grown.notify_one();
    }

    /// Has somebody look for what is unfolded, also when this server recorded nothing.
    pub(super) fn look(&self) {
        self.looks.store(true, Ordering::SeqCst);
        self.grown.notify_one();
    }

    fn acts(&self) -> usize {
        self.acts.load(Ordering::SeqCst)
    }

    /// Whether no more may be recorded for now.
    pub(super) fn is_full(&self) -> bool {
        self.acts() >= MOST_AHEAD
    }

    /// Folds what was recorded, without end: a little after it was, when nobody else folds, else as soon as it is much.
    pub(super) async fn follow(self: Arc<Self>, store: Store) {
        let mut kept = None;
        loop {
            self.grown.notified().await;
            let alone = self.alone.try_lock();
            if self.acts() < BESIDE {
                if alone.is_err() {
                    continue;
                }
                sleep(GATHERED_FOR).await;
            }
            let acts = self.acts.swap(0, Ordering::SeqCst);
            if !self.looks.swap(false, Ordering::SeqCst) && acts == 0 {
                continue;
            }
            self.room.notify_one();
            match self.folded(&store, kept.take()).await {
                Ok(lease) => {
                    store.metrics.folded(acts);
                    kept = Some(lease);
                }
                Err(error) => {
                    tracing::warn!("what was recorded is not folded yet: {}", error.with_causes());
                    self.add(acts);
                    sleep(FAILURE_PAUSE).await;
                }
            }
            drop(alone);
            // Meanwhile others may have left some to whoever folds alone.
            if self.acts() > 0 || self.looks.load(Ordering::SeqCst) {
                self.grown.notify_one();
            }
        }
    }

    async fn folded(&self, store: &Store, lease: Option<Lease>) -> Result<Lease, StoreError> {
        let mut lease = match lease {
            Some(lease) => lease,
            None => store.lease(Operation::Fold).await?,
        };
        let folded = within(store.fold(&mut lease, self)).await;
        let (lease, failed) = lease.go_on(folded)?;
        for (tenant, error) in failed {
            if matches!(error, StoreError::Raced) {
                tracing::warn!("others go ahead with what was recorded for a tenant; folding it again");
                self.look();
                continue;
            }
            tracing::error!("what was recorded for a tenant cannot be folded: {}", error.with_causes());
            let [passing, other] = LEFT_ALONE_FOR;
            let until = Instant::now() + if error.is_passing() { passing } else { other };
            self.left_alone.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant, until);
        }
        Ok(lease)
    }

    fn is_left_alone(&self, tenant: &str) -> bool {
        let mut left_alone = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        left_alone.retain(|_, until| *until > now);
        left_alone.contains_key(tenant)
    }
}

impl Store {
    /// Whether anything is recorded and not folded yet, by whichever server.
    pub async fn has_unfolded(&self) -> Result<bool, StoreError> {
        let mut lease = self.probe().await?;
        let unfolded = within(async {
            let unfolded = sqlx::query_scalar!("SELECT tenant FROM unfolded LIMIT 1");
            Ok(unfolded.fetch_optional(&mut *lease).await?.is_some())
        });
        let unfolded = unfolded.await;
        lease.end(unfolded)
    }

    /// Folds what is recorded and nobody else is folding, but for tenants to be left alone; and tells for whom that failed.
    pub(super) async fn fold(
        &self,
        connection: &mut PgConnection,
        ahead: &Ahead,
    ) -> Result<Vec<(String, StoreError)>, StoreError> {
        let mut tenants =
            sqlx::query_scalar!("SELECT DISTINCT tenant FROM unfolded").fetch_all(&mut *connection).await?;
        tenants.retain(|tenant| !ahead.is_left_alone(tenant));
        if tenants.len() > 1 && !self.is_distributed() {
            match self.fold_of(connection, &tenants, &ahead.turns).await {
                Ok(()) => return Ok(Vec::new()),
                Err(error) if !error.leaves_session() => return Err(error),
                // One of them is in the way of the others.
                Err(_) => {}
            }
        }
        let mut failed = Vec::new();
        for tenant in tenants {
            match self.fold_of(connection, std::slice::from_ref(&tenant), &ahead.turns).await {
                Err(error) if !error.leaves_session() => return Err(error),
                Err(error) => failed.push((tenant, error)),
                Ok(()) => {}
            }
        }
        Ok(failed)
    }

    /// Folds what is recorded for these tenants, so much at a time.
    async fn fold_of(
        &self,
        connection: &mut PgConnection,
        tenants: &[String],
        turns: &Turns,
    ) -> Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            match self.fold_some(connection, tenants, turns).await {
                Ok(true) => attempt = 1,
                Ok(false) => return Ok(()),
                Err(StoreError::Raced) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Folds in one transaction, and tells whether there may be more.
    async fn fold_some(
        &self,
        connection: &mut PgConnection,
        tenants: &[String],
        turns: &Turns,
    ) -> Result<bool, StoreError> {
        let mut transaction = connection.begin_with(BEGIN).await?;
        match self.fold_claimed(&mut transaction, tenants, turns).await {
            Ok((has_more, turn)) => {
                transaction.commit().await?;
                drop(turn);
                Ok(has_more)
            }
            Err(error) => {
                if error.leaves_session() {
                    transaction.rollback().await?;
                }
                Err(error)
            }
        }
    }

    /// Folds what it can claim. Tells whether there may be more, and hands on the turn, which lasts until that is committed.
    async fn fold_claimed<'a>(
        &self,
        connection: &mut PgConnection,
        tenants: &[String],
        turns: &'a Turns,
    ) -> Result<(bool, Turn<'a>), StoreError> {
        let Claimed { acts, revisions, has_more } = claim(connection, tenants).await?;
        let turn = turns.next(acts.keys()).await;
        turn.among_servers(connection, revisions.iter().map(|(tenant, _)| &**tenant)).await?;
        absorb(connection, acts, self.policy).await?;
        changes::forget(connection, &revisions).await?;
        Ok((has_more, turn))
    }
}

/// What nobody else folds.
struct Claimed {
    acts: ActsByTie,
    /// Which revisions of which tenants added them to the ledger.
    revisions: BTreeSet<(String, i64)>,
    /// Whether there may be more.
    has_more: bool,
}

/// Claims what nobody else is folding. It is folded then, if the transaction commits.
async fn claim(connection: &mut PgConnection, tenants: &[String]) -> Result<Claimed, StoreError> {
    let names: Vec<&str> = tenants.iter().map(String::as_str).collect();
    let rows = sqlx::query!(
        r#"WITH claimed AS (
               DELETE FROM unfolded
               WHERE ctid = ANY(ARRAY(
                       SELECT place FROM (
                           SELECT place, sum(acts) OVER (ROWS UNBOUNDED PRECEDING) - acts AS before FROM (
                               SELECT unfolded.ctid AS place, cardinality(unfolded.kinds) AS acts FROM unfolded
                               WHERE unfolded.tenant = ANY($1) AND ($2::text IS NULL OR unfolded.tenant = $2)
                               LIMIT $3 FOR UPDATE SKIP LOCKED
                           ) AS held
                       ) AS added WHERE before < $4))
                   AND ($2::text IS NULL OR tenant = $2)
               RETURNING *
           )
           SELECT tenant, revision, UNNEST(actors) AS "actor!", UNNEST(recipients) AS "recipient!",
               UNNEST(interaction_ids) AS "interaction_id!", UNNEST(times) AS "interaction_time!", UNNEST(kinds) AS "kind!",
               UNNEST(group_sizes) AS "group_size!", UNNEST(efforts_micros) AS effort_micros,
               UNNEST(unprompted) AS "unprompted!", UNNEST(serve_goals) AS "serves_goal!", UNNEST(due_times) AS due_time,
               UNNEST(refer_to) AS refers_to
           FROM claimed"#,
        &names as _,
        only(&names),
        MOST_AT_ONCE,
        ENOUGH_ACTS,
    )
    .fetch_all(connection)
    .await?;
    let mut revisions = BTreeSet::new();
    let has_enough = |claimed: usize, most| i64::try_from(claimed).is_ok_and(|claimed| claimed >= most);
    let is_full = has_enough(rows.len(), ENOUGH_ACTS);
    let acts = rows.into_iter().map(|row| {
        revisions.insert((row.tenant.clone(), row.revision));
        ActRow {
            tenant: row.tenant,
            actor: row.actor,
            recipient: row.recipient,
            interaction_id: row.interaction_id,
            interaction_time: row.interaction_time,
            kind: row.kind,
            group_size: row.group_size,
            effort_micros: row.effort_micros,
            unprompted: row.unprompted,
            serves_goal: row.serves_goal,
            due_time: row.due_time,
            refers_to: row.refers_to,
        }
    });
    let acts = history::by_tie(acts)?;
    let has_more = is_full || has_enough(revisions.len(), MOST_AT_ONCE);
    Ok(Claimed { acts, revisions, has_more })
}
