//! What callers are told when the server cannot do what it was asked to: overload, too much history, a database that is
//! gone or damaged, the end of the server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rapport::{domain::Kind, rpc::pb, service::Clock};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    harness::{
        Client, act, after, all_folded, client_of, config, connection, database, day, error_metadata, eventually,
        record, start, try_record,
    },
    wire::assert_refused,
};

/// What requests name, and errors must not.
const GIVEN: [&str; 2] = ["zed-77", "rosa-99"];

fn refused(status: &Status, code: Code, reason: &str) {
    assert_refused(status, code, reason, &GIVEN);
}

fn help(seconds: i64) -> pb::Interaction {
    act(Kind::Help, "zed-77", "rosa-99", after(day(0), seconds))
}

async fn try_rank(client: &mut Client) -> Result<pb::RankConnectionsResponse, Status> {
    let request = pb::RankConnectionsRequest { person: "zed-77".to_owned(), ..pb::RankConnectionsRequest::default() };
    client.rank_connections(request).await.map(tonic::Response::into_inner)
}

async fn try_connection(client: &mut Client, days: i64) -> Result<pb::GetConnectionResponse, Status> {
    let request = pb::GetConnectionRequest {
        person: "zed-77".to_owned(),
        peer: "rosa-99".to_owned(),
        as_of_time: Some(day(days)),
        ..Default::default()
    };
    client.get_connection(request).await.map(tonic::Response::into_inner)
}

/// How a stream of one sound item ends.
async fn try_stream(client: &mut Client) -> Status {
    let item = pb::RecordInteractionsRequest { sequence: 1, interaction: Some(help(0)) };
    let mut stream = client.record_interactions(tokio_stream::iter([item])).await.unwrap().into_inner();
    stream.message().await.unwrap_err()
}

