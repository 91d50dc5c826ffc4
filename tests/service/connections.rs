//! Connections and what is taken on over them: their age, their number, and that one tenant or a crowd does not stand in the
//! way of others or of probes.

use std::{error::Error as _, time::Duration};

use rapport::{
    domain::Kind,
    rpc::{AdmissionLimits, pb},
    service::Clock,
};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    harness::{
        Client, act, channel, client_of, config, database, day, error_metadata, eventually, policies_of, reason, start,
    },
    wire::assert_refused,
};

async fn rank(client: &mut Client) -> Result<(), Status> {
    let request = pb::RankConnectionsRequest { person: "zed".to_owned(), ..Default::default() };
    client.rank_connections(request).await.map(drop)
}

/// A stream that stays open, with one item sent.
async fn open_stream(
    client: &mut Client,
) -> Result<
    (tokio::sync::mpsc::Sender<pb::RecordInteractionsRequest>, tonic::Streaming<pb::RecordInteractionsResponse>),
    Status,
> {
    let (items, outbound) = tokio::sync::mpsc::channel(8);
    let interaction = Some(act(Kind::Help, "rosa", "zed", day(0)));
    items.send(pb::RecordInteractionsRequest { sequence: 1, interaction }).await.unwrap();
    let stream = client.record_interactions(tokio_stream::wrappers::ReceiverStream::new(outbound)).await?;
    Ok((items, stream.into_inner()))
}

#[tokio::test]
async fn an_old_connection_goes_away_without_failing_a_call() {
    let mut config = config(database(true).await);
    config.connections.age = Duration::from_millis(300);
    let app = start(config, Clock::system()).await;
    let mut client = client_of(app.address(), "default");
    let begun = tokio::time::Instant::now();
    let mut calls = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        calls += 1;
        // A client may find the connection gone before it has sent anything; that is no answer of the server's.
        if let Err(status) = rank(&mut client).await {
            assert!(status.source().is_some(), "{status:?}");
            rank(&mut client).await.unwrap();
        }
    }
    assert!(calls > 10, "{calls}");
    // A stream ends with what to do about it, after all that was sent is acknowledged.
    let (_items, mut stream) = open_stream(&mut client).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().recorded_count, 1);
    let ended = stream.message().await.unwrap_err();
    assert_eq!((ended.code(), &*reason(&ended)), (Code::Unavailable, "SHUTTING_DOWN"));
}

#[tokio::test]
async fn a_connection_beyond_the_most_waits_while_all_are_in_use() {
    let mut config = config(database(true).await);
    config.connections.most = 2;
    // Probes have a port of their own.
    config.health_listen = Some(([127, 0, 0, 1], 0).into());
    let app = rapport::app::App::start(config, Clock::system()).await.unwrap();
    crate::harness::ready(app.health_address().unwrap()).await;
    let [mut first, mut second, mut third] = [(); 3].map(|()| client_of(app.address(), "default"));
    let (items, mut answers) = open_stream(&mut first).await.unwrap();
    answers.message().await.unwrap();
    let _busy = open_stream(&mut second).await.unwrap();
    let waiting = tokio::spawn(async move { rank(&mut third).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "connections with calls under way stay");
    drop(items);
    while answers.message().await.unwrap().is_some() {}
    waiting.await.unwrap().unwrap();
    rank(&mut second).await.unwrap();
}

#[tokio::test]
async fn a_tenant_with_too_much_under_way_comes_back_later_and_others_do_not_notice() {
    let mut config = config(database(true).await);
    config.admission = AdmissionLimits { calls: 10, tenant_calls: 1, tenant_streams: 256, tenant_rate: 0 };
    let app = start(config, Clock::system()).await;
    let (mut busy, mut other) = (client_of(app.address(), "busy"), client_of(app.address(), "other"));
    let (items, mut stream) = open_stream(&mut busy).await.unwrap();
    stream.message().await.unwrap();
    let refused = rank(&mut busy).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TENANT_LIMITED", &["busy"]);
    assert_eq!(error_metadata(&refused), [("limit_calls".to_owned(), "1".to_owned())]);
    rank(&mut other).await.unwrap();
    let list = pb::ListPoliciesRequest::default();
    policies_of(app.address(), "busy").list_policies(list).await.expect("policies keep their lane");
    drop(items);
    while stream.message().await.unwrap().is_some() {}
    eventually("the tenant's turn comes again", async || rank(&mut busy).await.is_ok()).await;
}

#[tokio::test]
async fn a_tenant_that_asks_too_often_is_slowed_down() {
    let mut config = config(database(true).await);
    config.admission = AdmissionLimits { calls: 100, tenant_calls: 100, tenant_streams: 256, tenant_rate: 5 };
    let app = start(config, Clock::system()).await;
    let mut client = client_of(app.address(), "busy");
    let mut refused = 0;
    for _ in 0..20 {
        if let Err(error) = rank(&mut client).await {
            assert_refused(&error, Code::ResourceExhausted, "TENANT_LIMITED", &["busy"]);
            assert_eq!(error_metadata(&error), [("limit_calls_per_second".to_owned(), "5".to_owned())]);
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused}");
    rank(&mut client_of(app.address(), "other")).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_connections_are_all_taken_is_still_ready() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    let mut lock = blocker.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE tenant_revision IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let waiting: Vec<_> = (0..60)
        .map(|number| {
            let mut client = client_of(app.address(), &format!("tenant-{number}"));
            tokio::spawn(async move { rank(&mut client).await })
        })
        .collect();
    let mut health = HealthClient::new(channel(app.address()));
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        let asked = HealthCheckRequest { service: "readiness".to_owned() };
        assert_eq!(health.check(asked).await.unwrap().into_inner().status(), ServingStatus::Serving);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lock.rollback().await.unwrap();
    for waiting in waiting {
        // Some have waited too long.
        let _ = waiting.await.unwrap();
    }
    rank(&mut client_of(app.address(), "default")).await.unwrap();
}

#[tokio::test]
async fn calls_are_taken_in_for_a_while_after_the_server_has_told_that_it_ends() {
    let mut config = config(database(true).await);
    config.shutdown_delay = Duration::from_secs(2);
    let app = start(config, Clock::system()).await;
    let address = app.address();
    app.stopper().cancel();
    let mut health = HealthClient::new(channel(address));
    eventually("it is no longer ready", async || {
        let asked = HealthCheckRequest { service: "readiness".to_owned() };
        health.check(asked).await.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::NotServing)
    })
    .await;
    rank(&mut client_of(address, "default")).await.expect("calls are taken in");
    app.ended().await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "and then no more");
}
