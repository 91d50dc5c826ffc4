//! Answers that are given again hold: they are what a server that keeps none would say, whichever server recorded what.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use rapport::{
    config::Config,
    domain::{Kind, Timestamp},
    embedded::{EmbeddedOptions, EmbeddedPostgres},
    rpc::pb,
    scoring::DEFAULT,
    service::{Clock, ServiceLimits},
    store::Store,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{
    harness::{
        Client, act, after, all_folded, client_of, config, database, databases, day, document, eventually, policies_of,
        programs, record, start,
    },
    process::random,
    program::folder,
};

/// A clock that stands still until it is set.
fn clock() -> (Clock, Arc<AtomicI64>) {
    let seconds = Arc::new(AtomicI64::new(day(100).seconds));
    let read = Arc::clone(&seconds);
    (Clock::from_fn(move || Timestamp::from_seconds(read.load(Ordering::Relaxed), 0).unwrap()), seconds)
}

/// What a server keeps: answers and what they are made of, or one of the two, or nothing.
const ALL: [u64; 2] = [32 << 20, 64 << 20];
const ANSWERS: [u64; 2] = [32 << 20, 0];
const VIEWS: [u64; 2] = [0, 64 << 20];
const NOTHING: [u64; 2] = [0, 0];

async fn server(url: &str, [answer_bytes, view_bytes]: [u64; 2], clock: &Clock) -> Client {
    let config = config(url.to_owned());
    let service = ServiceLimits { answer_bytes, view_bytes, ..config.service };
    let config = Config { service, databases: databases(url.to_owned(), 4), ..config };
    client_of(start(config, clock.clone()).await.address(), "one")
}

async fn ranked(client: &mut Client, request: pb::RankConnectionsRequest) -> pb::RankConnectionsResponse {
    let answer = client.rank_connections(request).await.unwrap().into_inner();
    // Tokens are sealed anew each time.
    pb::RankConnectionsResponse { next_page_token: answer.next_page_token.len().min(1).to_string(), ..answer }
}

fn question(person: &str) -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest { person: person.to_owned(), ..Default::default() }
}

/// One of eight persons.
fn person() -> String {
    format!("p{}", random(8))
}

fn anything() -> pb::Interaction {
    const KINDS: [Kind; 6] = [Kind::Message, Kind::Help, Kind::Ask, Kind::Promise, Kind::Violation, Kind::Meeting];
    let (actor, time) = (person(), after(day(99), random(86_400) as i64));
    let recipient = std::iter::repeat_with(person).find(|recipient| *recipient != actor).unwrap();
    act(KINDS[random(6) as usize], &actor, &recipient, time)
}

fn any_question() -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest {
        order_by: random(5) as i32,
        page_size: [0, 1, 3][random(3) as usize],
        explain: random(3) == 0,
        minimum_score: [0.0, 0.01][random(2) as usize],
        ..question(&person())
    }
}