async fn execute(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A stream of so many acts: how many the server takes in counts up; the task ends with how many are recorded.
fn feed(address: SocketAddr, acts: i64, first: i64) -> (Arc<AtomicI64>, JoinHandle<i64>) {
    let (items, feeding) = mpsc::channel(1);
    let taken = Arc::<AtomicI64>::default();
    let counted = Arc::clone(&taken);
    tokio::spawn(async move {
        for number in 1..=acts {
            let interaction = Some(help(first + number));
            items.send(pb::RecordInteractionsRequest { sequence: number, interaction }).await.unwrap();
            counted.store(number, Ordering::SeqCst);
        }
    });
    let recorded = tokio::spawn(async move {
        let mut client = client_of(address, "one");
        let mut answers = client.record_interactions(ReceiverStream::new(feeding)).await.unwrap().into_inner();
        let mut recorded = 0;
        while let Some(answer) = answers.message().await.unwrap() {
            assert!(answer.rejections.is_empty() && answer.replayed_count == 0);
            recorded += answer.recorded_count;
        }
        recorded
    });
    (taken, recorded)
}

/// So many calls at once, each of which tells how it ended.
fn calls(address: SocketAddr, tenant: &str, count: i64) -> JoinSet<Result<pb::RecordInteractionResponse, Status>> {
    let mut calls = JoinSet::new();
    let mut client = client_of(address, tenant);
    for number in 0..count {
        if number % 500 == 0 {
            client = client_of(address, tenant);
        }
        let mut client = client.clone();
        calls.spawn(async move { try_record(&mut client, help(-number)).await });
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_of_one_tenant_refuses_nobody_else_until_all_is_full() {
    const ITEMS: i64 = 8000;
    let url = database(true).await;
    let mut config = config(url.clone());
    config.admission.tenant_calls = 4000;
    let app = start(config, Clock::system()).await;
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE ledger").execute(&mut blocker).await.unwrap();
    // Streams are taken in until no more can wait.
    let (streams, recorded): (Vec<_>, Vec<_>) = (0..2).map(|stream| feed(app.address(), ITEMS, stream * ITEMS)).unzip();
    let mut before = -1;
    eventually("streams wait", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let taken = streams.iter().map(|taken| taken.load(Ordering::SeqCst)).sum::<i64>();
        std::mem::replace(&mut before, taken) == taken
    })
    .await;
    assert!((4096..2 * ITEMS).contains(&before), "{before} are taken in");
    // Of its calls, no more are let in than a tenant may make. Those of another one wait, as there is room.
    let mut of_one = calls(app.address(), "one", 4200);
    refused(&of_one.join_next().await.unwrap().unwrap().unwrap_err(), Code::ResourceExhausted, "TENANT_LIMITED");
    let mut of_two = calls(app.address(), "two", 100);
    assert!(tokio::time::timeout(Duration::from_millis(300), of_two.join_next()).await.is_err(), "they wait");
    let mut of_three = calls(app.address(), "three", 3000);
    refused(&of_three.join_next().await.unwrap().unwrap().unwrap_err(), Code::ResourceExhausted, "OVERLOADED");
    let mut client = client_of(app.address(), "two");
    assert!(try_rank(&mut client).await.unwrap().connections.is_empty(), "a full queue does not hinder reading");
    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    for recorded in recorded {
        assert_eq!(recorded.await.unwrap(), ITEMS);
    }
    let recorded = |ended: Vec<Result<_, Status>>| ended.iter().filter(|ended| ended.is_ok()).count() as i64;
    assert_eq!(recorded(of_two.join_all().await), 100);
    for (tenant, calls, streamed) in [("one", of_one, 2 * ITEMS), ("three", of_three, 0)] {
        let meant = recorded(calls.join_all().await) + streamed;
        let kept = connection(&mut client_of(app.address(), tenant), "zed-77", "rosa-99", day(1)).await;
        assert_eq!(kept.your_interaction_counts[0].count, meant, "what was accepted is recorded, and nothing else");
    }
}

#[tokio::test]
async fn reads_that_a_silent_database_holds_up_do_not_wait_for_ever() {
    let url = database(true).await;
    let mut settings = config(url.clone());
    settings.databases.max_connections = 2;
    let app = start(settings, Clock::system()).await;
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tie").execute(&mut blocker).await.unwrap();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let mut client = client_of(app.address(), "one");
            tokio::spawn(async move { try_rank(&mut client).await })
        })
        .collect();
    eventually("two calls are refused", async || calls.iter().filter(|call| call.is_finished()).count() == 2).await;
    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    let mut served = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => served += 1,
            Err(status) => refused(&status, Code::Unavailable, "DATABASE_UNAVAILABLE"),
        }
    }
    assert_eq!(served, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_said_to_have_passed() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tie").execute(&mut blocker).await.unwrap();
    let mut request = tonic::Request::new(pb::RankConnectionsRequest {
        person: "zed-77".to_owned(),
        ..pb::RankConnectionsRequest::default()
    });
    request.set_timeout(std::time::Duration::from_secs(1));
    let status = client_of(app.address(), "one").rank_connections(request).await.unwrap_err();
    refused(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_are_read_for_one_answer_are_refused() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "rosa-99", "zed-77", day(0))).await;
    all_folded(&url).await;
    let ties =
        "INSERT INTO tie SELECT tenant, 'peer-' || number, recipient, first_time, last_time, counts, today, evidence
        FROM tie, generate_series(1, 200000) AS number";
    execute(&url, ties).await;
    let status = try_rank(&mut client).await.unwrap_err();
    refused(&status, Code::ResourceExhausted, "HISTORY_TOO_LARGE");
    assert_eq!(error_metadata(&status), [("limit".to_owned(), "200000".to_owned())]);
    execute(&url, "DELETE FROM tie WHERE actor = 'peer-7'").await;
    assert!(try_rank(&mut client).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_with_too_much_history_is_refused_and_one_act_less_is_not() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "rosa-99", "zed-77", day(0))).await;
    record(&mut client, act(Kind::Help, "rosa-99", "zed-77", day(9))).await;
    // With the first of the two, and without the second, one more than 200,000.
    let acts =
        "INSERT INTO ledger SELECT tenant, interaction_id || number, 0, actor, recipient, interaction_time, kind,
            group_size, effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time
        FROM ledger, generate_series(1, 200000) AS number WHERE interaction_time < '2026-01-02'";
    execute(&url, acts).await;
    let past = pb::RankConnectionsRequest {
        person: "zed-77".to_owned(),
        as_of_time: Some(day(5)),
        ..pb::RankConnectionsRequest::default()
    };
    let mut other = client.clone();
    let (shown, ranked) = tokio::join!(try_connection(&mut client, 5), other.rank_connections(past));
    for status in [shown.unwrap_err(), ranked.unwrap_err()] {
        refused(&status, Code::ResourceExhausted, "HISTORY_TOO_LARGE");
        assert_eq!(error_metadata(&status), [("limit".to_owned(), "200000".to_owned())]);
    }
    assert!(try_connection(&mut client, 10).await.is_ok(), "the present needs no history");
    execute(&url, "DELETE FROM ledger WHERE interaction_id LIKE '%\\_%200000'").await;
    let connection = try_connection(&mut client, 5).await.unwrap().connection.unwrap();
    assert_eq!(connection.their_interaction_counts[0].count, 200_000);
}

