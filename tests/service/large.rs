//! Large views: however many are asked for at once, no more are read than memory is meant for, and small ones do not wait.

use std::{net::SocketAddr, time::Duration};

use rapport::{
    config::Config,
    domain::Kind,
    rpc::pb,
    service::{Clock, ServiceLimits},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Code, Status};

use crate::{
    harness::{Client, act, all_folded, client_of, config, database, databases, day, eventually, record, start},
    telemetry::metric,
    wire::assert_refused,
};

/// So many ties make a view a large one.
const LARGE: i64 = 5001;

/// A server that keeps answers and views in so much memory, on a database in which hubs have many connections and ada has one.
async fn server([answer_mib, view_mib]: [u64; 2]) -> (PgConnection, PgConnection, Client, SocketAddr) {
    let url = database(true).await;
    let config = config(url.clone());
    let service = ServiceLimits { answer_bytes: answer_mib << 20, view_bytes: view_mib << 20, ..config.service };
    let config = Config {
        service,
        databases: databases(url.clone(), 12),
        metrics_listen: Some(([127, 0, 0, 1], 0).into()),
        ..config
    };
    let app = start(config, Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "bob", "ada", day(0))).await;
    all_folded(&url).await;
    let (mut operator, watch) =
        (PgConnection::connect(&url).await.unwrap(), PgConnection::connect(&url).await.unwrap());
    let ties = format!(
        "INSERT INTO tie SELECT tenant, 'peer' || number, 'hub' || hub, first_time, last_time, counts, today, evidence
         FROM tie, generate_series(1, {LARGE}) AS number, generate_series(1, 4) AS hub"
    );
    execute(&mut operator, &ties).await;
    (operator, watch, client, app.metrics_address().unwrap())
}

async fn execute(operator: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(operator).await.unwrap();
}

type Ranking = JoinHandle<Result<pb::RankConnectionsResponse, Status>>;

fn rank(client: &Client, person: &str, limit: Duration) -> Ranking {
    let (mut client, person) = (client.clone(), person.to_owned());
    tokio::spawn(async move {
        let asked = pb::RankConnectionsRequest { person, explain: true, ..Default::default() };
        let mut request = tonic::Request::new(asked);
        request.set_timeout(limit);
        client.rank_connections(request).await.map(tonic::Response::into_inner)
    })
}

/// Waits until its deadline has passed, as the server or the client notices first.
async fn gave_up(ranking: Ranking) {
    let code = ranking.await.unwrap().unwrap_err().code();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code}");
}

