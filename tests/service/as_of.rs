//! An answer for a past time rests on what had happened by then, whenever it is asked for.

use prost_types::Timestamp;
use rapport::{domain::Kind, rpc::pb, scoring::DEFAULT};

use crate::{
    harness::{Client, act, after, client, connection, day, rank, record},
    history::{PERSONS, history},
    oracle::{Oracle, assert_same, from_wire},
};

/// What everybody sees of everybody as of a time.
async fn everything(client: &mut Client, as_of: Timestamp) -> Vec<pb::Connection> {
    let mut all = Vec::new();
    for person in PERSONS {
        all.extend(rank(client, person, as_of).await);
        for peer in PERSONS.iter().filter(|peer| **peer != person) {
            all.push(connection(client, person, peer, as_of).await);
        }
    }
    all
}

fn assert_all_same(found: &[pb::Connection], wanted: &[pb::Connection], context: &str) {
    assert_eq!(found.len(), wanted.len(), "{context}");
    found.iter().zip(wanted).for_each(|(found, wanted)| assert_same(found, wanted, context));
}

#[tokio::test]
async fn a_past_answer_stays_what_it_was() {
    let mut client = client();
    let mut acts: Vec<_> =
        history(77, 120).into_iter().filter(|item| item.sound).map(|item| item.interaction).collect();
    acts.sort_by_key(|act| act.interaction_time.map(|time| (time.seconds, time.nanos)));
    acts.dedup_by_key(|act| act.interaction_id.clone());
    let mut seen = std::collections::HashSet::new();
    acts.retain(|act| seen.insert(act.interaction_id.clone()));
    let later = acts.split_off(acts.len() / 2);
    let then = acts[acts.len() - 1].interaction_time.unwrap();
    for act in acts {
        record(&mut client, act).await;
    }
    let before = everything(&mut client, then).await;
    assert!(before.iter().any(|connection| !connection.their_interaction_counts.is_empty()));
    let later: Vec<_> = later.into_iter().filter(|act| act.interaction_time != Some(then)).collect();
    for act in later {
        record(&mut client, act).await;
    }
    assert_all_same(&everything(&mut client, then).await, &before, "asked again after more had happened");
}

#[tokio::test]
async fn what_arrives_late_changes_the_past_as_if_it_had_been_there() {
    let mut client = client();
    let in_time = [
        act(Kind::Promise, "bob", "ada", day(1)),
        act(Kind::Help, "bob", "ada", day(3)),
        act(Kind::Message, "ada", "bob", day(9)),
        act(Kind::Help, "cleo", "ada", day(4)),
        act(Kind::Help, "dan", "cleo", day(5)),
        act(Kind::Message, "bob", "ada", day(30)),
    ];
    for act in &in_time {
        record(&mut client, act.clone()).await;
    }
    let then = day(20);
    let before =
        (connection(&mut client, "ada", "bob", then).await, connection(&mut client, "cleo", "dan", then).await);
    let kept = pb::Interaction {
        refers_to: in_time[0].interaction_id.clone(),
        ..act(Kind::PromiseKept, "bob", "ada", after(day(3), 60))
    };
    let late =
        [act(Kind::Introduction, "bob", "ada", after(day(3), -60)), act(Kind::Help, "bob", "ada", day(12)), kept];
    for act in &late {
        record(&mut client, act.clone()).await;
    }
    let oracle = Oracle::new(in_time.iter().chain(&late));
    let found = (connection(&mut client, "ada", "bob", then).await, connection(&mut client, "cleo", "dan", then).await);
    assert_same(&found.0, &oracle.connection("ada", "bob", from_wire(then)), "late");
    assert!(found.0.they_would_help.unwrap().lower > before.0.they_would_help.unwrap().lower);
    assert_same(&found.1, &before.1, "two whom it does not concern");
    // Another peer of one of the two is concerned as far as more went on around that one.
    let cleo = connection(&mut client, "ada", "cleo", then).await;
    assert_same(&cleo, &oracle.connection("ada", "cleo", from_wire(then)), "more went on around the owner");
    for days in [0, 1, 2, 3, 11, 12, 13, 40] {
        let found = connection(&mut client, "ada", "bob", day(days)).await;
        assert_same(&found, &oracle.connection("ada", "bob", from_wire(day(days))), &format!("day {days}"));
    }
}

