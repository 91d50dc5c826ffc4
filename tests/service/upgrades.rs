//! Upgrades and what takes them back: this program on a schema that a later one made. That one's migration is made up, and
//! applied as `rapport migrate` would.

use std::{collections::BTreeSet, fmt::Write as _, fs, net::SocketAddr, time::Duration};

use rapport::{
    domain::Kind,
    rpc::pb,
    scoring::DEFAULT,
    service::Clock,
    store::{Store, StoreError},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::sleep;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    faults::{Load, assert_kept, at},
    harness::{
        act, channel, client_of, config, database, day, eventually, rank, ready, reason, record, start, try_record,
    },
    process::{Process, free_address},
    program::{Ran, Running, folder, program},
};

/// What a later version adds.
const EXPAND: &str = "
    ALTER TABLE ledger ADD COLUMN place text;
    ALTER TABLE tie ADD COLUMN weight double precision NOT NULL DEFAULT 1;
    CREATE TABLE place (tenant text, name text, PRIMARY KEY (tenant, name));";
/// What a later version takes away, as its migration says itself.
const CONTRACT: &str = "
    ALTER TABLE tie RENAME COLUMN today TO latest_day;
    INSERT INTO server_key (name, content) VALUES ('serves-since', '1000')
        ON CONFLICT (name) DO UPDATE SET content = EXCLUDED.content;";
/// What undoes that, as a backup would.
const TAKE_BACK: &str = "
    ALTER TABLE tie RENAME COLUMN latest_day TO today;
    DELETE FROM server_key WHERE name = 'serves-since';
    DELETE FROM _sqlx_migrations WHERE version = 1000;";

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statements = format!("BEGIN; {statements}; COMMIT");
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Applies a migration of a later version.
async fn apply(url: &str, version: i64, migration: &str) {
    let noted = format!("INSERT INTO _sqlx_migrations VALUES ({version}, 'later', now(), true, '', 0)");
    execute(url, &format!("{migration} {noted}")).await;
}

async fn status(address: SocketAddr) -> ServingStatus {
    let mut health = HealthClient::new(channel(address));
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    health.check(request).await.unwrap().into_inner().status()
}

fn ran(url: &str, arguments: &[&str]) -> Ran {
    program(arguments).env("DATABASE_URL", url).output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_its_rollback_under_load_fail_no_call() {
    let (url, addresses) = (database(true).await, [free_address(), free_address()]);
    let one = Process::on_database(&url, addresses[0]).await;
    let load = Load::start(&at(addresses[0]));
    load.advance(100).await;
    apply(&url, 999, EXPAND).await;
    // Long enough for several probes.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(status(addresses[0]).await, ServingStatus::Serving, "what was added is no concern of a server before");
    load.advance(100).await;
    // A server that is started on it works beside that one, and alone.
    let other = Process::on_database(&url, addresses[1]).await;
    let beside = Load::start(&at(addresses[1]));
    beside.advance(100).await;
    one.terminate();
    assert!(one.stopped().await.success());
    let again = Process::on_database(&url, addresses[0]).await;
    load.advance(100).await;
    beside.advance(100).await;
    let [first, second] = [load.finish().await, beside.finish().await];
    drop((other, again));
    println!("{} and {} acts acknowledged, no call failed", first.len(), second.len());
    // Both name their acts alike, so what one recorded the other records again.
    let acts: BTreeSet<String> = first.into_iter().chain(second).collect();
    assert_kept(&url, acts.into_iter().collect()).await;
}

/// A name that a statement gives to something may become that of a column.
#[tokio::test]
async fn no_statement_minds_how_the_columns_are_called_that_are_added() {
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let columns: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT relname::text, array_agg(attname::text) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' GROUP BY relname",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx")).unwrap() {
        let recorded: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let query = recorded["query"].as_str().unwrap();
        let words: BTreeSet<&str> = query
            .split(|letter: char| !letter.is_ascii_lowercase() && letter != '_')
            .filter(|word| !word.is_empty())
            .collect();
        let mut script = "BEGIN; ".to_owned();
        for (table, columns) in columns.iter().filter(|(table, _)| words.contains(table.as_str())) {
            for word in words.iter().filter(|word| !columns.iter().any(|column| column == *word)) {
                write!(script, "ALTER TABLE {table} ADD COLUMN \"{word}\" text; ").unwrap();
            }
        }
        write!(script, "PREPARE before AS {query}; ROLLBACK; DEALLOCATE ALL").unwrap();
        let prepared = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await;
        assert!(prepared.is_ok(), "{prepared:?} in {query}");
    }
}

