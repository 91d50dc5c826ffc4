//! All SQL. The ledger is the truth; ties, rhythms and commitments are kept beside it in the same transactions.
//! Scoring policies are kept as they were published; what is derived from the ledger is the same under all of them.
//!
//! Nothing here reads a clock or knows of the wire. Every statement carries the tenant and every timestamp is a parameter.

mod absorb;
mod baseline;
mod changes;
mod commitment;
mod conclude;
mod condition;
mod connect;
mod error;
mod grants;
mod history;
mod lease;
mod ledger;
mod policy;
mod publish;
mod rebuild;
mod rhythm;
mod rows;
mod tie;
mod view;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, PgPool, migrate::Migrator};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{PersonId, PolicyVersion, TenantId, Timestamp},
    scoring::Policy,
    telemetry::{Metrics, names::Operation},
};

pub use absorb::Outcome;
pub use baseline::{Baseline, BaselineAct};
pub use changes::{Basis, PersonMark, Seen};
pub use condition::Condition;
pub use connect::Watch;
pub use error::StoreError;
pub use ledger::Entry;
pub use policy::PolicyEntry;
pub use publish::{MAX_POLICIES, NewPolicy, Publication};
pub use rebuild::{Difference, Progress, Table};
pub use rows::TieKey;
pub use view::{MAX_ROWS, PairActs, PeerView, SideView, View, Viewed};
pub use writer::{Answer, LANES, MAX_BATCH, QUEUE_LEN, WriteError, Writer};

use changes::Follower;
use connect::without_timeouts;
use lease::{Answers, Lease, within};
use policy::Policies;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// How long a statement may take before it is logged, unless told otherwise.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);
/// How many acts of a tenant are read at once.
const ACTS_AT_ONCE: i64 = 10_000;
/// The version of the schema since which ties and rhythms are kept as this program keeps them.
const DERIVED_SINCE: i64 = 3;
/// The name of the mark of a database whose ties and rhythms are still to be derived for that.
const UNDERIVED: &str = "underived";
/// The name of the key that seals page tokens.
const PAGE_TOKEN_KEY: &str = "page-token";
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
    policy: &'static Policy,
    policies: Policies,
    connections: Arc<AtomicU64>,
    follower: Follower,
    metrics: Metrics,
}

impl Store {
    /// A store on the database at `url`, over at most so many connections and one for probes, with the policy that tenants
    /// use until they put another one to use; nothing is connected yet.
    pub fn new(url: &str, max_connections: u32, policy: &'static Policy) -> Result<Self, StoreError> {
        let watch = Watch { metrics: Metrics::off(), slow_statement: SLOW_STATEMENT };
        Self::watched(url, max_connections, policy, watch)
    }

    /// A store like that, watched.
    pub fn watched(url: &str, max_connections: u32, policy: &'static Policy, watch: Watch) -> Result<Self, StoreError> {
        let connections = Arc::new(AtomicU64::new(0));
        let pool = connect::pool(url, max_connections, watch.slow_statement, Arc::clone(&connections))?;
        let probes = connect::pool(url, 1, watch.slow_statement, Arc::default())?;
        watch.metrics.connections(max_connections, {
            let pool = pool.clone();
            move || connect::state(&pool)
        });
        Ok(Self {
            pool,
            probes,
            answers: Answers::default(),
            unwanted: CancellationToken::new(),
            policy,
            policies: Policies::new(policy),
            connections,
            follower: Follower::default(),
            metrics: watch.metrics,
        })
    }

