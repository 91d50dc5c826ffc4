//! What a tenant's answers are made from in a moment of the database, and which database that is.

use std::sync::atomic::Ordering;

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::{domain::TenantId, telemetry::names::DatabaseRole};

use super::{
    Store, StoreError,
    policy::{self, Which},
    rows::from_sql,
};

/// What a tenant's answers are made from, in the moment that a transaction sees.
pub(super) struct Moment {
    /// The revision, and in which database.
    pub basis: Basis,
    /// Whether all is folded that was recorded up to then.
    pub is_folded: bool,
    /// The policy in use.
    pub policy: Which,
}

impl Store {
    /// What the connection's transaction sees of a tenant. Nothing counts that a standby sees in place of a primary, or a primary
    /// in place of a standby.
    pub(super) async fn moment(&self, connection: &mut PgConnection, tenant: &TenantId) -> Result<Moment, StoreError> {
        let now = sqlx::query!(
            r#"SELECT coalesce((SELECT revision FROM tenant_revision WHERE tenant = $1), 0) AS "revision!",
                   NOT EXISTS (SELECT FROM unfolded WHERE tenant = $1) AS "is_folded!",
                   (SELECT version FROM policy_use WHERE tenant = $1 ORDER BY place DESC LIMIT 1) AS policy,
                   pg_is_in_recovery() AS "standby!", pg_postmaster_start_time() AS "started!""#,
            tenant.as_str(),
        );
        let now = now.fetch_one(connection).await?;
        let database = self.noted.database.load(Ordering::SeqCst);
        let origin = Origin::of(now.standby, self.role, database, now.started)?;
        let basis = Basis { revision: now.revision, origin };
        Ok(Moment { basis, is_folded: now.is_folded, policy: policy::which(now.policy)? })
    }
}

/// Which database answered. Another one that takes over may know other things by the same revision, and so may one that was
/// started again. One that crashed and recovered by itself does not, with `synchronous_commit` on: what could be seen of it
/// is on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Which database of that PostgreSQL it is: its oid.
    database: u32,
    /// When the PostgreSQL was started, in microseconds since 1970: a pooler may turn from one to another by itself.
    started: i64,
}

impl Origin {
    pub(super) fn of(
        is_standby: bool,
        role: DatabaseRole,
        database: u32,
        started: OffsetDateTime,
    ) -> Result<Self, StoreError> {
        match (role, is_standby) {
            (DatabaseRole::Primary, true) => return Err(StoreError::Standby),
            // A standby that was promoted has a history of its own from then on.
            (DatabaseRole::Replica, false) => return Err(StoreError::NoCopy),
            _ => {}
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
