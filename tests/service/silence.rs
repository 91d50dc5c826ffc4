//! A database that is away, silent, or gone at the worst moment: calls fail in time and for the right reason, and all
//! works again by itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rapport::{app::App, config::Config, domain::Kind, rpc::pb, service::Clock};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::{
    feed::{assert_exactly, item},
    harness::{
        Client, act, channel, client_of, config, connection, database, day, eventually, ready, reason, record, start,
        try_record,
    },
    proxy::Proxy,
};

/// Longer than any call may take.
const CALL_LIMIT: Duration = Duration::from_secs(42);
/// With a drain limit of a second, no stop takes longer.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Within this time a server without a database is no longer ready.
const READINESS_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_lost_commit_is_settled_before_the_answer() {
    let url = database(true).await;
    let proxy = Proxy::start(&url).await;
    let server = start(config(proxy.url()), Clock::system()).await;
    let mut client = client_of(server.address(), "commits");
    let mut ids = Vec::new();
    // Lost on the way there, lost on the way back, and several in a row.
    for (number, (requests, answers)) in [(1, 0), (0, 1), (2, 2), (0, 3)].into_iter().enumerate() {
        proxy.lose_commits(requests, answers);
        let help = act(Kind::Help, "bob", "ada", day(number as i64));
        let answer = record(&mut client, help.clone()).await;
        assert!(!answer.replayed, "after losing {requests} requests and {answers} answers");
        assert!(record(&mut client, help.clone()).await.replayed);
        assert_eq!(proxy.commits_to_lose(), 0);
        ids.push(help.interaction_id);
    }
    assert_eq!(connection(&mut client, "ada", "bob", day(9)).await.their_interaction_counts[0].count, 4);
    assert_exactly(&url, "commits", ids).await;
}

#[tokio::test]
async fn a_database_that_refuses_connections_is_waited_for() {
    let url = database(true).await;
    let mut proxy = Proxy::start(&url).await;
    let server = start(config(proxy.url()), Clock::system()).await;
    let mut client = client_of(server.address(), "outage");
    let first = act(Kind::Help, "bob", "ada", day(0));
    record(&mut client, first.clone()).await;

    proxy.refuse();
    let away = Instant::now();
    let second = item("outage", 1);
    let (calls, unready) = tokio::join!(
        assert_unavailable(&client, &second, Duration::from_secs(15)),
        not_ready_since(server.address(), away)
    );
    println!("without a database calls took {calls:?}, and the server was ready for {unready:?}");
    assert_eq!(status_of(server.address(), "liveness").await, ServingStatus::Serving);

    proxy = proxy.forwarding().await;
    ready(server.address()).await;
    record(&mut client, second.clone()).await;
    proxy.cut();
    sleep(Duration::from_secs(1)).await;
    proxy.resume();
    ready(server.address()).await;
    assert!(record(&mut client, second.clone()).await.replayed);
    assert_exactly(&url, "outage", vec![first.interaction_id, second.interaction_id]).await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_no_fault_of_the_caller() {
    let url = database(true).await;
    let server = start(config(url.clone()), Clock::system()).await;
    let client = client_of(server.address(), "dropped");
    record(&mut client.clone(), item("dropped", 1)).await;
    let options: PgConnectOptions = url.parse().unwrap();
    let drop = format!("DROP DATABASE {} WITH (FORCE)", options.get_database().unwrap());
    let mut connection = PgConnection::connect_with(&options.database("postgres")).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert_unavailable(&client, &item("dropped", 2), Duration::from_secs(15)).await;
}

#[tokio::test]
async fn a_database_that_falls_silent_is_given_up_in_time() {
    let url = database(true).await;
    let proxy = Proxy::start(&url).await;
    let server = start(config(proxy.url()), Clock::system()).await;
    let stopping = Config { drain_limit: Duration::from_secs(1), ..config(proxy.url()) };
    let stopping = start(stopping, Clock::system()).await;
    let client = client_of(server.address(), "silence");
    let other = client_of(stopping.address(), "other");
    tokio::spawn(async move { rank_often(other).await });
    let first = fall_silent(&client, &proxy).await;

    let silent = Instant::now();
    let last = item("last", 1);
    let (calls, unready, stopped) = tokio::join!(
        assert_unavailable(&client, &last, CALL_LIMIT),
        not_ready_since(server.address(), silent),
        stop(stopping),
    );
    println!(
        "with a silent database calls took {calls:?}, a stop took {stopped:?}, and a server was ready for {unready:?}"
    );
    assert_eq!(status_of(server.address(), "liveness").await, ServingStatus::Serving);

    // The old connections stay silent; new ones do not.
    proxy.resume();
    ready(server.address()).await;
    let mut ids = Vec::new();
    for item in first.into_iter().chain([last]) {
        try_again(&client, &item).await;
        ids.push(item.interaction_id);
    }
    assert_exactly(&url, "silence", ids).await;
}

/// Lets the database fall silent in the middle of much recording and reading, and returns what was to be recorded.
async fn fall_silent(client: &Client, proxy: &Proxy) -> Vec<pb::Interaction> {
    let items: Vec<_> = (0..100).map(|number| item("first", number)).collect();
    proxy.silence_at_commit();
    for item in items.clone() {
        let [mut one, mut other] = [(); 2].map(|()| client.clone());
        tokio::spawn(async move { try_record(&mut one, item).await });
        tokio::spawn(async move { other.rank_connections(rank_request()).await });
    }
    eventually("the database is silent", async || proxy.commits_to_lose() == 0).await;
    items
}

/// Keeps the connections of a server busy for as long as they answer.
async fn rank_often(client: Client) {
    while client.clone().rank_connections(rank_request()).await.is_ok() {}
}

/// A server stops in time, whatever its database does.
async fn stop(server: App) -> Duration {
    let begun = Instant::now();
    server.stopper().cancel();
    timeout(STOP_LIMIT, server.ended()).await.expect("the server should have stopped").unwrap();
    begun.elapsed()
}

/// As a caller does: again when the server is unavailable.
async fn try_again(client: &Client, item: &pb::Interaction) {
    eventually("the call succeeds", async || match try_record(&mut client.clone(), item.clone()).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            false
        }
    })
    .await;
}

