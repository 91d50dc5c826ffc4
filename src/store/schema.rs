//! The schema: bringing it to the version of this program, and whether it serves this program as it is.
//!
//! Migrations lead forward only, and servers run meanwhile: those of the version before go on beside new ones, and alone
//! again when an upgrade is taken back. So every migration does one of two things.
//!
//! - It *expands*: it adds what no program before knows of, such as tables and indexes, or columns that have a default or may
//!   be null. All that were served before are served on, and nothing more has to be said.
//! - It *contracts*: it takes away what a program before uses, or forbids what one writes. That belongs to a later version
//!   than the first one that does without, and says from which version on programs are still served:
//!
//! ```sql
//! INSERT INTO server_key (name, content) VALUES ('serves-since', '7')
//!     ON CONFLICT (name) DO UPDATE SET content = EXCLUDED.content;
//! ```
//!
//! Version 7 contracts at once: no program before it could read what is recorded and not yet folded.
//!
//! Statements of the programs before name their columns so that they stay clear whatever is added, which a test holds.
//! Programs that are served side by side read what each of them writes. What changes its meaning gets another name, and the old
//! name goes when it contracts: a server that has yet to see that it is not served any more then fails, and writes nothing
//! that means something else by now. A privilege that serving no longer needs goes no sooner than that either.

use std::sync::LazyLock;

use sqlx::{Connection as _, PgConnection, migrate::Migrator};

use crate::telemetry::names::Operation;

use super::{Store, StoreError, connect, lease::within};

/// Programs before this one may have to do with a schema that knows more migrations than they do.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("src/store/migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// The version of the schema since which ties and rhythms are kept as this program keeps them.
const DERIVED_SINCE: i64 = 3;
/// The name of the mark of a database whose ties and rhythms are still to be derived for that.
const UNDERIVED: &str = "underived";
/// The name of the version from which on programs are served; without it, all are that look for it.
const SERVES_SINCE: &str = "serves-since";
/// The name of the key that seals page tokens.
pub(super) const PAGE_TOKEN_KEY: &str = "page-token";

/// A schema that serves this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its version.
    pub version: i64,
    /// The version that this program was made for.
    pub needed: i64,
}

impl Schema {
    /// Whether a newer program made it.
    pub fn is_newer(self) -> bool {
        self.version > self.needed
    }
}

impl Store {
    /// Brings the schema to the version of this program, and derives from the ledger what an older one kept otherwise. When
    /// that was interrupted, the next one does it. A newer schema is left as it is.
    pub async fn migrate(&self) -> Result<Schema, StoreError> {
        let mut connection = connect::directly(&self.pool).await?;
        if (1..DERIVED_SINCE).contains(&version(&mut connection).await?) {
            set_once(&mut connection, UNDERIVED, &[]).await?;
        }
        MIGRATIONS.run(&mut connection).await?;
        if version(&mut connection).await? <= needed() {
            self.complete(&mut connection).await?;
        }
        let schema = serving(&mut connection).await;
        connection.close().await?;
        schema
    }

    /// Derives what is still to be derived, and makes the keys that servers share.
    async fn complete(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if server_key(connection, UNDERIVED).await?.is_some() {
            self.rebuild(true, |_| {}).await?;
            sqlx::query!("DELETE FROM server_key WHERE name = $1", UNDERIVED).execute(&mut *connection).await?;
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| StoreError::NoRandomness)?;
        set_once(connection, PAGE_TOKEN_KEY, &key).await
    }

    /// Fails unless the database answers and its schema serves this program, with everything in it that is derived from the
    /// ledger.
    pub async fn check_schema(&self) -> Result<Schema, StoreError> {
        let mut lease = self.probe().await?;
        let schema = within(serving(&mut lease)).await;
        lease.end(schema)
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
}

/// The version that this program was made for.
fn needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The schema, unless it does not serve this program.
pub(super) async fn serving(connection: &mut PgConnection) -> Result<Schema, StoreError> {
    let schema = Schema { version: version(connection).await?, needed: needed() };
    let Schema { version: found, needed } = schema;
    if found < needed {
        return Err(StoreError::Schema { found, needed });
    }
    if schema.is_newer() {
        let serves_since = serves_since(connection).await?;
        if serves_since > needed {
            return Err(StoreError::Superseded { serves_since, needed });
        }
    }
    match server_key(connection, UNDERIVED).await? {
        Some(_) => Err(StoreError::Underived),
        None => Ok(schema),
    }
}

/// The version of the schema; 0 for none.
async fn version(connection: &mut PgConnection) -> Result<i64, StoreError> {
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

/// The version from which on programs are served; 0 when nothing is said of it.
async fn serves_since(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let Some(content) = server_key(connection, SERVES_SINCE).await? else { return Ok(0) };
    let since = std::str::from_utf8(&content).ok().and_then(|digits| digits.parse().ok());
    since.ok_or(StoreError::Inconsistent { table: "server_key", what: "a version that is no number" })
}

/// What all servers of the database share under a name.
pub(super) async fn server_key(connection: &mut PgConnection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
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
