//! The ledger is the truth: whatever happens to the tables derived from it, rebuilding finds it, and puts it right when
//! asked to, also while recording goes on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rapport::{
    app::App,
    domain::Kind,
    rpc::pb,
    scoring::DEFAULT,
    service::Clock,
    store::{Difference, Store, Table},
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{Client, act, after, client_of, config, connection, database, day, rank, record, start},
    history::{PERSONS, history},
    oracle::assert_same,
};

/// A database with a history in two tenants, its server, and a client of the first.
async fn recorded() -> (String, App, Client) {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    for tenant in ["other", "one"] {
        let mut client = client_of(app.address(), tenant);
        let mut seen = std::collections::HashSet::new();
        for item in history(5, 80).into_iter().filter(|item| item.sound) {
            if seen.insert(item.interaction.interaction_id.clone()) {
                record(&mut client, item.interaction).await;
            }
        }
        // Asked by somebody who was never answered, and a promise that was kept: nobody acts toward the fans.
        for fan in 0..4 {
            let ask = pb::Interaction {
                interaction_id: format!("ask{fan}"),
                ..act(Kind::Ask, &format!("fan{fan}"), "ada", day(0))
            };
            record(&mut client, ask).await;
        }
    }
    let client = client_of(app.address(), "one");
    (url, app, client)
}

async fn run(url: &str, statement: &'static str) -> u64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected()
}

/// All that is derived, as text.
async fn derived(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let all =
        "SELECT row FROM (SELECT 1 AS part, tie::text AS row FROM tie UNION ALL SELECT 2, rhythm::text FROM rhythm
               UNION ALL SELECT 3, commitment::text FROM commitment) AS rows ORDER BY part, row COLLATE \"C\"";
    sqlx::query_scalar(all).fetch_all(&mut connection).await.unwrap()
}

async fn rankings(client: &mut Client) -> Vec<pb::Connection> {
    let mut all = Vec::new();
    for person in PERSONS {
        all.extend(rank(client, person, day(400)).await);
        all.push(connection(client, person, "fan1", day(400)).await);
    }
    all
}

