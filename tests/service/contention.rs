//! Callers who hang up, entries that the database refuses, and servers in each other's way.

use std::time::Duration;

use rapport::{config::Config, domain::Kind, rpc::pb, service::Clock};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::{
    feed::{assert_derived, assert_exactly, item},
    harness::{
        Client, act, after, all_folded, client, client_of, config, database, databases, day, eventually, reason,
        record, start, try_record,
    },
    process::{random, random_pause},
};

#[tokio::test]
async fn callers_who_hang_up_leave_a_clean_pool() {
    const MAX_CONNECTIONS: u32 = 4;
    let url = database(true).await;
    let server =
        start(Config { databases: databases(url.clone(), MAX_CONNECTIONS), ..config(url.clone()) }, Clock::system())
            .await;
    let client = client_of(server.address(), "impatient");
    let callers: Vec<_> = (0..4).map(|number| tokio::spawn(call_and_hang_up(client.clone(), number))).collect();
    let (mut acknowledged, mut dropped) = (Vec::new(), 0);
    for caller in callers {
        let (ids, hung_up) = caller.await.unwrap();
        acknowledged.extend(ids);
        dropped += hung_up;
    }
    println!("{dropped} of 2000 calls were dropped, {} were acknowledged", acknowledged.len());
    assert!(dropped > 100);

    timeout(Duration::from_secs(3), record(&mut client.clone(), item("last", 0))).await.expect("a prompt answer");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    eventually("all connections rest", async || {
        let states = states(&mut connection).await;
        // One more is for probes.
        assert!(states.len() <= MAX_CONNECTIONS as usize + 1, "{states:?}");
        states.iter().all(|state| state == "idle")
    })
    .await;
    let found: Vec<String> =
        sqlx::query_scalar("SELECT interaction_id FROM ledger").fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(acknowledged.iter().all(|id| found.contains(id)));
    assert_derived(&url).await;
}

#[tokio::test]
async fn callers_who_hang_up_together_fail_nobody_else() {
    let client = client();
    let impatient = client.clone();
    let hanging_up = tokio::spawn(async move {
        for round in 0..20 {
            let calls: Vec<_> = (0..50)
                .map(|number| {
                    let mut client = impatient.clone();
                    tokio::spawn(async move { try_record(&mut client, item("given up", round * 50 + number)).await })
                })
                .collect();
            sleep(random_pause(3)).await;
            calls.iter().for_each(tokio::task::JoinHandle::abort);
        }
    });
    for number in 0..30 {
        record(&mut client.clone(), item("patient", number)).await;
    }
    hanging_up.await.unwrap();
}

/// What the server's connections are doing.
async fn states(connection: &mut PgConnection) -> Vec<String> {
    let states = sqlx::query_scalar(
        "SELECT state FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    );
    states.fetch_all(connection).await.unwrap()
}

/// Makes 500 calls, each for a moment only; returns what was acknowledged, and how many calls were not waited for.
async fn call_and_hang_up(mut client: Client, number: u64) -> (Vec<String>, u32) {
    let (mut acknowledged, mut dropped) = (Vec::new(), 0);
    for round in 0..500 {
        let patience = random_pause(20);
        let person = format!("person {}", random(8));
        let is_done = match round % 3 {
            0 => {
                let help = item(&format!("caller {number}"), round);
                let answer = timeout(patience, try_record(&mut client, help.clone())).await;
                acknowledged.extend(answer.is_ok().then_some(help.interaction_id));
                answer.map(|answer| drop(answer.unwrap())).is_ok()
            }
            1 => {
                let request = pb::RankConnectionsRequest { person, explain: true, ..Default::default() };
                timeout(patience, client.rank_connections(request)).await.map(|answer| drop(answer.unwrap())).is_ok()
            }
            _ => {
                let request = pb::GetConnectionRequest {
                    person,
                    peer: "ada".to_owned(),
                    as_of_time: Some(day(9)),
                    ..Default::default()
                };
                timeout(patience, client.get_connection(request)).await.map(|answer| drop(answer.unwrap())).is_ok()
            }
        };
        dropped += u32::from(!is_done);
    }
    (acknowledged, dropped)
}

#[tokio::test]
async fn an_entry_that_the_database_refuses_fails_alone() {
    let url = database(true).await;
    raise(&url, "NEW.interaction_id LIKE 'refused %'", "P0001").await;
    let server = start(config(url.clone()), Clock::system()).await;
    let client = client_of(server.address(), "neighbours");
    let calls: Vec<_> = (0..300)
        .map(|number| {
            let item = item(if number == 111 { "refused" } else { "sound" }, number);
            let mut client = client.clone();
            tokio::spawn(async move { (item.interaction_id.clone(), try_record(&mut client, item).await) })
        })
        .collect();
    let mut recorded = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            (id, Ok(_)) => recorded.push(id),
            (id, Err(status)) => {
                assert!(id.starts_with("refused"), "{id}: {status:?}");
                assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
                assert_eq!(status.message(), "an internal error occurred");
                assert!(!String::from_utf8_lossy(status.details()).contains("secret"));
            }
        }
    }
    assert_eq!(recorded.len(), 299);
    assert_exactly(&url, "neighbours", recorded).await;
}

#[tokio::test]
async fn a_transaction_that_loses_a_conflict_is_tried_again() {
    let url = database(true).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE SEQUENCE tries").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let server = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(server.address(), "conflicts");
    let mut ids = Vec::new();
    // Deadlock, serialization failure, lock timeout. A sequence does not roll back: two tries of three fail.
    for (number, code) in ["40P01", "40001", "55P03"].into_iter().enumerate() {
        raise(&url, "nextval('tries') % 3 <> 0", code).await;
        let help = item("conflict", number as i64);
        assert!(!record(&mut client, help.clone()).await.replayed, "{code}");
        ids.push(help.interaction_id);
    }
    assert_exactly(&url, "conflicts", ids).await;
}