/// Waits until so many sessions wait for a lock of another, and some time to see that they stay so many.
async fn waiting(watch: &mut PgConnection, count: i64) {
    const WAITING: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut seen = async || sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&mut *watch).await.unwrap();
    eventually("as many wait as may", async || seen().await == count).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(seen().await, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hung_up_while_another_was_answered_is_ranked_for_no_more() {
    let (mut operator, mut watch, client, at) = server([0, 64]).await;
    execute(&mut operator, "BEGIN; LOCK TABLE rhythm").await;
    let first = rank(&client, "hub1", Duration::from_secs(30));
    waiting(&mut watch, 1).await;
    let gone = [1, 2, 3].map(|_| rank(&client, "hub1", Duration::from_millis(300)));
    for gone in gone {
        gave_up(gone).await;
    }
    let patient = rank(&client, "hub1", Duration::from_secs(30));
    waiting(&mut watch, 1).await;
    execute(&mut operator, "COMMIT").await;
    let answers = [first.await.unwrap().unwrap(), patient.await.unwrap().unwrap()];
    assert_eq!(answers[0].connections, answers[1].connections);
    let views =
        async |source: &str| metric(at, &format!(r#"rapport_views_total{{rapport_view_source="{source}"}}"#)).await;
    assert_eq!([views("read").await, views("kept").await, views("refreshed").await], [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_the_same_meanwhile_is_given_the_answer_of_the_first() {
    let (mut operator, mut watch, client, at) = server([32, 64]).await;
    execute(&mut operator, "BEGIN; LOCK TABLE rhythm").await;
    let asking = [1, 2, 3].map(|_| rank(&client, "ada", Duration::from_secs(30)));
    waiting(&mut watch, 1).await;
    execute(&mut operator, "COMMIT").await;
    for asked in asking {
        assert_eq!(asked.await.unwrap().unwrap().connections.len(), 1);
    }
    let explained =
        r#"db_client_operation_duration_seconds_count{db_operation_name="explain",db_system_name="postgresql"}"#;
    assert_eq!(metric(at, explained).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_large_views_are_read_at_once_as_there_is_memory_for() {
    for (view_mib, at_once) in [(0, 1), (256, 2)] {
        let (mut operator, mut watch, client, _) = server([0, view_mib]).await;
        // Rhythms are read after ties: by then it is known how many there are.
        execute(&mut operator, "BEGIN; LOCK TABLE rhythm").await;
        let hubs = ["hub1", "hub2", "hub3"].map(|hub| rank(&client, hub, Duration::from_secs(30)));
        waiting(&mut watch, at_once).await;
        let small = rank(&client, "ada", Duration::from_secs(30));
        waiting(&mut watch, at_once + 1).await;
        // Who gives up makes room for the next.
        gave_up(rank(&client, "hub4", Duration::from_millis(300))).await;
        execute(&mut operator, "COMMIT").await;
        for hub in hubs {
            assert_eq!(hub.await.unwrap().unwrap().connections.len(), 50);
        }
        assert_eq!(small.await.unwrap().unwrap().connections.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_no_large_view() {
    let (mut operator, mut watch, client, _) = server([0, 0]).await;
    let ties = "INSERT INTO tie SELECT tenant, 'peer' || number, 'huge', first_time, last_time, counts, today, evidence
         FROM tie, generate_series(1, 200001) AS number WHERE actor = 'bob'";
    execute(&mut operator, ties).await;
    execute(&mut operator, "BEGIN; LOCK TABLE rhythm").await;
    let large = rank(&client, "hub1", Duration::from_secs(30));
    waiting(&mut watch, 1).await;
    let refused = rank(&client, "huge", Duration::from_secs(30)).await.unwrap().unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "HISTORY_TOO_LARGE", &["huge"]);
    assert!(!large.is_finished());
    execute(&mut operator, "COMMIT").await;
    assert!(large.await.unwrap().is_ok());
}

/// Records a hundred acts at once.
async fn greet(client: &mut Client) {
    let recipients = (0..100).map(|person| format!("p{person}")).collect();
    let greeting = act(Kind::Message, "vera", "", day(1));
    record(client, pb::Interaction { recipients, ..greeting }).await;
}

/// So many times as much waits to be folded from now on.
async fn unfolded(operator: &mut PgConnection, times: u32) {
    let again = format!(
        "INSERT INTO unfolded
         SELECT tenant, revision + number, persons, interaction_ids, actors, recipients, times, kinds, group_sizes,
             efforts_micros, unprompted, serve_goals, due_times, refer_to
         FROM unfolded, generate_series(1, {times} - 1) AS number"
    );
    execute(operator, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_that_is_not_folded_than_memory_is_meant_for_is_refused_until_it_is() {
    let (mut operator, mut watch, mut client, _) = server([0, 0]).await;
    execute(&mut operator, "BEGIN; LOCK TABLE tie IN EXCLUSIVE MODE").await;
    greet(&mut client).await;
    waiting(&mut watch, 1).await;
    unfolded(&mut watch, 501).await;
    let refused = rank(&client, "ada", Duration::from_secs(30)).await.unwrap().unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "OVERLOADED", &["ada", "vera"]);
    execute(&mut operator, "COMMIT").await;
    eventually("there is less to fold", async || rank(&client, "ada", Duration::from_secs(30)).await.unwrap().is_ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_folded_yet_makes_a_view_a_large_one_too() {
    let (mut operator, mut watch, mut client, _) = server([0, 0]).await;
    // Folding needs rhythms as well.
    execute(&mut operator, "BEGIN; LOCK TABLE rhythm").await;
    greet(&mut client).await;
    waiting(&mut watch, 1).await;
    unfolded(&mut watch, 51).await;
    let ranked = ["ada", "p1", "p2"].map(|person| rank(&client, person, Duration::from_secs(30)));
    waiting(&mut watch, 2).await;
    execute(&mut operator, "COMMIT").await;
    for ranked in ranked {
        assert_eq!(ranked.await.unwrap().unwrap().connections.len(), 1);
    }
    let mut unfolded = async || sqlx::query("SELECT FROM unfolded").fetch_optional(&mut watch).await.unwrap();
    eventually("all is folded", async || unfolded().await.is_none()).await;
}
