//! All SQL. The ledger is the truth; ties, rhythms and commitments are folded from it.
//! Scoring policies are kept as they were published; what is derived from the ledger is the same under all of them.
//!
//! Nothing here reads a clock or knows of the wire. Every statement carries the tenant and every timestamp is a parameter.

mod absorb;
mod append;
mod baseline;
mod batch;
mod changes;
mod commitment;
mod conclude;
mod condition;
mod connect;
mod error;
mod fold;
mod grants;
mod history;
mod lease;
mod ledger;
mod moment;
mod overlay;
mod policy;
mod publish;
mod reach;
mod rebuild;
mod record;
mod refresh;
mod replica;
mod rhythm;
mod rows;
mod schema;
mod tie;
mod turns;
mod view;
mod writer;

use std::sync::{Arc, atomic::Ordering};

use sqlx::PgPool;

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{PersonId, PolicyVersion, TenantId, Timestamp},
    scoring::Policy,
    telemetry::{
        Metrics,
        names::{DatabaseRole, Operation},
    },
};

pub use baseline::{Baseline, BaselineAct};
pub use changes::{PersonMark, Seen};
pub use condition::Condition;
pub use connect::Watch;
pub use error::StoreError;
pub use ledger::Entry;
pub use moment::Basis;
pub use policy::PolicyEntry;
pub use publish::{MAX_POLICIES, NewPolicy, Publication};
pub use reach::{Place, Unreached};
pub use rebuild::{Difference, Progress, Table};
pub use record::Outcome;
pub use refresh::KeptView;
pub use replica::ReplicaCondition;
pub use rows::TieKey;
pub use schema::Schema;
pub use view::{Found, MAX_ROWS, PairActs, PeerView, SideView, View, Viewed};
pub use writer::{Answer, LANES, MAX_BATCH, QUEUE_LEN, WriteError, Writer};

use changes::Follower;
use lease::{Answers, Lease, within};
use overlay::Overlay;
use policy::Policies;

/// How many acts of a tenant are read at once.
const ACTS_AT_ONCE: i64 = 10_000;
/// Begins reads that belong together.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The database. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// One connection that nothing but probes uses: however much is waiting for the others, they get through.
    probes: PgPool,
    answers: Answers,
    unwanted: CancellationToken,
    role: DatabaseRole,
    /// The revision of a tenant without which nothing is read.
    at_least: Option<i64>,
    policy: &'static Policy,
    policies: Policies,
    noted: Arc<connect::Noted>,
    follower: Follower,
    metrics: Metrics,
}

impl Store {
    /// A store on the database at `url`, over at most so many connections and one for probes, with the policy that tenants
    /// use until they put another one to use; nothing is connected yet.
    pub fn new(url: &str, max_connections: u32, policy: &'static Policy) -> Result<Self, StoreError> {
        Self::watched(url, DatabaseRole::Primary, max_connections, policy, Watch::off())
    }

    /// A store like that, watched, on the primary or on a replica of it.
    pub fn watched(
        url: &str,
        role: DatabaseRole,
        max_connections: u32,
        policy: &'static Policy,
        watch: Watch,
    ) -> Result<Self, StoreError> {
        let noted = Arc::<connect::Noted>::default();
        let pool = connect::pool(url, role, max_connections, watch.slow_statement, Arc::clone(&noted))?;
        let probes = connect::pool(url, role, 1, watch.slow_statement, Arc::default())?;
        watch.metrics.connections(role, max_connections, {
            let pool = pool.clone();
            move || connect::state(&pool)
        });
        Ok(Self {
            pool,
            probes,
            answers: Answers::default(),
            unwanted: CancellationToken::new(),
            role,
            at_least: None,
            policy,
            policies: Policies::new(policy),
            noted,
            follower: Follower::default(),
            metrics: watch.metrics,
        })
    }