#[tokio::test]
async fn in_the_far_future_nothing_is_left_but_the_prior() {
    let mut client = client();
    for days in 0..10 {
        record(&mut client, act(Kind::Help, "bob", "ada", day(days))).await;
        record(&mut client, act(Kind::Help, "ada", "bob", day(days))).await;
    }
    let stranger = connection(&mut client, "ada", "nobody", day(10)).await.they_would_help.unwrap();
    assert!((stranger.probability - DEFAULT.prior).abs() < 1e-12);
    let mut last = f64::INFINITY;
    for days in [10, 40, 400, 4000, 100_000] {
        let bob = connection(&mut client, "ada", "bob", day(days)).await;
        let probability = bob.they_would_help.unwrap().probability;
        assert!(probability < last && probability > stranger.probability - 1e-12, "{days} days");
        last = probability;
        let status = if days <= 10 { pb::ConnectionStatus::Real } else { pb::ConnectionStatus::Fading };
        assert!(days == 40 || bob.status() == status, "{days} days: {:?}", bob.status());
        assert_eq!((bob.their_interaction_counts[0].count, bob.last_interaction_time), (10, Some(day(9))));
    }
    let bob = connection(&mut client, "ada", "bob", day(100_000)).await.they_would_help.unwrap();
    for (faded, unknown) in
        [(bob.probability, stranger.probability), (bob.lower, stranger.lower), (bob.upper, stranger.upper)]
    {
        assert!((faded - unknown).abs() < 1e-9);
    }
}

#[tokio::test]
async fn somebody_unknown_has_no_connections_and_two_strangers_have_one() {
    let mut client = client();
    record(&mut client, act(Kind::Help, "bob", "ada", day(0))).await;
    assert!(rank(&mut client, "nobody", day(1)).await.is_empty());
    let strangers = Oracle::default().connection("nobody", "bob", from_wire(day(1)));
    assert_eq!(strangers.status(), pb::ConnectionStatus::Unknown);
    assert_eq!((strangers.first_interaction_time, strangers.last_interaction_time), (None, None));
    assert_same(&connection(&mut client, "nobody", "bob", day(1)).await, &strangers, "one is unknown");
    // Before they met they were strangers too.
    let strangers = Oracle::default().connection("ada", "bob", from_wire(day(-1)));
    assert_same(&connection(&mut client, "ada", "bob", day(-1)).await, &strangers, "before they met");
    assert!(rank(&mut client, "ada", after(day(0), -1)).await.is_empty());
    assert_eq!(rank(&mut client, "ada", day(0)).await.len(), 1);
}

/// Whose willingness is held down by something left open.
async fn left_open(client: &mut Client, as_of: Timestamp) -> Vec<pb::WillingnessDirection> {
    let bob = connection(client, "ada", "bob", as_of).await;
    let open = bob.reasons.iter().filter(|reason| reason.factor() == pb::ReasonFactor::LeftOpen);
    open.map(|reason| {
        assert!(reason.contribution < 0.0 && reason.interaction_ids.len() == 1);
        reason.willingness()
    })
    .collect()
}