#[tokio::test]
async fn a_database_that_goes_away_is_unavailable() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, help(0)).await;
    let (name, other) = {
        let name = url.rsplit_once('/').unwrap().1.split('?').next().unwrap();
        (name.to_owned(), url.replacen(&format!("/{name}?"), "/rapport?", 1))
    };
    let mut connection = PgConnection::connect(&other).await.unwrap();
    let gone = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(gone)).execute(&mut connection).await.unwrap();
    // The first call on a connection that was cut, and the first on none.
    for _ in 0..2 {
        refused(&try_rank(&mut client).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
    }
    refused(&try_connection(&mut client, 1).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
    refused(&try_stream(&mut client).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn a_database_that_was_never_there_is_unavailable() {
    let nowhere = "postgresql://nobody@localhost/nothing?host=/nonexistent/socket&sslmode=disable";
    let app = rapport::app::App::start(config(nowhere.to_owned()), Clock::system()).await.unwrap();
    let mut client = client_of(app.address(), "one");
    refused(&try_rank(&mut client).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
    refused(&try_connection(&mut client, 1).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
    let request = pb::RecordInteractionRequest { interaction: Some(help(0)), validate_only: true };
    let status = client.record_interaction(request).await.unwrap_err();
    refused(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    refused(&try_record(&mut client, help(0)).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn a_database_that_refuses_connections_is_unavailable() {
    // Bound for a moment, so that nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = format!("postgresql://nobody@127.0.0.1:{port}/nothing?sslmode=disable");
    let app = rapport::app::App::start(config(nowhere), Clock::system()).await.unwrap();
    let mut client = client_of(app.address(), "one");
    let mut other = client.clone();
    let both = async { tokio::join!(try_connection(&mut client, 1), try_record(&mut other, help(0))) };
    // A writer would wait for its connection again and again.
    let (read, written) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("an answer in time");
    refused(&read.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
    refused(&written.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn a_schema_that_is_not_there_yet_is_unavailable() {
    let app = rapport::app::App::start(config(database(false).await), Clock::system()).await.unwrap();
    let mut client = client_of(app.address(), "one");
    refused(&try_rank(&mut client).await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn a_damaged_database_is_an_internal_error_that_says_nothing() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, help(0)).await;
    all_folded(&url).await;
    execute(&url, "UPDATE ledger SET kind = 99").await;
    refused(&try_connection(&mut client, 1).await.unwrap_err(), Code::Internal, "INTERNAL");
    execute(&url, "UPDATE tie SET recipient = ' damaged '").await;
    refused(&try_rank(&mut client).await.unwrap_err(), Code::Internal, "INTERNAL");
    execute(&url, "ALTER TABLE ledger RENAME TO elsewhere").await;
    refused(&try_record(&mut client, help(1)).await.unwrap_err(), Code::Internal, "INTERNAL");
    refused(&try_stream(&mut client).await, Code::Internal, "INTERNAL");
    execute(&url, "ALTER TABLE elsewhere RENAME TO ledger; ALTER TABLE rhythm RENAME TO elsewhere").await;
    record(&mut client, act(Kind::Help, "yann-55", "vera-66", day(0))).await;
    let mut of_vera = client.clone();
    let mut shown = async || {
        let asked = pb::GetConnectionRequest { person: "vera-66".into(), peer: "yann-55".into(), ..Default::default() };
        of_vera.get_connection(asked).await
    };
    refused(&shown().await.unwrap_err(), Code::Internal, "INTERNAL");
    execute(&url, "ALTER TABLE elsewhere RENAME TO rhythm").await;
    let connection = shown().await.unwrap().into_inner().connection.unwrap();
    assert_eq!(connection.their_interaction_counts[0].count, 1, "what was not damaged goes on");
}

#[tokio::test]
async fn what_cannot_be_folded_of_one_tenant_stands_in_nobodys_way() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let [mut one, mut other] = ["one", "other"].map(|tenant| client_of(app.address(), tenant));
    record(&mut one, help(0)).await;
    all_folded(&url).await;
    execute(&url, "ALTER TABLE tie DROP CONSTRAINT tie_counts_check; UPDATE tie SET counts = '{}'").await;
    for number in 1..4 {
        record(&mut one, help(number)).await;
        record(&mut other, help(number)).await;
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut unfolded = async || {
        let tenants = sqlx::query_scalar::<_, String>("SELECT DISTINCT tenant FROM unfolded");
        tenants.fetch_all(&mut connection).await.unwrap()
    };
    eventually("all that can be is folded", async || unfolded().await == ["one"]).await;
    refused(&try_rank(&mut one).await.unwrap_err(), Code::Internal, "INTERNAL");
    assert!(try_rank(&mut other).await.is_ok());
}

#[tokio::test]
async fn what_a_server_left_unfolded_is_folded_by_another_that_has_nothing_to_record() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tie").execute(&mut blocker).await.unwrap();
    record(&mut client_of(app.address(), "one"), help(0)).await;
    app.stopper().cancel();
    app.ended().await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM unfolded").fetch_one(&mut blocker).await.unwrap();
    assert_eq!(left, 1);
    let _other = start(config(url.clone()), Clock::system()).await;
    all_folded(&url).await;
}

#[tokio::test]
async fn a_stream_that_is_open_at_shutdown_acknowledges_what_it_took_and_is_told() {
    let app = start(config(database(true).await), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    let (items, sent) = tokio::sync::mpsc::channel(1);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut answers = client.record_interactions(sent).await.unwrap().into_inner();
    items.send(pb::RecordInteractionsRequest { sequence: 7, interaction: Some(help(0)) }).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!((answer.sequence, answer.recorded_count), (7, 1));
    app.stopper().cancel();
    refused(&answers.message().await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN");
    drop(items);
    let ended = tokio::time::timeout(Duration::from_secs(3), app.ended()).await;
    ended.expect("a stream does not delay the end").unwrap();
}
