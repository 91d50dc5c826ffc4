//! The pool of connections: what each is told when it is opened, and what is seen of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::telemetry::{Metrics, names::DatabaseRole};

use super::StoreError;

/// How long a call waits for a connection to the primary.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long for one to a replica, without which the primary answers.
const REPLICA_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a statement may take before it is logged, unless told otherwise.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);
/// What every session is set to. Nothing waits without end. Every statement finds its rows by an index, however few there are
/// now and whatever the statistics say: a plan that is kept must be good for what the tables will have become. None is worth
/// planning anew for each of its values.
const SETTINGS: [(&str, &str); 8] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "20s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// How a store is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What measures it.
    pub metrics: Metrics,
    /// How long a statement may take before it is logged as slow, without its values.
    pub slow_statement: Duration,
}

impl Watch {
    /// Nobody measures.
    pub fn off() -> Self {
        Self { metrics: Metrics::off(), slow_statement: SLOW_STATEMENT }
    }
}

/// What is noted of the database when a connection is opened.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Which one of its PostgreSQL it is: its oid, by the latest connection. No older one leads elsewhere, as a database cannot
    /// be put in the place of another while there are any.
    pub database: AtomicU32,
    /// Whether Citus distributes its tables.
    pub is_distributed: AtomicBool,
}

/// A pool on the database at `url` that notes what is seen of it; nothing is connected yet.
pub(super) fn pool(
    url: &str,
    role: DatabaseRole,
    max_connections: u32,
    slow_statement: Duration,
    noted: Arc<Noted>,
) -> Result<PgPool, StoreError> {
    let variable = match role {
        DatabaseRole::Primary => "DATABASE_URL",
        DatabaseRole::Replica => "RAPPORT_READ_DATABASE_URL",
    };
    let options: PgConnectOptions = url.parse().map_err(|source| StoreError::Address { variable, source })?;
    let options = options.log_slow_statements(log::LevelFilter::Warn, slow_statement);
    let options = options.application_name("rapport").options(SETTINGS);
    let acquire_timeout = match role {
        DatabaseRole::Primary => ACQUIRE_TIMEOUT,
        DatabaseRole::Replica => REPLICA_ACQUIRE_TIMEOUT,
    };
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .after_connect(move |connection, _| {
            let noted = Arc::clone(&noted);
            Box::pin(async move { noted.look(connection).await })
        })
        .connect_lazy_with(options))
}

impl Noted {
    /// Looks at the database. Citus plans by values, since they say where the rows are: a session with it is told to.
    async fn look(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let row = sqlx::query!(
            r#"SELECT oid, (
                   SELECT set_config('plan_cache_mode', 'force_custom_plan', false)
                   FROM pg_extension WHERE extname = 'citus'
               ) IS NOT NULL AS "is_distributed!"
               FROM pg_database WHERE datname = current_database()"#,
        );
        let row = row.fetch_one(connection).await?;
        self.database.store(row.oid.0, Ordering::SeqCst);
        self.is_distributed.store(row.is_distributed, Ordering::SeqCst);
        Ok(())
    }
}

/// How many connections are used, and how many are idle.
pub(super) fn state(pool: &PgPool) -> (i64, i64) {
    let idle = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
    (i64::from(pool.size()).saturating_sub(idle).max(0), idle)
}

/// A session of its own with PostgreSQL itself, in which things may take as long as they need: migrations hold locks of their
/// session, which a pooler would scatter over several. A pooler leaves out what a session is to be set to.
pub(super) async fn directly(pool: &PgPool) -> Result<PgConnection, StoreError> {
    // PostgreSQL would tell of what is there already, on every start.
    let quiet = ("client_min_messages", "warning");
    let settings = [("statement_timeout", "0"), ("lock_timeout", "0"), ("rapport.directly", "on"), quiet];
    let options: PgConnectOptions = pool.connect_options().as_ref().clone().options(settings);
    let mut connection = options.connect().await?;
    let mark = sqlx::query_scalar!(r#"SELECT current_setting('rapport.directly', true) = 'on' AS "mark""#);
    match mark.fetch_one(&mut connection).await? {
        Some(true) => Ok(connection),
        _ => Err(StoreError::Indirect),
    }
}

/// What a session is not set to although it should be, by name, with the value it should have.
pub(super) async fn unsettled(connection: &mut PgConnection) -> Result<Vec<(String, String)>, StoreError> {
    let (names, values): (Vec<String>, Vec<String>) =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).unzip();
    let rows = sqlx::query!(
        r#"SELECT wanted.name AS "name!", wanted.value AS "value!"
        FROM UNNEST($1::text[], $2::text[]) AS wanted (name, value)
        WHERE current_setting(wanted.name) <> wanted.value AND NOT (
            wanted.name = 'plan_cache_mode' AND EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
        )"#,
        &names,
        &values,
    );
    let rows = rows.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.name, row.value)).collect())
}
