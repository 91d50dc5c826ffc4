//! What can go wrong with the database, told apart by who has to act: by SQLSTATE and by type, never by message.

use sqlx::postgres::PgDatabaseError;

use crate::in_full;

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address of the database is not well-formed.
    #[error("{variable} is not well-formed, and should be such as postgresql://user@host/database")]
    Address {
        /// The variable that holds it.
        variable: &'static str,
        /// What is wrong with it, without any part of it.
        source: sqlx::Error,
    },
    /// The database does not answer for now, or asks to try again. Nothing is wrong with the request.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database said nothing for too long.
    #[error("the database does not answer")]
    Silent,
    /// Who answers is not the primary, and may not know yet what was acknowledged.
    #[error("a standby answers instead of the primary")]
    Standby,
    /// A statement was prepared in one session and meant for another.
    #[error(
        "prepared statements get lost on the way to the database; PgBouncer keeps them from version 1.21 on, with \
         max_prepared_statements, or when it pools sessions"
    )]
    Unprepared(#[source] sqlx::Error),
    /// What this program sets for its sessions gets lost on the way to the database.
    #[error("sessions have not the settings that they need; `rapport doctor` says what to do")]
    Unsettled,
    /// The same, where a session of its own is needed.
    #[error("a pooler leads to the database; this needs a DATABASE_URL that leads to PostgreSQL itself")]
    Indirect,
    /// Privileges were to be given to nobody.
    #[error("the database has no role {0}; CREATE ROLE makes one")]
    NoRole(String),
    /// All connections stayed busy for too long.
    #[error("no database connection came free in time")]
    Busy,
    /// Nobody waits for it any more.
    #[error("nobody waits for it any more")]
    Unwanted,
    /// A replica has not come as far yet as somebody has to see.
    #[error("the replica does not have yet what has to be seen")]
    Behind,
    /// The database that should be a replica is another one, or a standby that was promoted.
    #[error("it is no standby of the database that is written to")]
    NoCopy,
    /// Another transaction did the same at the same time; trying again settles it.
    #[error("another transaction created the same row")]
    Raced,
    /// An answer needs more rows than are read for one.
    #[error("more than {0} rows would have to be read")]
    TooLarge(usize),
    /// More is recorded and not folded yet than a reader takes in by itself.
    #[error("too much is recorded and not folded yet")]
    Lagging,
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

/// SQLSTATE classes and codes that pass, by themselves or by an operator's hand, and say nothing against the request nor
/// against the session: conflict, lack of resources such as a full disk, a lock or a statement that took too long.
const PASSING: [&str; 6] = ["40001", "40003", "40P01", "53", "55P03", "57014"];
/// Those that pass as well, but not in the same session: lost connections, a server that only reads, a session or transaction
/// ended for its idleness, a role or database that is not there or lets nobody in, shutdown and failover, a failing disk.
const PASSING_ELSEWHERE: [&str; 8] = ["08", "25006", "25P03", "25P04", "28", "3D000", "57P", "58"];
/// Those of statements that are not there, or there already, because another session was prepared.
const UNPREPARED: [&str; 2] = ["26000", "42P05"];

/// What an SQLSTATE stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Passing,
    PassingElsewhere,
    Unprepared,
    Refused,
}

impl Meaning {
    fn of(code: &str) -> Self {
        let is_of = |codes: &[&str]| codes.iter().any(|known| code.starts_with(known));
        match () {
            () if is_of(&PASSING) => Self::Passing,
            () if is_of(&PASSING_ELSEWHERE) => Self::PassingElsewhere,
            () if is_of(&UNPREPARED) => Self::Unprepared,
            () => Self::Refused,
        }
    }

    fn of_error(error: &dyn sqlx::error::DatabaseError) -> Self {
        error.try_downcast_ref::<PgDatabaseError>().map_or(Self::Refused, |error| Self::of(error.code()))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(error)
            }
            // A transaction begins unless the connection is not in the state it was thought to be in.
            sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) => match Meaning::of_error(database.as_ref()) {
                Meaning::Passing | Meaning::PassingElsewhere => Self::Unavailable(error),
                Meaning::Unprepared => Self::Unprepared(error),
                Meaning::Refused => Self::Refused(error),
            },
            _ => Self::Refused(error),
        }
    }
}

impl StoreError {
    /// What kind of error it is, in a word of a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Address { .. } => "address",
            Self::Unavailable(_) => "unavailable",
            Self::Silent => "silent",
            Self::Standby => "standby",
            Self::Unprepared(_) | Self::Unsettled | Self::Indirect => "pooler",
            Self::NoRole(_) => "no_role",
            Self::Busy => "busy",
            Self::Unwanted => "unwanted",
            Self::Behind => "behind",
            Self::NoCopy => "no_copy",
            Self::Raced => "raced",
            Self::TooLarge(_) => "too_large",
            Self::Lagging => "lagging",
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
        matches!(
            self,
            Self::Unavailable(_)
                | Self::Silent
                | Self::Standby
                | Self::Unprepared(_)
                | Self::Busy
                | Self::Raced
                | Self::Lagging
        )
    }

    /// Whether the session it happened in can be used for something else.
    pub(super) fn leaves_session(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => Meaning::of_error(error.as_ref()) == Meaning::Passing,
            Self::Unavailable(_) | Self::Silent | Self::Standby | Self::Unprepared(_) => false,
            _ => true,
        }
    }

    /// What went wrong, down to the first cause. What the driver displays holds no values.
    pub fn with_causes(&self) -> String {
        in_full(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_databases_do_to_services_passes() {
        for (code, what) in [
            ("40001", "serialization_failure"),
            ("40P01", "deadlock_detected"),
            ("53100", "disk_full"),
            ("53200", "out_of_memory"),
            ("53300", "too_many_connections"),
            ("55P03", "lock_not_available"),
            ("57014", "query_canceled"),
        ] {
            assert_eq!(Meaning::of(code), Meaning::Passing, "{what}");
        }
    }

    #[test]
    fn a_session_that_leads_to_the_wrong_server_or_to_none_is_not_used_again() {
        for (code, what) in [
            ("08006", "connection_failure"),
            ("25006", "read_only_sql_transaction"),
            ("25P03", "idle_in_transaction_session_timeout"),
            ("28P01", "invalid_password"),
            ("3D000", "invalid_catalog_name"),
            ("57P01", "admin_shutdown"),
            ("57P03", "cannot_connect_now"),
            ("58030", "io_error"),
        ] {
            assert_eq!(Meaning::of(code), Meaning::PassingElsewhere, "{what}");
        }
        assert_eq!(["26000", "42P05"].map(Meaning::of), [Meaning::Unprepared; 2]);
        let errors = [StoreError::Silent, StoreError::Standby, sqlx::Error::BeginFailed.into()];
        assert!(errors.iter().all(|error| error.is_passing() && !error.leaves_session()));
    }

    #[test]
    fn what_is_wrong_with_a_statement_does_not_pass() {
        for code in ["22021", "23505", "42501", "42P01", "XX000"] {
            assert_eq!(Meaning::of(code), Meaning::Refused, "{code}");
        }
    }
}
