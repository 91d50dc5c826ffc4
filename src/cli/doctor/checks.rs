//! What is made of a database's condition: each check says what was found, and what is to be done when that is not as it
//! should be.

use crate::store::{Condition, Place, Schema, StoreError, Unreached};

/// The major versions of PostgreSQL that Rapport is tested on.
const VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;
/// How many times as large as PostgreSQL's memory for its pages a database may be. Of one whose indexes do not fit, nearly every
/// act reads several pages anew and writes them out again.
const DATABASE_TO_BUFFERS: u64 = 8;
/// In what PostgreSQL counts them, in bytes.
const PAGE_BYTES: u64 = 8192;
/// By how much the clocks may differ, in microseconds. Servers compare interaction times with their own clocks.
const CLOCK_TOLERANCE: i64 = 1_000_000;

/// What is to be done about what keeps a server from starting.
pub(super) const START: &str = "put it right: `rapport serve` would not start";

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub name: &'static str,
    pub found: String,
    pub outcome: Outcome,
}

/// Whether it is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine,
    /// It is not, and this is what to do.
    Finding(String),
}

impl Check {
    /// Whether there is something to do about it.
    pub(super) fn is_finding(&self) -> bool {
        self.outcome != Outcome::Fine
    }
}

pub(super) fn check(name: &'static str, found: impl Into<String>, is_fine: bool, advice: impl Into<String>) -> Check {
    let outcome = if is_fine { Outcome::Fine } else { Outcome::Finding(advice.into()) };
    Check { name, found: found.into(), outcome }
}

/// The database answers.
pub(super) fn reached(place: &Place) -> Check {
    check("database", format!("reached the {place}"), true, "")
}

/// The database does not answer, for that reason.
pub(super) fn unreached(why: &Unreached) -> Check {
    check("database", why.found(), false, why.advice())
}

/// There is no database to look at, for that reason.
pub(super) fn unopened(why: impl Into<String>) -> Check {
    check("database", why, false, START)
}

/// The database answers, and does not tell what it is like.
pub(super) fn unlooked(error: &StoreError) -> Check {
    check("database", error.with_causes(), false, "look at the log of PostgreSQL")
}

/// The schema serves this program.
pub(super) fn schema(checked: &Result<Schema, StoreError>) -> Check {
    match checked {
        Ok(schema) if schema.is_newer() => {
            let Schema { version, needed } = schema;
            check("schema", format!("version {version}, which serves this program of version {needed}"), true, "")
        }
        Ok(_) => check("schema", "as this program needs it", true, ""),
        Err(StoreError::Schema { found: 0, needed }) => {
            check("schema", format!("none; version {needed} is needed"), false, "run `rapport migrate`")
        }
        Err(StoreError::Schema { found, needed }) => {
            check("schema", format!("version {found}; version {needed} is needed"), false, "run `rapport migrate`")
        }
        Err(StoreError::Superseded { serves_since, needed }) => {
            let found = format!("serves programs from version {serves_since} on; this one is of {needed}");
            check("schema", found, false, "run a newer version of Rapport")
        }
        Err(StoreError::Underived) => {
            check("schema", "not derived from the ledger yet", false, "run `rapport migrate` to its end")
        }
        Err(error) => {
            check("schema", error.to_string(), false, "let this role read all tables, or look at the log of PostgreSQL")
        }
    }
}

/// Everything else.
pub(super) fn of(condition: &Condition) -> Vec<Check> {
    let mut checks = vec![version(condition), primary(condition), privileges(condition), connections(condition)];
    checks.extend([session(condition), clock(condition), memory(condition)]);
    checks.extend(durability(condition));
    checks.extend(manners(condition));
    checks
}

fn setting<'a>(condition: &'a Condition, name: &str) -> &'a str {
    condition.settings.get(name).map_or("unknown", String::as_str)
}

fn number(condition: &Condition, name: &str) -> Option<u32> {
    setting(condition, name).parse().ok()
}

fn version(condition: &Condition) -> Check {
    let number = number(condition, "server_version_num").unwrap_or(0);
    let (major, minor) = (number / 10_000, number % 10_000);
    let advice = format!("use PostgreSQL {} to {}", VERSIONS.start(), VERSIONS.end());
    check("version", format!("PostgreSQL {major}.{minor}"), VERSIONS.contains(&major), advice)
}