#[tokio::test]
async fn what_is_left_open_speaks_up_only_after_the_day_it_was_due_and_until_it_is_settled() {
    let (theirs, yours) = (pb::WillingnessDirection::TheyWouldHelp, pb::WillingnessDirection::YouWouldHelp);
    for (settling, settled_by) in [(Kind::PromiseKept, "bob"), (Kind::PromiseReleased, "ada")] {
        let mut client = client();
        let promise = pb::Interaction { due_time: Some(day(10)), ..act(Kind::Promise, "bob", "ada", day(0)) };
        record(&mut client, promise.clone()).await;
        assert_eq!(left_open(&mut client, after(day(11), -1)).await, []);
        assert_eq!(left_open(&mut client, day(11)).await, [theirs]);
        let other = if settled_by == "bob" { "ada" } else { "bob" };
        let refers_to = promise.interaction_id;
        let settled = pb::Interaction { refers_to, ..act(settling, settled_by, other, day(20)) };
        record(&mut client, settled).await;
        assert_eq!(left_open(&mut client, day(10)).await, []);
        assert_eq!(left_open(&mut client, after(day(20), -1)).await, [theirs]);
        assert_eq!(left_open(&mut client, day(20)).await, []);
    }
    // An ask without a due time waits for two weeks; it is the one asked whose willingness it speaks of.
    let mut client = client();
    record(&mut client, act(Kind::Ask, "bob", "ada", day(0))).await;
    assert_eq!(left_open(&mut client, after(day(15), -1)).await, []);
    assert_eq!(left_open(&mut client, day(15)).await, [yours]);
    // A promise without one never falls due, and one that was kept is not left open: neither is named.
    let promise = act(Kind::Promise, "ada", "bob", day(0));
    let refers_to = promise.interaction_id.clone();
    record(&mut client, promise).await;
    record(&mut client, pb::Interaction { refers_to, ..act(Kind::PromiseKept, "ada", "bob", day(1)) }).await;
    record(&mut client, act(Kind::Promise, "ada", "bob", day(0))).await;
    assert_eq!(left_open(&mut client, day(3000)).await, [yours]);
}

type Words = &'static [&'static str];

/// The peers whom a ranking of "ada" admits, by id.
async fn admitted(client: &mut Client, channels: &[&str], topics: &[&str], as_of: Timestamp) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let request = pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        channels: words(channels),
        topics: words(topics),
        as_of_time: Some(as_of),
        ..Default::default()
    };
    let answer = client.rank_connections(request).await.unwrap().into_inner();
    let mut peers: Vec<_> = answer.connections.into_iter().map(|connection| connection.peer).collect();
    peers.sort();
    peers
}

#[tokio::test]
async fn channels_and_topics_count_from_when_they_were_used() {
    let mut client = client();
    let said = |actor: &str, recipient: &str, days, channel: &str, topics: &[&str]| pb::Interaction {
        channel: channel.to_owned(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        ..act(Kind::Message, actor, recipient, day(days))
    };
    for act in [
        said("bob", "ada", 1, "email", &["rust"]),
        said("bob", "ada", 5, "chat", &["go"]),
        said("ada", "cleo", 3, "chat", &["rust", "zig"]),
        said("dan", "ada", 9, "", &[]),
        said("dan", "eve", 1, "email", &["rust"]),
    ] {
        record(&mut client, act).await;
    }
    let wanted: [(Words, Words, i64, Words); 11] = [
        (&[], &[], 9, &["bob", "cleo", "dan"]),
        (&["email"], &[], 0, &[]),
        (&["email"], &[], 1, &["bob"]),
        (&["chat"], &[], 4, &["cleo"]),
        (&["chat"], &[], 5, &["bob", "cleo"]),
        (&["email", "chat"], &[], 4, &["bob", "cleo"]),
        (&[], &["rust"], 2, &["bob"]),
        (&[], &["rust", "go"], 9, &["bob", "cleo"]),
        // One and the same act has to match both.
        (&["chat"], &["rust"], 9, &["cleo"]),
        (&["email"], &["go"], 9, &[]),
        (&["fax"], &[], 9, &[]),
    ];
    for (channels, topics, days, peers) in wanted {
        assert_eq!(admitted(&mut client, channels, topics, day(days)).await, peers, "{channels:?} {topics:?} {days}");
    }
}