#[tokio::test]
async fn what_is_given_again_is_what_would_be_found_anew() {
    let (url, (clock, seconds)) = (database(true).await, clock());
    let mut keeping = [server(&url, ALL, &clock).await, server(&url, VIEWS, &clock).await];
    let mut anew = server(&url, NOTHING, &clock).await;
    for step in 0..600 {
        let which = random(2) as usize;
        match random(10) {
            0..3 => drop(record(&mut keeping[which], anything()).await),
            3 => drop(record(&mut anew, anything()).await),
            4 if step % 50 == 0 => drop(seconds.fetch_add(40_000, Ordering::Relaxed)),
            _ => {
                let question = any_question();
                let (again, found) = (ranked(&mut keeping[which], question.clone()), ranked(&mut anew, question));
                let (again, found) = tokio::join!(again, found);
                assert_eq!(again, found);
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_given_again_until_something_concerns_it() {
    let (url, (clock, seconds)) = (database(true).await, clock());
    let mut client = server(&url, ANSWERS, &clock).await;
    record(&mut client, act(Kind::Help, "bob", "ada", day(98))).await;
    record(&mut client, act(Kind::Help, "cid", "dan", day(98))).await;
    let first = ranked(&mut client, question("ada")).await;
    assert_eq!(first.connections.len(), 1);

    // Behind the server's back: who looks again would see it.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    all_folded(&url).await;
    sqlx::query("DELETE FROM tie WHERE recipient = 'ada'").execute(&mut connection).await.unwrap();
    assert_eq!(ranked(&mut client, question("ada")).await, first);
    record(&mut client, act(Kind::Message, "cid", "dan", day(99))).await;
    seconds.fetch_add(60, Ordering::Relaxed);
    let later = ranked(&mut client, question("ada")).await;
    assert_eq!((&later.connections, later.as_of_time), (&first.connections, Some(after(day(100), 60))));

    // What the peer does elsewhere concerns it.
    record(&mut client, act(Kind::Message, "bob", "cid", day(99))).await;
    assert_eq!(ranked(&mut client, question("ada")).await.connections, []);
}

/// The peers of ada.
async fn peers(client: &mut Client) -> BTreeSet<String> {
    ranked(client, question("ada")).await.connections.into_iter().map(|connection| connection.peer).collect()
}

fn named<const COUNT: usize>(peers: [&str; COUNT]) -> BTreeSet<String> {
    peers.map(str::to_owned).into()
}

#[tokio::test]
async fn of_what_is_kept_only_what_changed_is_read_again() {
    let (url, (clock, _)) = (database(true).await, clock());
    let mut client = server(&url, VIEWS, &clock).await;
    for peer in ["bob", "cid", "dan"] {
        record(&mut client, act(Kind::Help, peer, "ada", day(98))).await;
    }
    assert_eq!(peers(&mut client).await, named(["bob", "cid", "dan"]));

    // Behind the server's back: who reads anew would see it.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    all_folded(&url).await;
    sqlx::query("DELETE FROM tie WHERE actor IN ('bob', 'cid')").execute(&mut connection).await.unwrap();
    record(&mut client, act(Kind::Message, "bob", "eve", day(99))).await;
    record(&mut client, act(Kind::Help, "fay", "ada", day(98))).await;
    assert_eq!(peers(&mut client).await, named(["bob", "cid", "dan", "fay"]));
    record(&mut client, act(Kind::Message, "ada", "cid", day(99))).await;
    let told = ranked(&mut client, question("ada")).await.connections;
    let cid = told.iter().find(|connection| connection.peer == "cid").unwrap();
    assert_eq!((told.len(), &cid.their_interaction_counts[..]), (4, &[][..]));

    // Where it is not known what changed, all is.
    record(&mut client, act(Kind::Help, "dan", "ada", day(99))).await;
    sqlx::query("DELETE FROM change").execute(&mut connection).await.unwrap();
    record(&mut client, act(Kind::Help, "dan", "ada", day(99))).await;
    assert_eq!(peers(&mut client).await, named(["dan", "fay", "cid"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_meanwhile_is_in_the_next_ranking() {
    let (url, (clock, _)) = (database(true).await, clock());
    let servers = [server(&url, ALL, &clock).await, server(&url, VIEWS, &clock).await];
    let recording = (0..6).map(|number: usize| {
        let mut clients = servers.clone();
        tokio::spawn(async move {
            let peer = format!("peer{}", number / 2);
            for count in 1..=20 {
                let (actor, recipient) = if number.is_multiple_of(2) { (&*peer, "ada") } else { ("ada", &*peer) };
                record(&mut clients[count % 2], act(Kind::Help, actor, recipient, day(98))).await;
                record(&mut clients[count % 2], act(Kind::Message, &peer, &format!("other{count}"), day(98))).await;
                let connections = ranked(&mut clients[(count + number) % 2], question("ada")).await.connections;
                let connection = connections.into_iter().find(|connection| connection.peer == peer).unwrap();
                let counts = [connection.their_interaction_counts, connection.your_interaction_counts];
                let seen = counts[number % 2].first().map_or(0, |count| count.count);
                assert_eq!(seen, count as i64, "a ranking misses what was acknowledged before it");
            }
        })
    });
    for recorded in recording.collect::<Vec<_>>() {
        recorded.await.unwrap();
    }
    let mut anew = server(&url, NOTHING, &clock).await;
    let found = ranked(&mut anew, question("ada")).await;
    assert_eq!(found.connections.len(), 3);
    for mut client in servers {
        assert_eq!(ranked(&mut client, question("ada")).await, found);
    }
}

#[tokio::test]
async fn what_is_derived_again_is_read_anew() {
    let (url, (clock, _)) = (database(true).await, clock());
    let mut client = server(&url, ALL, &clock).await;
    for peer in ["bob", "cid"] {
        record(&mut client, act(Kind::Help, peer, "ada", day(98))).await;
    }
    assert_eq!(peers(&mut client).await, named(["bob", "cid"]));
    all_folded(&url).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM ledger WHERE actor = 'bob'").execute(&mut connection).await.unwrap();
    Store::new(&url, 2, &DEFAULT).unwrap().rebuild(true, |_| ()).await.unwrap();
    assert_eq!(peers(&mut client).await, named(["cid"]));
}

/// What a server on that database keeps of ada, whose tie was taken away behind its back since.
async fn kept(url: &str, keeps: [u64; 2], clock: &Clock) -> Client {
    let mut client = server(url, keeps, clock).await;
    record(&mut client, act(Kind::Help, "bob", "ada", day(98))).await;
    assert_eq!(peers(&mut client).await, named(["bob"]));
    let mut connection = PgConnection::connect(url).await.unwrap();
    all_folded(url).await;
    sqlx::query("DELETE FROM tie").execute(&mut connection).await.unwrap();
    assert_eq!(peers(&mut client).await, named(["bob"]), "it is given again");
    client
}

/// The peers of ada, as soon as the server has noticed that its connections were cut.
async fn peers_after_a_cut(client: &mut Client) -> BTreeSet<String> {
    eventually("it answers", async || client.rank_connections(question("ada")).await.is_ok()).await;
    peers(client).await
}

async fn execute(operator: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(operator).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_outlives_connections_but_not_its_database() {
    let (clock, _) = clock();
    for keeps in [ANSWERS, VIEWS] {
        let url = database(true).await;
        let mut client = kept(&url, keeps, &clock).await;
        let options: PgConnectOptions = url.parse().unwrap();
        let name = options.get_database().unwrap().to_owned();
        let mut operator = PgConnection::connect_with(&options.database("rapport")).await.unwrap();
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = '{name}' AND application_name = 'rapport'"
        );
        execute(&mut operator, &cut).await;
        assert_eq!(peers_after_a_cut(&mut client).await, named(["bob"]));

        // A copy takes its place, with the same revisions.
        execute(&mut operator, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
        execute(&mut operator, &cut).await;
        execute(&mut operator, &format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await;
        execute(&mut operator, &format!("ALTER DATABASE {name} RENAME TO {name}_gone")).await;
        execute(&mut operator, &format!("ALTER DATABASE {name}_copy RENAME TO {name}")).await;
        assert_eq!(peers_after_a_cut(&mut client).await, named([]));
    }
}

#[tokio::test]
async fn what_is_kept_does_not_outlive_the_postgresql() {
    let (clock, _) = clock();
    let folder = folder();
    let options = EmbeddedOptions { postgres_bin: programs(), ..EmbeddedOptions::new(folder.path().join("data")) };
    let postgres = EmbeddedPostgres::start(options.clone()).await.unwrap();
    let url = postgres.database_url();
    Store::new(&url, 2, &DEFAULT).unwrap().migrate().await.unwrap();
    let mut clients = [kept(&url, ANSWERS, &clock).await, kept(&url, VIEWS, &clock).await];
    postgres.stop().await;
    let postgres = EmbeddedPostgres::start(options).await.unwrap();
    assert_eq!(postgres.database_url(), url);
    for client in &mut clients {
        assert_eq!(peers_after_a_cut(client).await, named([]));
    }
}

#[tokio::test]
async fn another_policy_and_another_day_are_another_answer() {
    let (url, (clock, seconds)) = (database(true).await, clock());
    let app = start(config(url.clone()), clock.clone()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "bob", "ada", day(98))).await;
    let first = ranked(&mut client, question("ada")).await;

    let mut policies = policies_of(app.address(), "one");
    let policy = Some(pb::Policy { document: document("other"), ..Default::default() });
    let request = pb::PublishPolicyRequest { policy, ..Default::default() };
    policies.publish_policy(request).await.unwrap();
    assert_eq!(ranked(&mut client, question("ada")).await.policy_version, "other");
    policies.rollback_policy(pb::RollbackPolicyRequest::default()).await.unwrap();
    let back = ranked(&mut client, question("ada")).await;
    assert_eq!((&back.connections, back.policy_version), (&first.connections, first.policy_version));

    // Not before midnight, and then at once.
    seconds.fetch_add(86_399, Ordering::Relaxed);
    assert_eq!(ranked(&mut client, question("ada")).await.connections, first.connections);
    seconds.fetch_add(1, Ordering::Relaxed);
    let faded = ranked(&mut client, question("ada")).await.connections[0].mutual.unwrap().probability;
    assert!(faded < first.connections[0].mutual.unwrap().probability);
}

#[tokio::test]
async fn what_lies_ahead_of_the_clock_counts_when_its_time_comes() {
    let (url, (clock, seconds)) = (database(true).await, clock());
    let mut client = server(&url, ALL, &clock).await;
    record(&mut client, act(Kind::Message, "bob", "ada", day(98))).await;
    record(&mut client, act(Kind::Help, "bob", "ada", after(day(100), 60))).await;
    let helped = async |client: &mut Client| {
        ranked(client, question("ada")).await.connections[0].their_interaction_counts.clone()
    };
    let before = helped(&mut client).await;
    assert_eq!(helped(&mut client).await, before);
    seconds.fetch_add(60, Ordering::Relaxed);
    assert_ne!(helped(&mut client).await, before);
}
