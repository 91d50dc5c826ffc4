//! What the role that a server logs in as may do, and giving it that: no more than serving needs. Migrations belong to the
//! role that owns the tables.

use sqlx::{AssertSqlSafe, Connection as _};

use super::{Store, StoreError, connect};

/// What serving needs, table by table. Nothing is ever taken out of the ledger; `rapport rebuild` needs DELETE on what is
/// derived from it, and `rapport migrate` owns everything. Programs that are served side by side share the role: what one of
/// them needs stays here.
pub(super) const NEEDED: [(&str, &[&str]); 11] = [
    ("_sqlx_migrations", &["SELECT"]),
    ("ledger", &["SELECT", "INSERT"]),
    ("tie", &["SELECT", "INSERT", "UPDATE"]),
    ("rhythm", &["SELECT", "INSERT", "UPDATE"]),
    ("commitment", &["SELECT", "INSERT", "UPDATE"]),
    ("server_key", &["SELECT"]),
    ("policy", &["SELECT", "INSERT"]),
    ("policy_use", &["SELECT", "INSERT"]),
    ("tenant_revision", &["SELECT", "INSERT", "UPDATE"]),
    ("change", &["SELECT", "INSERT", "DELETE"]),
    // Whoever locks rows needs UPDATE.
    ("unfolded", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// The SQLSTATE of what is named and does not exist.
const UNDEFINED_OBJECT: &str = "42704";

/// The tables are known, so that what does not exist is the role.
fn without_role(error: sqlx::Error, role: &str) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if code.as_deref() == Some(UNDEFINED_OBJECT) { StoreError::NoRole(role.to_owned()) } else { error.into() }
}

impl Store {
    /// Lets a role serve, and takes from it what else it was given on these tables.
    pub async fn grant(&self, role: &str) -> Result<(), StoreError> {
        let mut connection = connect::directly(&self.pool).await?;
        let mut transaction = connection.begin().await?;
        for (table, privileges) in NEEDED {
            let statements = sqlx::query!(
                r#"SELECT format('REVOKE ALL ON TABLE %I FROM %I', $1::text, $2::text) AS "revoke!",
                       format('GRANT %s ON TABLE %I TO %I', $3::text, $1::text, $2::text) AS "grant!""#,
                table,
                role,
                privileges.join(", "),
            );
            let statements = statements.fetch_one(&mut *transaction).await?;
            for statement in [statements.revoke, statements.grant] {
                let executed = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await;
                executed.map_err(|error| without_role(error, role))?;
            }
        }
        transaction.commit().await?;
        Ok(connection.close().await?)
    }
}