fn primary(condition: &Condition) -> Check {
    let read_only = setting(condition, "default_transaction_read_only") == "on";
    let (found, advice) = match (condition.in_recovery, read_only) {
        (true, _) => {
            ("a standby, or recovering", "let DATABASE_URL name the primary, as by target_session_attrs=read-write")
        }
        (false, true) => ("a primary that is read-only", "set default_transaction_read_only to off for this role"),
        (false, false) => ("a primary", ""),
    };
    check("role of the server", found, advice.is_empty(), advice)
}

fn privileges(condition: &Condition) -> Check {
    let role = &condition.role;
    if condition.missing_privileges.is_empty() {
        return check("privileges", format!("all that {role} needs to serve"), true, "");
    }
    let is_there = |(table, privilege): &(String, Option<String>)| {
        privilege.as_ref().map(|privilege| format!("{privilege} on {table}"))
    };
    let missing: Vec<String> = condition.missing_privileges.iter().filter_map(is_there).collect();
    if missing.is_empty() {
        return check("privileges", "no tables", false, "run `rapport migrate`");
    }
    let advice = format!("run `rapport migrate --grant-to {role}` as the role that owns the tables");
    check("privileges", format!("{role} lacks {}", missing.join(", ")), false, advice)
}

/// A server may open as many connections as it is told to; two of them at once during a rolling restart.
fn connections(condition: &Condition) -> Check {
    let (most, reserved) = (number(condition, "max_connections"), number(condition, "superuser_reserved_connections"));
    let there = most.unwrap_or(0).saturating_sub(reserved.unwrap_or(0));
    let own = condition.own_connections;
    let found = format!("{there} for all; a server opens up to {own}");
    let advice = format!(
        "raise max_connections of PostgreSQL to at least {}, or lower RAPPORT_MAX_CONNECTIONS: two servers run side by side \
         during a rolling restart",
        own.saturating_mul(2) + reserved.unwrap_or(0)
    );
    check("connections", found, there >= own.saturating_mul(2), advice)
}

/// A pooler in between leaves out what sessions are to be set to.
fn session(condition: &Condition) -> Check {
    let missing = &condition.missing_settings;
    if missing.is_empty() {
        return check("settings of sessions", "as this program needs them", true, "");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    let role = &condition.role;
    let advice: Vec<String> =
        missing.iter().map(|(name, value)| format!("ALTER ROLE {role} SET {name} = '{value}';")).collect();
    check("settings of sessions", format!("not as asked for: {}", names.join(", ")), false, advice.join(" "))
}

fn clock(condition: &Condition) -> Check {
    let (ahead, error) = (condition.clock_ahead_micros, condition.clock_error_micros);
    let millis = |micros: i64| format!("{} ms", micros / 1000);
    let way = if ahead < 0 { "behind" } else { "ahead" };
    let found = format!("the database's is {} {way}, give or take {}", millis(ahead.abs()), millis(error));
    let is_fine = ahead.abs().saturating_sub(error) <= CLOCK_TOLERANCE;
    check("clocks", found, is_fine, "keep the clocks of this host and of the database's by NTP")
}

fn memory(condition: &Condition) -> Check {
    let buffers = u64::from(number(condition, "shared_buffers").unwrap_or(0)) * PAGE_BYTES;
    let mebibytes = |bytes: u64| bytes >> 20;
    let found = format!(
        "{} MiB of shared_buffers for a database of {} MiB",
        mebibytes(buffers),
        mebibytes(condition.database_bytes)
    );
    let advice =
        "set shared_buffers to about a quarter of the memory that PostgreSQL has, and max_wal_size to 4GB or more";
    check("memory", found, condition.database_bytes <= buffers.saturating_mul(DATABASE_TO_BUFFERS), advice)
}

/// What is acknowledged must not get lost with the power.
fn durability(condition: &Condition) -> Vec<Check> {
    let on = |name: &'static str, advice: &str| {
        let found = setting(condition, name);
        check(name, found, found == "on", advice)
    };
    let commit = setting(condition, "synchronous_commit");
    vec![
        on("fsync", "set fsync to on: a crash of the machine may destroy the database"),
        on("full_page_writes", "set full_page_writes to on: a crash of the machine may destroy pages"),
        check(
            "synchronous_commit",
            commit,
            !["off", "unknown"].contains(&commit),
            "set synchronous_commit to on: a crash may lose what was acknowledged",
        ),
    ]
}

