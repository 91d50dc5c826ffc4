//! Answers that are given again hold: they are what a server that keeps none would say, whichever server recorded what.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use rapport::{
    config::Config,
    domain::{Kind, Timestamp},
    rpc::pb,
    service::Clock,
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{Client, act, after, client_of, config, database, databases, day, document, policies_of, record, start},
    process::random,
};

/// A clock that stands still until it is set.
fn clock() -> (Clock, Arc<AtomicI64>) {
    let seconds = Arc::new(AtomicI64::new(day(100).seconds));
    let read = Arc::clone(&seconds);
    (Clock::from_fn(move || Timestamp::from_seconds(read.load(Ordering::Relaxed), 0).unwrap()), seconds)
}

async fn server(url: &str, answer_bytes: u64, clock: &Clock) -> Client {
    let config = Config { answer_bytes, databases: databases(url.to_owned(), 4), ..config(url.to_owned()) };
    let client = client_of(start(config, clock.clone()).await.address(), "one");
    // A new connection makes a server look at everything anew; after this it has all that it may have.
    for _ in 0..3 {
        let asking = (0..16).map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { ranked(&mut client, question(&format!("nobody{number}"))).await })
        });
        for asked in asking.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
    }
    client
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
    let mut keeping = [server(&url, 32 << 20, &clock).await, server(&url, 32 << 20, &clock).await];
    let mut anew = server(&url, 0, &clock).await;
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
    let mut client = server(&url, 32 << 20, &clock).await;
    record(&mut client, act(Kind::Help, "bob", "ada", day(98))).await;
    record(&mut client, act(Kind::Help, "cid", "dan", day(98))).await;
    let first = ranked(&mut client, question("ada")).await;
    assert_eq!(first.connections.len(), 1);

    // Behind the server's back: who looks again would see it.
    let mut connection = PgConnection::connect(&url).await.unwrap();
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
    let mut client = server(&url, 32 << 20, &clock).await;
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
