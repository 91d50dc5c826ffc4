//! Tables that are distributed by tenant, as far as that shows without Citus: no transaction that records spans tenants, and
//! whatever locks or changes rows by their keys can be told whose they are. A database that merely lists the extension is treated like one that has it.

use std::{fs, time::Duration};

use rapport::{domain::Kind, service::Clock};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use crate::harness::{act, client_of, config, database, day, record, start, try_record};

const LISTED: &str = "SET allow_system_table_mods = on;
    INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99999, 'citus', 10, 'public'::regnamespace, false, '0')";

/// Lets 16 tenants record 4 acts each while the writer is held up, so that few batches hold them all, and each of them
/// once more. Returns how many transactions span tenants.
async fn transactions_that_span_tenants(listed: bool) -> i64 {
    let url = database(true).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    if listed {
        sqlx::raw_sql(LISTED).execute(&mut connection).await.unwrap();
    }
    let app = start(config(url), Clock::system()).await;
    let mut first = client_of(app.address(), "first");
    record(&mut first, act(Kind::Help, "bob", "ada", day(0))).await;
    sqlx::raw_sql("BEGIN; LOCK TABLE ledger").execute(&mut connection).await.unwrap();
    let calls = (0..64).map(|number| {
        let mut client = client_of(app.address(), &format!("tenant-{}", number % 16));
        let mut given = act(Kind::Help, "bob", "ada", day(number / 16));
        given.interaction_id = format!("act-{}", number / 16);
        async move {
            let answer = record(&mut client, given.clone()).await;
            assert_eq!((answer.interaction_id, answer.replayed), (given.interaction_id.clone(), false));
            assert!(record(&mut client, given.clone()).await.replayed);
            "cleo".clone_into(&mut given.actor);
            assert_eq!(try_record(&mut client, given).await.unwrap_err().code(), Code::AlreadyExists);
        }
    });
    let calls: Vec<_> = calls.map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let spanning =
        "SELECT count(*) FROM (SELECT FROM ledger GROUP BY xmin::text HAVING count(DISTINCT tenant) > 1) AS spanning";
    sqlx::query_scalar(spanning).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_tenants_is_a_transaction_for_each_where_tables_are_distributed() {
    assert_eq!(transactions_that_span_tenants(true).await, 0);
    assert!(transactions_that_span_tenants(false).await > 0, "elsewhere they share one");
}

#[test]
fn whatever_locks_or_changes_rows_can_be_told_whose_they_are() {
    let mut found = 0;
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx")).unwrap() {
        let recorded: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let query = recorded["query"].as_str().unwrap();
        // A row that is in the way of an insert is found by what is inserted.
        let query = query.replace("DO UPDATE SET", "");
        if ["FOR UPDATE", " SET ", "DELETE FROM"].iter().any(|words| query.contains(words)) && query.contains("UNNEST")
        {
            found += 1;
            assert!(query.contains("::text IS NULL OR ") && query.contains(".tenant = $"), "{query}");
        }
    }
    assert!(found >= 8, "the statements are elsewhere");
}

/// Elsewhere an entry that is known is refused at first, by an insert that leaves its place in the table empty.
#[tokio::test]
async fn known_entries_are_looked_for_where_tables_are_distributed() {
    let url = database(true).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(LISTED).execute(&mut connection).await.unwrap();
    let app = start(config(url), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    let help = act(Kind::Help, "bob", "ada", day(0));
    record(&mut client, help.clone()).await;
    assert!(record(&mut client, help).await.replayed);
    record(&mut client, act(Kind::Idea, "bob", "ada", day(0))).await;
    let places: Vec<String> =
        sqlx::query_scalar("SELECT ctid::text FROM ledger ORDER BY ctid").fetch_all(&mut connection).await.unwrap();
    assert_eq!(places, ["(0,1)", "(0,2)"]);
}

/// Citus reads a catalog at the coordinator and hands on what it found, and then every part of the statement by itself.
#[test]
fn what_is_read_of_a_tenant_is_read_in_one_place() {
    const TABLES: [&str; 7] = ["ledger", "tie", "rhythm", "commitment", "policy", "change", "tenant_revision"];
    let mut found = 0;
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx")).unwrap() {
        let recorded: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let query = recorded["query"].as_str().unwrap();
        if TABLES.iter().any(|table| ["FROM", "JOIN"].iter().any(|from| query.contains(&format!("{from} {table}")))) {
            assert!(!query.contains("FROM pg_") && !query.contains("JOIN pg_"), "{query}");
            found += 1;
        }
    }
    assert!(found > 15, "{found}");
}