    /// The policy built into the program. What ties keep of it is the same in all policies.
    pub fn built_in_policy(&self) -> &'static Policy {
        self.policy
    }

    /// The same store, for somebody who may lose interest: no work begins after that.
    #[must_use]
    pub fn until(&self, unwanted: CancellationToken) -> Self {
        Self { unwanted, ..self.clone() }
    }

    /// Which database it is on.
    pub fn role(&self) -> DatabaseRole {
        self.role
    }

    /// What measures it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the tables are distributed by tenant: then no transaction spans tenants, as they may lie in different places.
    fn is_distributed(&self) -> bool {
        self.noted.is_distributed.load(Ordering::SeqCst)
    }

    async fn lease(&self, operation: Operation) -> Result<Lease, StoreError> {
        let lease = Lease::take((&self.pool, self.role), &self.answers, operation, &self.metrics);
        let lease = self.unwanted.run_until_cancelled(lease).await;
        lease.unwrap_or(Err(StoreError::Unwanted))
    }

    /// Fails unless sessions are set as they should be.
    pub async fn check_settings(&self) -> Result<(), StoreError> {
        let mut lease = self.lease(Operation::Probe).await?;
        let unsettled = within(connect::unsettled(&mut lease)).await;
        let unsettled = lease.end(unsettled)?;
        if unsettled.is_empty() { Ok(()) } else { Err(StoreError::Unsettled) }
    }

    /// The connection for probes.
    async fn probe(&self) -> Result<Lease, StoreError> {
        // That probes are answered says nothing of the rest.
        Lease::take((&self.probes, self.role), &Answers::default(), Operation::Probe, self.metrics()).await
    }

    /// Fails unless the database answers, as a primary.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut lease = self.probe().await?;
        let answered = within(async {
            let standby = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "standby!""#);
            if standby.fetch_one(&mut *lease).await? { Err(StoreError::Standby) } else { Ok(()) }
        });
        let answered = answered.await;
        lease.end(answered)
    }

    /// What would become of an entry, without recording it; `None` when it is new.
    pub async fn check(&self, entry: &Entry) -> Result<Option<Outcome>, StoreError> {
        let mut lease = self.lease(Operation::Check).await?;
        let recorded = within(ledger::recorded(&mut lease, [&entry.key()])).await;
        let recorded = lease.end(recorded)?;
        Ok(recorded.get(&entry.key()).map(|first| entry.against(first)))
    }

    /// An owner's connections, or the one with `peer`, with the policy to score them by: the pinned one, else the one in use.
    /// As of what time is asked when it is settled what is seen: so nothing that was done before the answer lies after its
    /// time. More than [`MAX_ROWS`] ties, or commitments, or of the past acts or active days are an error; so is too much that
    /// is not folded yet.
    pub async fn view(
        &self,
        tenant: &TenantId,
        owner: &PersonId,
        peer: Option<&PersonId>,
        as_of: impl FnOnce() -> Timestamp + Send,
        pinned: Option<&PolicyVersion>,
        most: usize,
    ) -> Result<Found, StoreError> {
        let mut lease = self.lease(Operation::View).await?;
        let view = within(async {
            let (mut snapshot, moment) = self.snapshot(&mut lease, tenant).await?;
            let policy = match pinned {
                Some(version) => self.policies.get(&mut snapshot, tenant, &self.policies.which(version)).await?,
                None => Some(self.policies.used(&mut snapshot, tenant, &moment.policy).await?),
            };
            let Some(policy) = policy else { return Ok(Found::NoPolicy) };
            let asked = view::Asked { tenant, owner, peer, as_of: as_of() };
            let read = async {
                let overlay = Overlay::read(&mut snapshot, tenant, &moment, None, most, self.policy).await?;
                view::view(&mut snapshot, &asked, &overlay, self.policy, most).await
            };
            let view = match read.await {
                Err(StoreError::TooLarge(_)) if most < MAX_ROWS => {
                    // A refusal waits for nobody who reads a large view.
                    let is_refused =
                        peer.is_none() && tie::are_more_than(&mut snapshot, tenant, owner, MAX_ROWS).await?;
                    return if is_refused { Err(StoreError::TooLarge(MAX_ROWS)) } else { Ok(Found::Larger) };
                }
                Err(StoreError::Lagging) if most < MAX_ROWS => return Ok(Found::Lagging),
                view => view?,
            };
            snapshot.commit().await?;
            Ok(Found::View(Box::new(Viewed { view, as_of: asked.as_of, policy, basis: moment.basis })))
        });
        let view = view.await;
        lease.end(view)
    }

    /// The latest acts of each kind of an owner and each of these peers, up to a time.
    pub async fn pair_acts(
        &self,
        tenant: &TenantId,
        owner: &PersonId,
        peers: &[PersonId],
        as_of: Timestamp,
        most_of_a_kind: i64,
    ) -> Result<std::collections::HashMap<PersonId, PairActs>, StoreError> {
        let mut lease = self.lease(Operation::Explain).await?;
        let asked = view::Asked { tenant, owner, peer: None, as_of };
        let acts = within(async {
            if self.at_least.is_none() {
                return view::pair_acts(&mut lease, &asked, peers, most_of_a_kind).await;
            }
            let (mut snapshot, _) = self.snapshot(&mut lease, tenant).await?;
            let acts = view::pair_acts(&mut snapshot, &asked, peers, most_of_a_kind).await?;
            snapshot.commit().await?;
            Ok(acts)
        });
        let acts = acts.await;
        lease.end(acts)
    }

    /// Hands on everything that a tenant's people did, as tie and act, in no order of time.
    pub async fn each_act(
        &self,
        tenant: &TenantId,
        mut hand_on: impl FnMut(TieKey, crate::scoring::Act),
    ) -> Result<(), StoreError> {
        let mut after = Some((String::new(), -1));
        while let Some(from) = after {
            let mut lease = self.lease(Operation::History).await?;
            let read = within(history::acts_of_tenant(&mut lease, tenant, &from, ACTS_AT_ONCE)).await;
            let (acts, next) = lease.end(read)?;
            for (key, act) in acts {
                hand_on(key, act);
            }
            after = next;
        }
        Ok(())
    }

    /// Which of a person's peers have an interaction with them, by a time, on one of these channels and about one of these
    /// topics; an empty list asks for nothing.
    pub async fn peers_with(
        &self,
        tenant: &TenantId,
        person: &PersonId,
        as_of: Timestamp,
        channels: &[&str],
        topics: &[&str],
    ) -> Result<Vec<PersonId>, StoreError> {
        let mut lease = self.lease(Operation::Filter).await?;
        let peers = within(async {
            if self.at_least.is_none() {
                return history::peers_with(&mut lease, tenant, person, as_of, channels, topics).await;
            }
            let (mut snapshot, _) = self.snapshot(&mut lease, tenant).await?;
            let peers = history::peers_with(&mut snapshot, tenant, person, as_of, channels, topics).await?;
            snapshot.commit().await?;
            Ok(peers)
        });
        let peers = peers.await;
        lease.end(peers)
    }

    /// Closes all connections after their work is done.
    pub async fn close(&self) {
        self.pool.close().await;
        self.probes.close().await;
    }
}

/// A limit on rows by which it shows that there are more than `most`.
fn one_more_than(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1)
}

/// `()` when as many rows were written as were meant to be.
fn all_written(affected: impl TryInto<usize>, meant: usize) -> Option<()> {
    affected.try_into().is_ok_and(|affected| affected == meant).then_some(())
}