/// Every kind of call fails in time because the database is unavailable; how long each took.
async fn assert_unavailable(client: &Client, interaction: &pb::Interaction, limit: Duration) -> [Duration; 4] {
    let [mut one, mut two, mut three, mut four] = [(); 4].map(|()| client.clone());
    let validate = pb::RecordInteractionRequest { interaction: Some(interaction.clone()), validate_only: true };
    let get = pb::GetConnectionRequest {
        person: "ada".to_owned(),
        peer: "bob".to_owned(),
        as_of_time: None,
        ..Default::default()
    };
    let (record, validate, rank, get) = tokio::join!(
        Box::pin(unavailable(limit, try_record(&mut one, interaction.clone()))),
        Box::pin(unavailable(limit, two.record_interaction(validate))),
        Box::pin(unavailable(limit, three.rank_connections(rank_request()))),
        Box::pin(unavailable(limit, four.get_connection(get))),
    );
    [record, validate, rank, get]
}

fn rank_request() -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest { person: "ada".to_owned(), ..pb::RankConnectionsRequest::default() }
}

async fn unavailable<T: std::fmt::Debug>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Duration {
    let begun = Instant::now();
    let status = timeout(limit, call).await.expect("the call should have ended").unwrap_err();
    let found = (status.code(), reason(&status));
    assert_eq!(found, (Code::Unavailable, "DATABASE_UNAVAILABLE".to_owned()), "after {:?}", begun.elapsed());
    assert_eq!(status.message(), "the database is unavailable; try again later");
    assert!(status.get_error_details().retry_info().is_some());
    begun.elapsed()
}

async fn not_ready_since(address: SocketAddr, since: Instant) -> Duration {
    eventually("the server is not ready", async || {
        assert_eq!(status_of(address, "liveness").await, ServingStatus::Serving);
        status_of(address, "readiness").await != ServingStatus::Serving
    })
    .await;
    assert!(since.elapsed() <= READINESS_LIMIT, "{:?}", since.elapsed());
    since.elapsed()
}

async fn status_of(address: SocketAddr, name: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: name.to_owned() };
    HealthClient::new(channel(address)).check(request).await.unwrap().get_ref().status()
}