/// Damage, what is damaged by it, how, and in how many rows.
const DAMAGE: [(&str, Table, Difference, u64); 16] = [
    (
        "UPDATE tie SET evidence[4] = evidence[4] + 1e-6 WHERE tenant = 'one' AND actor = 'ada' AND recipient = 'bob'",
        Table::Tie,
        Difference::Wrong,
        1,
    ),
    ("UPDATE tie SET counts[6] = counts[6] + 1 WHERE tenant = 'one' AND actor = 'bob'
          AND recipient IN ('ada', 'cleo')", Table::Tie, Difference::Wrong, 2),
    ("UPDATE tie SET today[1] = today[1] + 1 WHERE actor = 'cleo' AND recipient = 'ada'", Table::Tie, Difference::Wrong, 2),
    ("UPDATE tie SET first_time = first_time - interval '1 us' WHERE tenant = 'other' AND actor = 'bob'
          AND recipient = 'ada'", Table::Tie, Difference::Wrong, 1),
    ("DELETE FROM tie WHERE tenant = 'one' AND actor IN ('fan0', 'dörte') AND recipient = 'ada'", Table::Tie, Difference::Missing, 2),
    ("INSERT INTO tie SELECT tenant, 'ghost', actor, first_time, last_time, counts, today, evidence FROM tie
          WHERE tenant = 'one' AND recipient = 'ada' AND actor IN ('bob', 'fan2')", Table::Tie, Difference::Extra, 2),
    ("INSERT INTO tie SELECT 'zzz', actor, recipient, first_time, last_time, counts, today, evidence FROM tie
          WHERE tenant = 'one' AND recipient = 'ada' AND actor = 'bob'", Table::Tie, Difference::Extra, 1),
    ("UPDATE rhythm SET days[2] = days[2] * 1.001 WHERE tenant = 'one' AND person = 'ada'", Table::Rhythm, Difference::Wrong, 1),
    ("UPDATE rhythm SET last_time = last_time + interval '1 us' WHERE person = 'bob'", Table::Rhythm, Difference::Wrong, 2),
    ("DELETE FROM rhythm WHERE tenant = 'one' AND person IN ('cleo', 'fan3')", Table::Rhythm, Difference::Missing, 2),
    ("INSERT INTO rhythm SELECT tenant, 'ghost', last_time, days, day FROM rhythm
          WHERE person = 'ada'", Table::Rhythm, Difference::Extra, 2),
    ("UPDATE commitment SET due_time = due_time + interval '1 day' WHERE tenant = 'one'
          AND commitment_id IN ('ask0', 'ask1')", Table::Commitment, Difference::Wrong, 2),
    ("UPDATE commitment SET group_size = 99 WHERE (tenant, committed, counterpart, commitment_id) IN
          (SELECT tenant, committed, counterpart, commitment_id FROM commitment
           WHERE tenant = 'other' AND commitment_id LIKE 'i%' ORDER BY 1, 2, 3, 4 LIMIT 3)", Table::Commitment, Difference::Wrong, 3),
    ("DELETE FROM commitment WHERE tenant = 'one' AND commitment_id IN ('ask2', 'ask3')", Table::Commitment, Difference::Missing, 2),
    ("DELETE FROM commitment WHERE (tenant, committed, counterpart, commitment_id) IN
          (SELECT tenant, committed, counterpart, commitment_id FROM commitment
           WHERE tenant = 'one' AND commitment_id LIKE 'i%' ORDER BY 1, 2, 3, 4 LIMIT 3)", Table::Commitment, Difference::Missing, 3),
    ("INSERT INTO commitment SELECT tenant, committed, counterpart, 'ghost', made_time, due_time, group_size FROM commitment
          WHERE commitment_id = 'ask1' UNION ALL SELECT 'one', 'nobody', 'ada', 'ghost', NULL, NULL, 1
          UNION ALL SELECT 'one', 'ada', 'bob', 'ghost', NULL, NULL, 1", Table::Commitment, Difference::Extra, 4),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_damage_is_found_and_put_right() {
    let (url, _app, mut client) = recorded().await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let sound = store.rebuild(false, |_| {}).await.unwrap();
    assert!(sound.differences.is_empty(), "{:?}", sound.differences);
    let before = rankings(&mut client).await;
    let mut wanted = std::collections::BTreeMap::new();
    for (statement, table, difference, rows) in DAMAGE {
        assert_eq!(run(&url, statement).await, rows, "{statement}");
        *wanted.entry((table, difference)).or_insert(0) += rows;
    }
    let damaged = derived(&url).await;
    assert_eq!(store.rebuild(false, |_| {}).await.unwrap().differences, wanted);
    assert_eq!(derived(&url).await, damaged, "looking changes nothing");
    let mut steps = 0;
    assert_eq!(store.rebuild(true, |_| steps += 1).await.unwrap().differences, wanted);
    assert!(steps >= 2, "both ties and rhythms tell how it goes");
    for repair in [true, false] {
        assert_eq!(store.rebuild(repair, |_| {}).await.unwrap().differences, [].into());
    }
    let after = rankings(&mut client).await;
    assert_eq!(after.len(), before.len());
    after.iter().zip(&before).for_each(|(after, before)| assert_same(after, before, "put right"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_derived_can_be_derived_from_nothing() {
    let (url, _app, mut client) = recorded().await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let before = rankings(&mut client).await;
    let rows = derived(&url).await.len() as u64;
    run(&url, "TRUNCATE tie, rhythm, commitment").await;
    let rebuilt = store.rebuild(true, |_| {}).await.unwrap();
    assert!(rebuilt.differences.keys().all(|(_, difference)| *difference == Difference::Missing));
    assert_eq!(rebuilt.differences.values().sum::<u64>(), rows);
    let after = rankings(&mut client).await;
    assert_eq!(after.len(), before.len());
    after.iter().zip(&before).for_each(|(after, before)| assert_same(after, before, "from nothing"));
    assert!(store.rebuild(false, |_| {}).await.unwrap().differences.is_empty());
}

/// Records something new after a while.
async fn write(server: SocketAddr, interaction: pb::Interaction, pause_millis: u64) {
    tokio::time::sleep(Duration::from_millis(pause_millis)).await;
    assert!(!record(&mut client_of(server, "one"), interaction).await.replayed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilding_while_recording_goes_on_finds_nothing_and_loses_nothing() {
    let (url, app, _) = recorded().await;
    let other = start(config(url.clone()), Clock::system()).await;
    // Pairs that are there one way, and come to be there the other way while they are compared.
    let begun = (0..225).map(|number| act(Kind::Message, "ada", &format!("peer{number}"), day(1)));
    let begun: Vec<_> = begun.map(|act| tokio::spawn(write(app.address(), act, 0))).collect();
    for call in begun {
        call.await.unwrap();
    }
    let written = Arc::new(AtomicBool::new(false));
    let rebuilding = {
        let (written, store) = (Arc::clone(&written), Store::new(&url, 2, &DEFAULT).unwrap());
        tokio::spawn(async move {
            let mut runs = 0;
            // Once beside what is recorded, and once more however long that took.
            while runs < 2 || !written.load(Ordering::Relaxed) {
                let found = store.rebuild(true, |_| {}).await.unwrap();
                assert_eq!(found.differences, [].into(), "run {runs}");
                runs += 1;
            }
        })
    };
    let calls: Vec<_> = (0..675_u64)
        .map(|number| {
            let server = if number.is_multiple_of(2) { app.address() } else { other.address() };
            let (time, peer) = (after(day(number as i64 % 15), number as i64), format!("peer{}", number / 3));
            let interaction = match number % 3 {
                0 => act(Kind::Ask, &peer, "ada", time),
                1 => act(Kind::Promise, &peer, "ada", time),
                _ => act(Kind::Help, "eve", "ada", time),
            };
            tokio::spawn(write(server, interaction, number * 3))
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    written.store(true, Ordering::Relaxed);
    rebuilding.await.unwrap();
    let mut client = client_of(app.address(), "one");
    let eve = connection(&mut client, "ada", "eve", day(30)).await;
    assert_eq!(eve.their_interaction_counts[0].count, 225);
    let mut request = pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        as_of_time: Some(day(400)),
        page_size: 100,
        explain: true,
        ..Default::default()
    };
    let mut seen = 0;
    while seen == 0 || !request.page_token.is_empty() {
        let page = client.rank_connections(request.clone()).await.unwrap().into_inner();
        for peer in page.connections.iter().filter(|connection| connection.peer.starts_with("peer")) {
            let open = peer.reasons.iter().filter(|reason| reason.factor() == pb::ReasonFactor::LeftOpen).count();
            assert_eq!((peer.their_interaction_counts.len(), peer.your_interaction_counts.len(), open), (2, 1, 1));
            seen += 1;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, 225);
}