#[tokio::test]
async fn a_running_server_that_is_no_longer_served_says_so_and_waits() {
    let url = database(true).await;
    let folder = folder();
    let log = folder.path().join("log");
    let mut serve = program(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("DATABASE_URL", &url).stderr(fs::File::create(&log).unwrap());
    let (_server, address) = Running::serve(serve);
    ready(address).await;
    let mut client = client_of(address, "one");
    record(&mut client, act(Kind::Help, "bob", "ada", day(0))).await;

    apply(&url, 1000, CONTRACT).await;
    eventually("it is not ready", async || status(address).await == ServingStatus::NotServing).await;
    let refusals = [
        try_record(&mut client, act(Kind::Help, "bob", "ada", day(1))).await.map(drop),
        client
            .rank_connections(pb::RankConnectionsRequest { person: "ada".to_owned(), ..Default::default() })
            .await
            .map(drop),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.code(), &*reason(&refusal)), (Code::Unavailable, "DATABASE_UNAVAILABLE"), "{refusal:?}");
    }
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("the database serves programs from schema version 1000 on, and this one is of "), "{said}");
    let started = rapport::app::App::start(config(url.clone()), Clock::system()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(status(started.address()).await, ServingStatus::NotServing, "nor is one that is started now");

    execute(&url, TAKE_BACK).await;
    ready(address).await;
    ready(started.address()).await;
    record(&mut client, act(Kind::Help, "bob", "ada", day(1))).await;
    let counts = rank(&mut client, "ada", day(2)).await[0].their_interaction_counts[0].count;
    assert_eq!(counts, 2, "what was refused was not recorded");
}

#[tokio::test]
async fn a_newer_schema_is_left_alone_by_the_commands_of_this_program() {
    let url = database(true).await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let needed = store.check_schema().await.unwrap().needed;
    apply(&url, 999, EXPAND).await;
    let schema = store.migrate().await.unwrap();
    assert_eq!((schema.version, schema.needed, schema.is_newer()), (999, needed, true));
    // Were anything granted, it would fail: there is no such role.
    let migrated = ran(&url, &["migrate", "--grant-to", "nobody"]).expect(0);
    let said = format!("The schema has version 999 and serves this program, which is of {needed}: nothing to do.\n");
    assert_eq!(migrated.out, said);
    let examined = ran(&url, &["doctor"]).out;
    assert!(examined.contains(&format!("version 999, which serves this program of version {needed}")), "{examined}");
    let app = start(config(url.clone()), Clock::system()).await;
    record(&mut client_of(app.address(), "one"), act(Kind::Help, "bob", "ada", day(0))).await;
    assert!(ran(&url, &["rebuild", "--check"]).expect(0).out.ends_with("No difference.\n"));

    apply(&url, 1000, CONTRACT).await;
    assert!(matches!(store.check_schema().await, Err(StoreError::Superseded { serves_since: 1000, .. })));
    for command in ["migrate", "rebuild"] {
        let refused = ran(&url, &[command]).expect(1);
        assert!(refused.err.contains("the database serves programs from schema version 1000 on"), "{refused:?}");
    }
    let examined = ran(&url, &["doctor"]).expect(3).out;
    assert!(examined.contains("run a newer version of Rapport"), "{examined}");
}
