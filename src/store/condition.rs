//! The condition of a database, as an operator would ask for it: what it is, how it is set, what the role in use may do.
//! Nothing is judged here.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::{domain::Timestamp, telemetry::names::Operation};

use super::{Store, StoreError, connect::unsettled, grants::NEEDED, lease::within, rows::from_sql};

/// How often the clocks are compared; the quickest answer counts.
const CLOCK_READINGS: usize = 5;
/// The settings that are looked at.
const SETTINGS: [&str; 11] = [
    "autovacuum",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "max_connections",
    "server_version_num",
    "shared_buffers",
    "superuser_reserved_connections",
    "synchronous_commit",
    "TimeZone",
];

/// The condition of a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The role in use.
    pub role: String,
    /// Whether it is a standby, or still recovering.
    pub in_recovery: bool,
    /// Settings as sessions of this role have them, by name.
    pub settings: BTreeMap<String, String>,
    /// Privileges that a serving role needs and this one has not, with their table; `None` for a table that is not there.
    pub missing_privileges: Vec<(String, Option<String>)>,
    /// What sessions are not set to although this program asks for it, by name, with the value asked for.
    pub missing_settings: Vec<(String, String)>,
    /// By how much the database's clock is ahead, in microseconds.
    pub clock_ahead_micros: i64,
    /// By how much that may be wrong either way: half of the round trip.
    pub clock_error_micros: i64,
    /// How large the database is.
    pub database_bytes: u64,
    /// How many connections a server of these settings opens at most.
    pub own_connections: u32,
}

impl Store {
    /// The condition of the database. The time is what `read_clock` tells.
    pub async fn condition(&self, read_clock: impl Fn() -> Timestamp + Send + Sync) -> Result<Condition, StoreError> {
        let mut lease = self.lease(Operation::Probe).await?;
        // One more is for probes.
        let own_connections = self.pool.options().get_max_connections().saturating_add(1);
        let condition = within(async {
            let (clock_ahead_micros, clock_error_micros) = clocks(&mut lease, &read_clock).await?;
            let (role, in_recovery, database_bytes) = state(&mut lease).await?;
            let settings = settings(&mut lease).await?;
            let missing_privileges = missing_privileges(&mut lease).await?;
            let missing_settings = unsettled(&mut lease).await?;
            Ok(Condition {
                role,
                in_recovery,
                settings,
                missing_privileges,
                missing_settings,
                clock_ahead_micros,
                clock_error_micros,
                database_bytes,
                own_connections,
            })
        });
        let condition = condition.await;
        lease.end(condition)
    }
}

async fn state(connection: &mut PgConnection) -> Result<(String, bool, u64), StoreError> {
    let state = sqlx::query!(
        r#"SELECT current_user::text AS "role!", pg_is_in_recovery() AS "in_recovery!",
               pg_database_size(current_database()) AS "size!""#
    );
    let state = state.fetch_one(connection).await?;
    Ok((state.role, state.in_recovery, u64::try_from(state.size).unwrap_or(0)))
}

async fn settings(connection: &mut PgConnection) -> Result<BTreeMap<String, String>, StoreError> {
    let names = SETTINGS.map(str::to_owned);
    let rows = sqlx::query!(
        r#"SELECT name AS "name!", setting AS "setting!" FROM pg_settings WHERE name = ANY($1)"#,
        &names[..],
    );
    let rows = rows.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.name, row.setting)).collect())
}

async fn missing_privileges(connection: &mut PgConnection) -> Result<Vec<(String, Option<String>)>, StoreError> {
    let needed = NEEDED.iter().flat_map(|(table, privileges)| privileges.iter().map(|privilege| (*table, *privilege)));
    let (tables, privileges): (Vec<String>, Vec<String>) =
        needed.map(|(table, privilege)| (table.to_owned(), privilege.to_owned())).unzip();
    let rows = sqlx::query!(
        r#"SELECT needed.name AS "name!", needed.privilege AS "privilege!", to_regclass(needed.name) IS NOT NULL AS "exists!"
        FROM UNNEST($1::text[], $2::text[]) AS needed (name, privilege)
        WHERE has_table_privilege(to_regclass(needed.name)::oid, needed.privilege) IS NOT TRUE
        ORDER BY needed.name, needed.privilege"#,
        &tables,
        &privileges,
    );
    let rows = rows.fetch_all(connection).await?;
    let mut missing: Vec<_> = rows.into_iter().map(|row| (row.name, row.exists.then_some(row.privilege))).collect();
    missing.dedup();
    Ok(missing)
}

/// By how much the database's clock is ahead, and by how much that may be wrong. The answer is taken to be of the middle of
/// its round trip, as NTP does.
async fn clocks(
    connection: &mut PgConnection,
    read_clock: &(impl Fn() -> Timestamp + Sync),
) -> Result<(i64, i64), StoreError> {
    let mut best = (0, i64::MAX);
    for _ in 0..CLOCK_READINGS {
        let asked = read_clock().micros();
        let there = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *connection).await?;
        let half = (read_clock().micros() - asked) / 2;
        if half < best.1 {
            best = (from_sql("pg_catalog", there)?.micros() - (asked + half), half);
        }
    }
    Ok(best)
}