    /// The policy built into the program. What ties keep of it is the same in all policies.
    pub fn built_in_policy(&self) -> &'static Policy {
        self.policy
    }

    /// Brings the schema to the version of this program, and derives from the ledger what an older one kept otherwise. When
    /// that was interrupted, the next one does it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = PgConnection::connect_with(&without_timeouts(&self.pool)).await?;
        if (1..DERIVED_SINCE).contains(&schema_version(&mut connection).await?) {
            set_once(&mut connection, UNDERIVED, &[]).await?;
        }
        MIGRATIONS.run(&mut connection).await?;
        if server_key(&mut connection, UNDERIVED).await?.is_some() {
            self.rebuild(true, |_| {}).await?;
            sqlx::query!("DELETE FROM server_key WHERE name = $1", UNDERIVED).execute(&mut connection).await?;
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| StoreError::NoRandomness)?;
        set_once(&mut connection, PAGE_TOKEN_KEY, &key).await?;
        Ok(connection.close().await?)
    }

    /// The same store, for somebody who may lose interest: no work begins after that.
    #[must_use]
    pub fn until(&self, unwanted: CancellationToken) -> Self {
        Self { unwanted, ..self.clone() }
    }

    /// What measures it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn lease(&self, operation: Operation) -> Result<Lease, StoreError> {
        let lease = Lease::take(&self.pool, &self.answers, operation, &self.metrics);
        let lease = self.unwanted.run_until_cancelled(lease).await;
        lease.unwrap_or(Err(StoreError::Unwanted))
    }

    /// Fails unless the schema is the one that this program needs, with everything in it that is derived from the ledger.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let needed = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        let mut lease = self.lease(Operation::Probe).await?;
        let checked = within(async {
            match schema_version(&mut lease).await? {
                found if found != needed => Err(StoreError::Schema { found, needed }),
                _ if server_key(&mut lease, UNDERIVED).await?.is_some() => Err(StoreError::Underived),
                _ => Ok(()),
            }
        });
        let checked = checked.await;
        lease.end(checked)
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // That probes are answered says nothing of the rest.
        let mut lease = Lease::take(&self.probes, &Answers::default(), Operation::Probe, self.metrics()).await?;
        let answered =
            within(async { Ok(sqlx::query!("SELECT 1 AS one").fetch_one(&mut *lease).await.map(drop)?) }).await;
        lease.end(answered)
    }

    /// The key that seals page tokens, the same for all servers of this database.
    pub async fn page_token_key(&self) -> Result<Vec<u8>, StoreError> {
        let mut lease = self.lease(Operation::Probe).await?;
        let key = within(async {
            server_key(&mut lease, PAGE_TOKEN_KEY)
                .await?
                .ok_or(StoreError::Inconsistent { table: "server_key", what: "no key for page tokens" })
        });
        let key = key.await;
        lease.end(key)
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
    /// time. `None` when there is no such policy.
    pub async fn view(
        &self,
        tenant: &TenantId,
        owner: &PersonId,
        peer: Option<&PersonId>,
        as_of: impl FnOnce() -> Timestamp + Send,
        pinned: Option<&PolicyVersion>,
    ) -> Result<Option<Viewed>, StoreError> {
        let connections = self.connections.load(Ordering::SeqCst);
        let mut lease = self.lease(Operation::View).await?;
        let view = within(async {
            let mut snapshot = lease.begin_with(SNAPSHOT).await?;
            let viewed = match self.policies.wanted(&mut snapshot, tenant, pinned).await? {
                Some(policy) => {
                    let revision = changes::revision(&mut snapshot, tenant).await?;
                    let asked = view::Asked { tenant, owner, peer, as_of: as_of() };
                    let view = view::view(&mut snapshot, &asked, self.policy).await?;
                    Some(Viewed { view, as_of: asked.as_of, policy, basis: Basis { revision, connections } })
                }
                None => None,
            };
            snapshot.commit().await?;
            Ok(viewed)
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
        let acts = within(view::pair_acts(&mut lease, &asked, peers, most_of_a_kind)).await;
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
        let peers = within(history::peers_with(&mut lease, tenant, person, as_of, channels, topics)).await;
        lease.end(peers)
    }

    /// Closes all connections after their work is done.
    pub async fn close(&self) {
        self.pool.close().await;
        self.probes.close().await;
    }
}

/// The version of the schema; 0 for none.
async fn schema_version(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "exists!""#)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    let version = sqlx::query_scalar!(r#"SELECT max(version) AS "version" FROM _sqlx_migrations WHERE success"#)
        .fetch_one(connection)
        .await?;
    Ok(version.unwrap_or(0))
}

/// What all servers of the database share under a name.
async fn server_key(connection: &mut PgConnection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let content = sqlx::query_scalar!("SELECT content FROM server_key WHERE name = $1", name);
    Ok(content.fetch_optional(connection).await?)
}

/// Lets all servers of the database share something under a name, unless there is something already.
async fn set_once(connection: &mut PgConnection, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let insert = sqlx::query!(
        "INSERT INTO server_key (name, content) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        name,
        content,
    );
    insert.execute(connection).await?;
    Ok(())
}

/// A limit on rows by which it shows that there are more than `most`.
fn one_more_than(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1)
}

/// `()` when as many rows were written as were meant to be.
fn all_written(affected: impl TryInto<usize>, meant: usize) -> Option<()> {
    affected.try_into().is_ok_and(|affected| affected == meant).then_some(())
}
