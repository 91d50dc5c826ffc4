//! Reading from a replica: what it may answer, what it may not, and that nobody notices when it is not there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rapport::{app::App, config::DatabaseUrl, domain::Kind, rpc::pb, service::Clock};
use serde_json::Value;

use crate::{
    harness::{Client, act, client_of, config, database, day, document, eventually, policies_of, record, start},
    process::random,
    program::program,
    proxy::Proxy,
    standby::Replicated,
    telemetry::metric,
};

/// A server on a database that reads from another one, and where its metrics are.
async fn server(url: &str, replica_url: &str) -> (App, SocketAddr) {
    let mut settings = config(url.to_owned());
    settings.databases.replica = Some(DatabaseUrl(replica_url.to_owned()));
    settings.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let app = start(settings, Clock::system()).await;
    let metrics = app.metrics_address().unwrap();
    (app, metrics)
}

/// How many reads the primary answered, and how many the replica did.
async fn reads(at: SocketAddr) -> [u64; 2] {
    let by = |role: &str| format!(r#"rapport_reads_total{{rapport_database_role="{role}"}}"#);
    [metric(at, &by("primary")).await, metric(at, &by("replica")).await]
}

async fn fallbacks(at: SocketAddr, reason: &str) -> u64 {
    metric(at, &format!(r#"rapport_replica_fallbacks_total{{rapport_fallback_reason="{reason}"}}"#)).await
}

async fn is_read_from(at: SocketAddr) {
    eventually("the replica can be read from", async || metric(at, "rapport_replica_ready").await == 1).await;
}

fn question(token: &str) -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        at_least_as_fresh_as: token.to_owned(),
        ..Default::default()
    }
}

async fn ask(client: &mut Client, question: pb::RankConnectionsRequest) -> pb::RankConnectionsResponse {
    client.rank_connections(question).await.unwrap().into_inner()
}

/// The peers of Ada, by name.
async fn peers(client: &mut Client, question: pb::RankConnectionsRequest) -> Vec<String> {
    let mut peers: Vec<_> = ask(client, question).await.connections.into_iter().map(|found| found.peer).collect();
    peers.sort_unstable();
    peers
}

async fn help(client: &mut Client, actor: &str, days: i64) -> String {
    let act = pb::Interaction { channel: "email".to_owned(), ..act(Kind::Help, actor, "ada", day(days)) };
    record(client, act).await.consistency_token
}

/// Waits until the replica answers what has to be as fresh as this token.
async fn reaches(client: &mut Client, at: SocketAddr, token: &str) {
    eventually("the replica has come as far", async || {
        let before = reads(at).await;
        ask(client, question(token)).await;
        reads(at).await[1] > before[1]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_answers_what_it_has_and_the_primary_the_rest() {
    let mut databases = Replicated::start().await;
    let (app, metrics) = server(&databases.primary_url, &databases.standby_url).await;
    let mut client = client_of(app.address(), "one");
    is_read_from(metrics).await;
    let old = help(&mut client, "bob", 0).await;
    reaches(&mut client, metrics, &old).await;
    let [primary, replica] = reads(metrics).await;
    assert_eq!(peers(&mut client, question("")).await, ["bob"]);
    assert_eq!(reads(metrics).await, [primary + 1, replica], "without a token the primary answers");

    databases.pause().await;
    let new = help(&mut client, "cid", 1).await;
    assert!(new > old);
    stale(&mut client, metrics, &old, &new).await;
    policy(&app, metrics, &old).await;
    doctor(&databases, &[("replica lag", "let it go on with pg_wal_replay_resume()")]);
    databases.resume().await;
    reaches(&mut client, metrics, &new).await;
    assert_eq!(peers(&mut client, question(&new)).await, ["bob", "cid"]);
    doctor(&databases, &[]);
    never_older(&databases, app.address()).await;

    databases.stop_standby().await;
    let [primary, _] = reads(metrics).await;
    for _ in 0..10 {
        assert_eq!(peers(&mut client, question(&new)).await, ["bob", "cid"]);
    }
    assert_eq!(reads(metrics).await[0], primary + 10);
    assert!(fallbacks(metrics, "failed").await + fallbacks(metrics, "not_ready").await >= 10);
    eventually("it is known to be gone", async || metric(metrics, "rapport_replica_ready").await == 0).await;
    databases.start_standby().await;
    reaches(&mut client, metrics, &new).await;
    app.stopper().cancel();
    app.ended().await.unwrap();
}

/// The standby stands still at a state that the old token stands for.
async fn stale(client: &mut Client, metrics: SocketAddr, old: &str, new: &str) {
    let [primary, replica] = reads(metrics).await;
    let behind = fallbacks(metrics, "behind").await;
    // Asked in every way: from what is kept, past it, with filters and with reasons.
    let ways = |token: &str| {
        let channels = vec!["email".to_owned()];
        [
            question(token),
            question(token),
            pb::RankConnectionsRequest { channels, explain: true, ..question(token) },
            pb::RankConnectionsRequest { as_of_time: Some(day(9)), ..question(token) },
        ]
    };
    for question in ways(old) {
        let answer = ask(client, question.clone()).await;
        assert_eq!((answer.connections.len(), &*answer.consistency_token), (1, old), "what it had then: {question:?}");
    }
    assert_eq!(reads(metrics).await, [primary, replica + 4]);
    for question in ways(new) {
        let answer = ask(client, question.clone()).await;
        assert_eq!((answer.connections.len(), &*answer.consistency_token), (2, new), "{question:?}");
    }
    assert_eq!(peers(client, question("")).await, ["bob", "cid"], "what it answered is not taken for more");
    assert_eq!(reads(metrics).await, [primary + 5, replica + 4]);
    assert_eq!(fallbacks(metrics, "behind").await, behind + 4);

    let shown = async |client: &mut Client, token: &str| {
        let (person, peer) = ("ada".to_owned(), "cid".to_owned());
        let at_least_as_fresh_as = token.to_owned();
        let asked = pb::GetConnectionRequest { person, peer, at_least_as_fresh_as, ..Default::default() };
        client.get_connection(asked).await.unwrap().into_inner()
    };
    let (then, now) = (shown(client, old).await, shown(client, new).await);
    assert_eq!((&*then.consistency_token, &*now.consistency_token), (old, new));
    let counts = [then, now].map(|answer| answer.connection.unwrap().their_interaction_counts.len());
    assert_eq!(counts, [0, 1]);

    // A later page is not older than the first, whatever the caller would be content with.
    let first = ask(client, pb::RankConnectionsRequest { page_size: 1, ..question(new) }).await;
    let page_token = first.next_page_token;
    let second = ask(client, pb::RankConnectionsRequest { page_size: 1, page_token, ..question(old) }).await;
    assert_eq!((second.connections.len(), &*second.consistency_token), (1, new));
    assert_ne!(second.connections[0].peer, first.connections[0].peer);
}

/// A policy that was put to use is part of what a token stands for.
async fn policy(app: &App, metrics: SocketAddr, old: &str) {
    let mut client = client_of(app.address(), "one");
    let mut policies = policies_of(app.address(), "one");
    let policy = Some(pb::Policy { document: document("other"), ..Default::default() });
    let published = policies.publish_policy(pb::PublishPolicyRequest { policy, ..Default::default() }).await.unwrap();
    let token = published.into_inner().consistency_token;
    let [_, replica] = reads(metrics).await;
    for (token, version) in [(&*token, "other"), ("", "other"), (old, &*rapport::scoring::DEFAULT.version)] {
        assert_eq!(ask(&mut client, question(token)).await.policy_version, version);
    }
    assert_eq!(reads(metrics).await[1], replica + 1);
    let back = policies.rollback_policy(pb::RollbackPolicyRequest::default()).await.unwrap().into_inner();
    assert!(back.consistency_token > token);
}

/// What `rapport doctor` finds, besides what is set to be quick.
fn doctor(databases: &Replicated, expected: &[(&str, &str)]) {
    let mut command = program(&["doctor", "--json"]);
    command.env("DATABASE_URL", &databases.primary_url).env("RAPPORT_READ_DATABASE_URL", &databases.standby_url);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["found"] == "a standby"), "{report}");
    let findings = checks.iter().filter(|check| check["fine"] == false);
    let found: Vec<_> = findings
        .map(|check| (check["name"].as_str().unwrap(), check["advice"].as_str().unwrap()))
        .filter(|(name, _)| !["fsync", "full_page_writes"].contains(name))
        .collect();
    assert_eq!(found, expected);
}

/// Many record and look for what they recorded, while the standby stops and goes.
async fn never_older(databases: &Replicated, address: SocketAddr) {
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut client = client_of(address, "two");
            tokio::spawn(async move {
                for number in 0..40 {
                    let (peer, person) = (format!("peer{number}"), format!("person{writer}"));
                    let token = record(&mut client, act(Kind::Help, &peer, &person, day(0))).await.consistency_token;
                    let explain = random(2) == 0;
                    let asked = pb::RankConnectionsRequest { person, explain, page_size: 100, ..question(&token) };
                    let answer = ask(&mut client, asked).await;
                    assert_eq!(answer.connections.len(), number + 1);
                    assert!(answer.consistency_token >= token);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        databases.pause().await;
        tokio::time::sleep(Duration::from_millis(random(100))).await;
        databases.resume().await;
        tokio::time::sleep(Duration::from_millis(random(100))).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_falls_silent_costs_one_wait() {
    let databases = Replicated::start().await;
    let way = Proxy::start(&databases.standby_url).await;
    let (app, metrics) = server(&databases.primary_url, &way.url()).await;
    let mut client = client_of(app.address(), "one");
    is_read_from(metrics).await;
    let token = help(&mut client, "bob", 0).await;
    reaches(&mut client, metrics, &token).await;
    let [primary, replica] = reads(metrics).await;
    way.silence_at_commit();
    let begun = Instant::now();
    let past = pb::RankConnectionsRequest { as_of_time: Some(day(1)), ..question(&token) };
    assert_eq!(peers(&mut client, past.clone()).await, ["bob"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(peers(&mut client, past.clone()).await, ["bob"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(reads(metrics).await, [primary + 21, replica]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_not_read_from() {
    let (app, metrics) = server(&database(true).await, &database(true).await).await;
    let mut client = client_of(app.address(), "one");
    let token = help(&mut client, "bob", 0).await;
    // For longer than it takes to look.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert_eq!(peers(&mut client, question(&token)).await, ["bob"]);
    }
    assert_eq!((reads(metrics).await[1], metric(metrics, "rapport_replica_ready").await), (0, 0));
    assert!(fallbacks(metrics, "not_ready").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_promoted_beside_its_primary_is_not_read_from() {
    let databases = Replicated::start().await;
    let (app, metrics) = server(&databases.primary_url, &databases.standby_url).await;
    let mut client = client_of(app.address(), "one");
    is_read_from(metrics).await;
    let token = help(&mut client, "bob", 0).await;
    reaches(&mut client, metrics, &token).await;
    databases.promote().await;
    // A history of its own, which is ahead of the primary's.
    let apart = start(config(databases.standby_url.clone()), Clock::system()).await;
    let mut stranger = client_of(apart.address(), "one");
    for day in 0..5 {
        help(&mut stranger, "mallory", day).await;
    }
    let read = reads(metrics).await[1];
    let token = help(&mut client, "cid", 1).await;
    for _ in 0..20 {
        assert_eq!(peers(&mut client, question(&token)).await, ["bob", "cid"]);
    }
    assert_eq!(reads(metrics).await[1], read);
    eventually("it is known to be no standby", async || metric(metrics, "rapport_replica_ready").await == 0).await;
}