fn manners(condition: &Condition) -> Vec<Check> {
    let exactly = |name: &'static str, wanted: &str, advice: &str| {
        let found = setting(condition, name);
        check(name, found, found == wanted, advice)
    };
    vec![
        exactly("autovacuum", "on", "set autovacuum to on: ties are updated all the time, and would only grow"),
        exactly(
            "default_transaction_isolation",
            "read committed",
            "set default_transaction_isolation to 'read committed' for this role: anything stricter makes recording fail under load",
        ),
        exactly("TimeZone", "UTC", "let nothing between Rapport and PostgreSQL change the time zone of its sessions"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Condition {
        let settings = [
            ("autovacuum", "on"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_read_only", "off"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("max_connections", "100"),
            ("server_version_num", "180001"),
            ("shared_buffers", "16384"),
            ("superuser_reserved_connections", "3"),
            ("synchronous_commit", "on"),
            ("TimeZone", "UTC"),
        ];
        Condition {
            role: "rapport".to_owned(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            clock_error_micros: 200,
            database_bytes: 1 << 30,
            own_connections: 10,
            ..Condition::default()
        }
    }

    fn findings(condition: &Condition) -> Vec<&'static str> {
        of(condition).into_iter().filter(|check| check.outcome != Outcome::Fine).map(|check| check.name).collect()
    }

    #[test]
    fn a_sound_database_has_no_findings() {
        assert_eq!(findings(&sound()), Vec::<&str>::new());
    }

    #[test]
    fn every_setting_that_matters_is_found() {
        for (name, value, expected) in [
            ("autovacuum", "off", "autovacuum"),
            ("default_transaction_isolation", "serializable", "default_transaction_isolation"),
            ("default_transaction_read_only", "on", "role of the server"),
            ("fsync", "off", "fsync"),
            ("full_page_writes", "off", "full_page_writes"),
            ("max_connections", "22", "connections"),
            ("server_version_num", "140012", "version"),
            ("server_version_num", "190000", "version"),
            ("shared_buffers", "1000", "memory"),
            ("synchronous_commit", "off", "synchronous_commit"),
            ("TimeZone", "Europe/Berlin", "TimeZone"),
        ] {
            let mut condition = sound();
            condition.settings.insert(name.to_owned(), value.to_owned());
            assert_eq!(findings(&condition), [expected], "{name}");
        }
        assert_eq!(findings(&Condition { in_recovery: true, ..sound() }), ["role of the server"]);
    }

    #[test]
    fn clocks_may_differ_by_a_second_and_by_what_is_not_known() {
        let apart =
            |ahead, error| findings(&Condition { clock_ahead_micros: ahead, clock_error_micros: error, ..sound() });
        assert!(apart(-900_000, 0).is_empty() && apart(1_200_000, 300_000).is_empty());
        assert_eq!([apart(-1_200_000, 1000), apart(5_000_000, 1000)], [["clocks"], ["clocks"]]);
    }

    #[test]
    fn missing_privileges_are_named_with_what_grants_them() {
        let missing = vec![("change".to_owned(), Some("DELETE".to_owned())), ("tie".to_owned(), None)];
        let found = privileges(&Condition { missing_privileges: missing, ..sound() });
        assert_eq!(found.found, "rapport lacks DELETE on change");
        let advice = "run `rapport migrate --grant-to rapport` as the role that owns the tables";
        assert_eq!(found.outcome, Outcome::Finding(advice.to_owned()));
    }

    #[test]
    fn settings_that_get_lost_are_named_with_what_makes_them_hold() {
        let missing = vec![("lock_timeout".to_owned(), "10s".to_owned()), ("jit".to_owned(), "off".to_owned())];
        let found = session(&Condition { missing_settings: missing, ..sound() });
        assert_eq!(found.found, "not as asked for: lock_timeout, jit");
        let advice = "ALTER ROLE rapport SET lock_timeout = '10s'; ALTER ROLE rapport SET jit = 'off';";
        assert_eq!(found.outcome, Outcome::Finding(advice.to_owned()));
    }

    #[test]
    fn a_schema_is_older_newer_too_new_or_half_made() {
        let advice = |checked| match schema(&checked).outcome {
            Outcome::Finding(advice) => advice,
            Outcome::Fine => String::new(),
        };
        assert_eq!(advice(Ok(Schema { version: 5, needed: 5 })), "");
        assert_eq!(advice(Ok(Schema { version: 6, needed: 5 })), "");
        assert_eq!(advice(Err(StoreError::Schema { found: 4, needed: 5 })), "run `rapport migrate`");
        assert_eq!(
            advice(Err(StoreError::Superseded { serves_since: 6, needed: 5 })),
            "run a newer version of Rapport"
        );
        assert_eq!(advice(Err(StoreError::Underived)), "run `rapport migrate` to its end");
    }
}
