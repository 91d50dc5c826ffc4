//! `rapport bench`: what it says it did is what was done.

use sqlx::{Connection as _, PgConnection};

use crate::{
    feed::assert_derived,
    harness::{config, database, start},
    program::{Ran, program},
};
use rapport::service::Clock;

/// What a short run with these arguments measured: what each target did in all, and how often.
async fn bench(url: &str, server: &str, arguments: &[&str]) -> serde_json::Value {
    let given = ["bench", "--server", server, "--seconds", "1", "--warm-up", "0", "--json"];
    let arguments: Vec<&str> = given.iter().chain(arguments).copied().collect();
    let mut command = program(&arguments);
    command.env("DATABASE_URL", url);
    let ran = tokio::task::spawn_blocking(move || Ran::from(command.output().unwrap())).await.unwrap().expect(0);
    let mut played: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    played[0].take()
}

fn done(played: &serde_json::Value, place: usize) -> i64 {
    assert_eq!(played["measured"][place]["errors"], serde_json::json!({}), "{played}");
    played["measured"][place]["done"].as_i64().unwrap()
}

async fn count(connection: &mut PgConnection, table: &'static str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// What the connections to rank are made of.
const OF_CONNECTIONS: &str = "ledger WHERE interaction_id LIKE 'owner-20-%'";

#[tokio::test]
async fn a_bench_does_what_it_tells() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let server = format!("http://{}", app.address());
    let mut connection = PgConnection::connect(&url).await.unwrap();

    // What ends after the second is over is recorded, and not counted: at most one act of each caller.
    let unary = bench(&url, &server, &["unary", "--callers", "8", "--baseline", "sql"]).await;
    let recorded = count(&mut connection, "ledger").await;
    assert!((0..=8).contains(&(recorded - done(&unary, 0))), "{recorded} recorded, {unary}");
    let by_hand = count(&mut connection, "rapport_baseline.act").await;
    assert!((0..=8).contains(&(by_hand - done(&unary, 1))), "{by_hand} recorded by hand, {unary}");
    assert!(unary["ratio"].as_f64().unwrap() > 0.0);

    let paced = bench(&url, &server, &["unary", "--callers", "8", "--rate", "40"]).await;
    assert!((30..=40).contains(&done(&paced, 0)), "{paced}");

    let before = count(&mut connection, "ledger").await;
    let stream = bench(&url, &server, &["stream", "--callers", "2"]).await;
    let recorded = count(&mut connection, "ledger").await - before;
    assert!((0..=2 * 4096).contains(&(recorded - done(&stream, 0))), "{recorded} recorded, {stream}");

    let world = ["--owners", "3", "--connections", "20", "--callers", "4"];
    let ranked = bench(&url, &server, &[&["rank", "--baseline", "sql"], &world[..]].concat()).await;
    assert!(done(&ranked, 0) > 0 && done(&ranked, 1) > 0);
    let made = count(&mut connection, OF_CONNECTIONS).await;
    let mixed = bench(&url, &server, &[&["mixed", "--toward-one"], &world[..]].concat()).await;
    assert!(done(&mixed, 0) > 0);
    assert_eq!(count(&mut connection, OF_CONNECTIONS).await, made, "connections are made once");
    connection.close().await.unwrap();
    assert_derived(&url).await;
}
