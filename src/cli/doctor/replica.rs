//! What is made of the replica that is read from, if there is one. None of it keeps a server from serving: the primary answers
//! what the replica does not.

use crate::store::{ReplicaCondition, Store, StoreError};

use super::checks::{Check, check};
use crate::cli::database;

/// How far a replica may be behind, in bytes of the log: a segment of it, as PostgreSQL cuts it.
const TOLERANCE: i64 = 16 << 20;

/// Looks at the replica of `primary`.
pub(super) async fn checks(replica: &Store, primary: &Store) -> Vec<Check> {
    let copy = async { replica.check_copy(&primary.page_token_key().await?).await };
    let copy = copy.await;
    let found = match &copy {
        Ok(()) => "a copy, with the schema that this program needs".to_owned(),
        Err(error) => replica.why(error, database::REACH_LIMIT).await,
    };
    let mut checks = vec![is_copy(&copy, found)];
    match replica.replica_condition(primary).await {
        Ok(condition) => checks.extend(of(&condition)),
        // That it does not answer is said once.
        Err(_) if checks.iter().any(Check::is_finding) => {}
        Err(error) => checks.push(check("replica lag", error.with_causes(), false, "look at the log of PostgreSQL")),
    }
    checks
}

fn is_copy(checked: &Result<(), StoreError>, found: String) -> Check {
    let advice = match checked {
        Ok(()) => "",
        Err(StoreError::NoCopy) => "let RAPPORT_READ_DATABASE_URL name a standby of the primary",
        Err(StoreError::Schema { .. } | StoreError::Underived) => {
            "wait until it has followed `rapport migrate`, which works on the primary"
        }
        Err(_) => {
            "see that it runs, takes connections (hot_standby), and lets this role in; until then the primary answers"
        }
    };
    check("replica", found, checked.is_ok(), advice)
}

fn of(condition: &ReplicaCondition) -> Vec<Check> {
    let (found, advice) = if condition.in_recovery {
        ("a standby", "")
    } else {
        ("a primary", "let RAPPORT_READ_DATABASE_URL name a standby, or leave it out")
    };
    let mut checks = vec![check("role of the replica", found, condition.in_recovery, advice)];
    let behind = condition.bytes_behind;
    let (found, advice) = if condition.is_paused {
        (format!("{behind} bytes behind, and paused"), "let it go on with pg_wal_replay_resume()")
    } else {
        (
            format!("{behind} bytes behind"),
            "give the standby time, or more of the machine; until then the primary answers",
        )
    };
    checks.push(check("replica lag", found, !condition.is_paused && behind <= TOLERANCE, advice));
    let (role, missing) = (&condition.role, &condition.missing_privileges);
    let grants: Vec<String> = missing.iter().map(|privilege| format!("GRANT {privilege} TO {role};")).collect();
    let found = if missing.is_empty() {
        format!("all that {role} needs to read")
    } else {
        format!("{role} lacks {}", missing.join(", "))
    };
    checks.push(check(
        "replica privileges",
        found,
        missing.is_empty(),
        format!("on the primary: {}", grants.join(" ")),
    ));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(condition: &ReplicaCondition) -> Vec<&'static str> {
        of(condition).iter().filter(|check| check.is_finding()).map(|check| check.name).collect()
    }

    #[test]
    fn what_keeps_a_replica_from_answering_is_found() {
        let sound = ReplicaCondition {
            in_recovery: true,
            is_paused: false,
            bytes_behind: TOLERANCE,
            role: "rapport".to_owned(),
            missing_privileges: Vec::new(),
        };
        assert!(findings(&sound).is_empty());
        assert_eq!(findings(&ReplicaCondition { in_recovery: false, ..sound.clone() }), ["role of the replica"]);
        assert_eq!(findings(&ReplicaCondition { is_paused: true, ..sound.clone() }), ["replica lag"]);
        assert_eq!(findings(&ReplicaCondition { bytes_behind: TOLERANCE + 1, ..sound.clone() }), ["replica lag"]);
        let missing_privileges = vec!["SELECT on tie".to_owned()];
        assert_eq!(findings(&ReplicaCondition { missing_privileges, ..sound }), ["replica privileges"]);
    }

    #[test]
    fn another_database_is_no_replica() {
        let is_finding = |checked| is_copy(&checked, String::new()).is_finding();
        assert!(is_finding(Err(StoreError::NoCopy)) && !is_finding(Ok(())));
        assert!(is_finding(Err(StoreError::Schema { found: 4, needed: 5 })));
    }
}
