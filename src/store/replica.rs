//! A replica, a database that follows the primary: whether it can be read from, and whether it has come far enough for
//! somebody who has to see a certain revision of a tenant. That is asked in the very snapshot that is read: what is visible
//! with a revision is everything that led to it.

use sqlx::{Connection as _, PgConnection, PgTransaction};
use tokio_util::sync::CancellationToken;

use crate::domain::TenantId;

use super::{
    SNAPSHOT, Store, StoreError, grants,
    lease::within,
    moment::Moment,
    schema::{PAGE_TOKEN_KEY, server_key, serving},
};

/// The condition of a replica, as an operator would ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCondition {
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether it has been told not to follow for now.
    pub is_paused: bool,
    /// How many bytes of the log it has not followed yet.
    pub bytes_behind: i64,
    /// The role in use.
    pub role: String,
    /// Privileges that reading needs and this role has not, with their table.
    pub missing_privileges: Vec<String>,
}

impl Store {
    /// The same store, for somebody who has to see at least that revision of every tenant they read of.
    #[must_use]
    pub fn at_least(&self, revision: i64) -> Self {
        Self { at_least: Some(revision), ..self.clone() }
    }

    /// Cancelled when nobody is interested any more.
    pub fn unwanted(&self) -> CancellationToken {
        self.unwanted.clone()
    }

    /// Fails unless this revision is as far as has to be seen.
    pub(super) fn reached(&self, revision: i64) -> Result<(), StoreError> {
        if self.at_least.is_some_and(|needed| revision < needed) { Err(StoreError::Behind) } else { Ok(()) }
    }

    /// A snapshot that shows what has to be seen.
    pub(super) async fn snapshot<'a>(
        &self,
        connection: &'a mut PgConnection,
        tenant: &TenantId,
    ) -> Result<(PgTransaction<'a>, Moment), StoreError> {
        let mut snapshot = connection.begin_with(SNAPSHOT).await?;
        let moment = self.moment(&mut snapshot, tenant).await?;
        self.reached(moment.basis.revision)?;
        Ok((snapshot, moment))
    }

    /// Fails unless it can be read from instead of the database that has this key for page tokens: it answers, is a standby, holds
    /// a copy of that database, and has the schema that this program needs.
    pub async fn check_copy(&self, page_token_key: &[u8]) -> Result<(), StoreError> {
        let mut lease = self.probe().await?;
        let checked = within(async {
            let standby = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "standby!""#);
            if !standby.fetch_one(&mut *lease).await? {
                return Err(StoreError::NoCopy);
            }
            serving(&mut lease).await?;
            match server_key(&mut lease, PAGE_TOKEN_KEY).await? {
                Some(key) if key == page_token_key => Ok(()),
                _ => Err(StoreError::NoCopy),
            }
        });
        let checked = checked.await;
        lease.end(checked)
    }

    /// How this replica is, compared with its primary.
    pub async fn replica_condition(&self, primary: &Self) -> Result<ReplicaCondition, StoreError> {
        // Asked first, so that what happens meanwhile does not count.
        let (_, _, ahead) = primary.position().await?;
        let (in_recovery, is_paused, there) = self.position().await?;
        let mut lease = self.probe().await?;
        let privileges = within(privileges(&mut lease)).await;
        let (role, missing_privileges) = lease.end(privileges)?;
        let bytes_behind = ahead.saturating_sub(there).max(0);
        Ok(ReplicaCondition { in_recovery, is_paused, bytes_behind, role, missing_privileges })
    }

    /// Whether it is a standby, whether that is paused, and how far it is in the log, in bytes.
    async fn position(&self) -> Result<(bool, bool, i64), StoreError> {
        let mut lease = self.probe().await?;
        let position = within(async {
            let row = sqlx::query!(
                r#"SELECT pg_is_in_recovery() AS "in_recovery!",
                       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS "paused!",
                       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                           ELSE pg_current_wal_lsn() END, '0/0')::bigint AS "position!""#,
            );
            let row = row.fetch_one(&mut *lease).await?;
            Ok((row.in_recovery, row.paused, row.position))
        });
        let position = position.await;
        lease.end(position)
    }
}

/// The role in use, and the privileges that it lacks for reading all tables.
async fn privileges(connection: &mut PgConnection) -> Result<(String, Vec<String>), StoreError> {
    let tables: Vec<String> = grants::NEEDED.iter().map(|(table, _)| (*table).to_owned()).collect();
    let row = sqlx::query!(
        r#"SELECT current_user::text AS "role!", coalesce(array_agg(name ORDER BY name) FILTER (
               WHERE has_table_privilege(to_regclass(name)::oid, 'SELECT') IS NOT TRUE
           ), '{}') AS "unreadable!"
           FROM UNNEST($1::text[]) AS needed (name)"#,
        &tables,
    );
    let row = row.fetch_one(connection).await?;
    Ok((row.role, row.unreadable.into_iter().map(|table| format!("SELECT on {table}")).collect()))
}