/// From now on the database refuses, with this code, ledger rows of which the condition is true.
async fn raise(url: &str, condition: &str, code: &str) {
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF {condition} THEN RAISE EXCEPTION 'the innermost secret' USING ERRCODE = '{code}'; END IF;
             RETURN NEW;
         END $$;
         CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn two_servers_in_each_others_way_fail_no_call() {
    const OUTCOMES: [(Kind, Kind); 5] = [
        (Kind::Promise, Kind::PromiseKept),
        (Kind::Promise, Kind::PromiseBroken),
        (Kind::Promise, Kind::PromiseReleased),
        (Kind::Ask, Kind::AskGranted),
        (Kind::Ask, Kind::AskDeclined),
    ];
    let url = database(true).await;
    let servers =
        [start(config(url.clone()), Clock::system()).await, start(config(url.clone()), Clock::system()).await];
    let clients = servers.each_ref().map(|server| client_of(server.address(), "crowd"));
    // So many that every transaction meets others, and so few that there are many transactions.
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let mut clients = [0, 1].map(|offset| clients[(worker + offset) % 2].clone());
            tokio::spawn(async move {
                let mut replayed = 0;
                for number in (worker..480).step_by(16) {
                    let (made, outcome) = OUTCOMES[number % OUTCOMES.len()];
                    replayed += make_and_settle(&mut clients, made, outcome, number).await;
                }
                replayed
            })
        })
        .collect();
    let mut replayed = 0;
    for worker in workers {
        replayed += worker.await.unwrap();
    }
    assert_eq!(replayed, 960);
    assert_derived(&url).await;
}

/// However often others are first to begin a tie, it is folded as soon as they are not: what is not folded weighs on every
/// ranking.
#[tokio::test]
async fn ties_that_others_begin_again_and_again_are_folded_all_the_same() {
    let url = database(true).await;
    let mut operator = PgConnection::connect(&url).await.unwrap();
    // As if they had begun it. A sequence does not roll back.
    let begun = "CREATE SEQUENCE tries;
                 CREATE FUNCTION begun() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF nextval('tries') <= 12 THEN RAISE unique_violation; END IF; RETURN NEW; END $$;
                 CREATE TRIGGER begun BEFORE INSERT ON tie FOR EACH ROW EXECUTE FUNCTION begun()";
    sqlx::raw_sql(begun).execute(&mut operator).await.unwrap();
    let server = start(config(url.clone()), Clock::system()).await;
    record(&mut client_of(server.address(), "racing"), item("raced", 0)).await;
    timeout(Duration::from_secs(4), all_folded(&url)).await.expect("whoever races is not left alone");
    let tries: i64 = sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&mut operator).await.unwrap();
    assert_eq!(tries, 13);
    assert_derived(&url).await;
}

/// Servers take turns at folding for a tenant, and nobody who records or asks waits for that.
#[tokio::test]
async fn servers_take_turns_at_a_tenant() {
    let url = database(true).await;
    let [mut folding, mut watching] =
        [PgConnection::connect(&url).await.unwrap(), PgConnection::connect(&url).await.unwrap()];
    // What servers of any version agree on.
    let turn = i64::from_le_bytes(blake3::hash(b"folding of shared").as_bytes()[..8].try_into().unwrap());
    let mut other = folding.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(turn).execute(&mut *other).await.unwrap();
    let server = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(server.address(), "shared");
    record(&mut client, item("waiting", 0)).await;
    eventually("its turn is waited for", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching).await.unwrap() == 1
    })
    .await;
    let act = item("waiting", 0);
    record(&mut client, item("waiting", 1)).await;
    let ranked = client.rank_connections(pb::RankConnectionsRequest { person: act.actor, ..Default::default() });
    assert_eq!(ranked.await.unwrap().into_inner().connections[0].peer, act.recipients[0]);
    other.commit().await.unwrap();
    all_folded(&url).await;
    assert_derived(&url).await;
}

/// Records a commitment and its outcome at once, on different servers, and both again on the other one; returns how many
/// answers said that it was again.
async fn make_and_settle([one, other]: &mut [Client; 2], made: Kind, outcome: Kind, number: usize) -> usize {
    let time = after(day(random(30) as i64), number as i64);
    let commitment = group(made, number, time);
    let mut settled = group(outcome, number, after(time, 3600));
    settled.refers_to.clone_from(&commitment.interaction_id);
    if made == Kind::Ask {
        // Whoever was asked answers.
        settled.actor.clone_from(&commitment.recipients[0]);
        settled.recipients = vec![commitment.actor.clone()];
    }
    let again = (commitment.clone(), settled.clone());
    let first = tokio::join!(record(one, commitment), record(other, settled));
    let second = tokio::join!(record(other, again.0), record(one, again.1));
    [first.0, first.1, second.0, second.1].into_iter().filter(|answer| answer.replayed).count()
}

/// Something among four of six people, in any direction.
fn group(kind: Kind, number: usize, time: prost_types::Timestamp) -> pb::Interaction {
    let mut people: Vec<String> = (0..6).map(|person| format!("person {person}")).collect();
    people.rotate_left(number % 6);
    if number.is_multiple_of(2) {
        people.reverse();
    }
    pb::Interaction { recipients: people[1..4].to_vec(), ..act(kind, &people[0], "", time) }
}
