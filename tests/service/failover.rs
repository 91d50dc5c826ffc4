//! What a change of the primary leaves behind: sessions that only read, and commits that wait for a standby.

use std::time::Duration;

use rapport::{
    domain::Kind,
    embedded::{EmbeddedOptions, EmbeddedPostgres},
    scoring::DEFAULT,
    service::Clock,
    store::Store,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::sleep;
use tonic::Code;

use crate::{
    feed::{assert_exactly, item},
    harness::{
        act, all_folded, client_of, config, connection, database, day, eventually, programs, ready, reason, record,
        start, try_record,
    },
    program::folder,
    proxy::Proxy,
};

/// The processes that wait for a standby to have what they committed.
const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

async fn execute(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

#[tokio::test]
async fn sessions_that_only_read_are_given_up() {
    let url = database(true).await;
    let server = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(server.address(), "read-only");
    let first = item("read-only", 1);
    record(&mut client, first.clone()).await;
    all_folded(&url).await;
    let options: PgConnectOptions = url.parse().unwrap();
    let name = options.get_database().unwrap();
    let mut operator = PgConnection::connect(&url).await.unwrap();
    execute(&mut operator, format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rapport' AND datname = ";
    execute(&mut operator, format!("{others}'{name}'")).await;
    // The sessions that are made from now on only read.
    let second = item("read-only", 2);
    let status = try_record(&mut client, second.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
    execute(&mut operator, format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    assert!(!record(&mut client, second.clone()).await.replayed, "none of those sessions is used again");
    assert_exactly(&url, "read-only", vec![first.interaction_id, second.interaction_id]).await;
}

#[tokio::test]
async fn what_no_standby_has_is_not_acknowledged_when_it_is_found_in_the_ledger_either() {
    let folder = folder();
    let options = EmbeddedOptions { postgres_bin: programs(), ..EmbeddedOptions::new(folder.path().join("data")) };
    let postgres = EmbeddedPostgres::start(options).await.unwrap();
    let url = postgres.database_url();
    Store::new(&url, 2, &DEFAULT).unwrap().migrate().await.unwrap();
    let proxy = Proxy::start(&url).await;
    let server = start(config(proxy.url()), Clock::system()).await;
    let mut operator = PgConnection::connect(&url).await.unwrap();
    execute(&mut operator, "ALTER SYSTEM SET synchronous_standby_names = 'away'".to_owned()).await;
    execute(&mut operator, "SELECT pg_reload_conf()".to_owned()).await;
    let mut client = client_of(server.address(), "standby");
    let help = act(Kind::Help, "bob", "ada", day(0));
    let call = tokio::spawn({
        let (mut client, help) = (client.clone(), help.clone());
        async move {
            // On a busy machine all this may take longer than the server tries.
            while try_record(&mut client, help.clone()).await.is_err() {
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let waiting = waiting_beside(&mut operator, &[]).await;
    // The server loses sight of the commit, and then it is given up to wait for the standby: everybody sees it from now on.
    proxy.cut();
    execute(&mut operator, format!("SELECT pg_cancel_backend({})", waiting[0])).await;
    let known = async || sqlx::query("SELECT FROM ledger").fetch_optional(&mut operator).await.unwrap().is_some();
    eventually("the act is in the ledger", known).await;
    proxy.resume();
    // The server finds it there, and waits all the same until it is safe.
    waiting_beside(&mut operator, &waiting).await;
    sleep(Duration::from_millis(500)).await;
    assert!(!call.is_finished(), "it is acknowledged while only one machine has it");
    execute(&mut operator, "ALTER SYSTEM RESET synchronous_standby_names".to_owned()).await;
    execute(&mut operator, "SELECT pg_reload_conf()".to_owned()).await;
    call.await.unwrap();
    ready(server.address()).await;
    assert_eq!(connection(&mut client, "ada", "bob", day(1)).await.their_interaction_counts[0].count, 1);
    assert_exactly(&url, "standby", vec![help.interaction_id]).await;
}

/// Waits until others than these wait for a standby.
async fn waiting_beside(operator: &mut PgConnection, known: &[i32]) -> Vec<i32> {
    let mut waiting: Vec<i32> = Vec::new();
    eventually("a commit waits for a standby", async || {
        waiting = sqlx::query_scalar(WAITING).fetch_all(&mut *operator).await.unwrap();
        waiting.iter().any(|pid| !known.contains(pid))
    })
    .await;
    waiting
}
