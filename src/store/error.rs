//! What can go wrong with the database, told apart by who has to act: by SQLSTATE and by type, never by message.

use sqlx::postgres::PgDatabaseError;

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer for now, or asks to try again. Nothing is wrong with the request.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database said nothing for too long.
    #[error("the database does not answer")]
    Silent,
    /// All connections stayed busy for too long.
    #[error("no database connection came free in time")]
    Busy,
    /// Nobody waits for it any more.
    #[error("nobody waits for it any more")]
    Unwanted,
    /// Another transaction did the same at the same time; trying again settles it.
    #[error("another transaction created the same row")]
    Raced,
    /// An answer needs more rows than are read for one.
    #[error("more than {0} rows would have to be read")]
    TooLarge(usize),
    /// A row that no version of this program writes.
    #[error("table {table} holds an impossible row: {what}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// What is impossible about it, without any value of it.
        what: &'static str,
    },
    /// The system gives no random bytes to make a key of.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// The schema is older than this program.
    #[error("the database schema has version {found}, and this program needs {needed}; run `rapport migrate`")]
    Schema {
        /// The version found; 0 for none.
        found: i64,
        /// The version needed.
        needed: i64,
    },
    /// The schema is newer than this program, and no longer serves it.
    #[error(
        "the database serves programs from schema version {serves_since} on, and this one is of {needed}; run a newer Rapport"
    )]
    Superseded {
        /// The version from which on programs are served.
        serves_since: i64,
        /// The version that this program was made for.
        needed: i64,
    },
    /// The schema is new, and what an older one kept is still to be derived from the ledger.
    #[error("the database is still to be derived from its ledger; run `rapport migrate`")]
    Underived,
    /// Anything else, a defect of this program or of the schema.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// SQLSTATE classes and codes that pass, by themselves or by an operator's hand, and say nothing against the request: lost
/// connections, a role or database that is not there or lets nobody in, a session or transaction ended for its idleness,
/// conflict, lack of resources, shutdown and failover, a failing disk.
const PASSING: [&str; 14] =
    ["08", "28", "3D000", "25006", "25P03", "25P04", "40001", "40003", "40P01", "53", "55P03", "57014", "57P", "58"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(error)
            }
            // A transaction begins unless the connection is not in the state it was thought to be in.
            sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) if passes(database.as_ref()) => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

fn passes(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code);
    code.is_some_and(|code| PASSING.iter().any(|passing| code.starts_with(passing)))
}

impl StoreError {
    /// What kind of error it is, in a word of a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Silent => "silent",
            Self::Busy => "busy",
            Self::Unwanted => "unwanted",
            Self::Raced => "raced",
            Self::TooLarge(_) => "too_large",
            Self::Inconsistent { .. } => "inconsistent",
            Self::NoRandomness => "no_randomness",
            Self::Schema { .. } | Self::Superseded { .. } | Self::Underived => "schema",
            Self::Refused(_) => "refused",
            Self::Migration(_) => "migration",
        }
    }

    /// Whether the database is well, and its schema does not serve this program for now.
    pub fn is_of_schema(&self) -> bool {
        matches!(self, Self::Schema { .. } | Self::Superseded { .. } | Self::Underived)
    }

    /// Whether trying again by itself can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Silent | Self::Busy | Self::Raced)
    }
}
