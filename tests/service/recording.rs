//! Recording is exactly-once: under concurrency, across replays, in any order.

use rapport::{domain::Kind, rpc::pb, service::Clock};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use crate::harness::{
    act, after, client, client_of, config, connection, database, day, rank, reason, record, start, try_record,
};

#[tokio::test]
async fn the_same_interaction_again_answers_like_the_first_time() {
    let mut client = client();
    let help = act(Kind::Help, "bob", "ada", day(0));
    let first = record(&mut client, help.clone()).await;
    let again = record(&mut client, help.clone()).await;
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.record_time, again.record_time);
    assert_eq!(connection(&mut client, "ada", "bob", day(1)).await.their_interaction_counts[0].count, 1);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused() {
    let mut client = client();
    let help = act(Kind::Help, "bob", "ada", day(0));
    record(&mut client, help.clone()).await;
    let before = rank(&mut client, "ada", day(1)).await;
    let changes: [fn(&mut pb::Interaction); 11] = [
        |act| act.actor = "eve".to_owned(),
        |act| act.recipients.push("eve".to_owned()),
        |act| act.interaction_time = Some(day(-1)),
        |act| act.kind = Kind::Idea.number().into(),
        |act| act.effort = Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        |act| act.audience_count = 7,
        |act| act.channel = "email".to_owned(),
        |act| act.topics = vec!["rust".to_owned()],
        |act| act.goal = "learn rust".to_owned(),
        |act| act.unprompted = true,
        |act| act.refers_to = "something".to_owned(),
    ];
    for change in changes {
        let mut other = help.clone();
        change(&mut other);
        let status = try_record(&mut client, other).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "INTERACTION_CONFLICT"));
    }
    assert_eq!(rank(&mut client, "ada", day(1)).await, before);
}

/// What the database refused has left its place in the table empty.
#[tokio::test]
async fn what_is_repeated_over_and_over_is_refused_by_the_database_once() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    let help = act(Kind::Help, "bob", "ada", day(0));
    assert!(!record(&mut client, help.clone()).await.replayed);
    for _ in 0..5 {
        assert!(record(&mut client, help.clone()).await.replayed);
    }
    record(&mut client, act(Kind::Idea, "bob", "ada", day(0))).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let places: Vec<String> =
        sqlx::query_scalar("SELECT ctid::text FROM ledger ORDER BY ctid").fetch_all(&mut connection).await.unwrap();
    assert_eq!(places, ["(0,1)", "(0,3)"]);
}

#[tokio::test]
async fn order_of_recipients_and_topics_is_no_other_content() {
    let mut client = client();
    let mut idea = act(Kind::Idea, "bob", "ada", day(0));
    idea.recipients.push("cleo".to_owned());
    idea.topics = vec!["a".to_owned(), "b".to_owned()];
    record(&mut client, idea.clone()).await;
    idea.recipients.reverse();
    idea.topics.reverse();
    assert!(record(&mut client, idea).await.replayed);
}

#[tokio::test]
async fn two_hundred_first_recordings_at_once_have_one_effect() {
    // Two servers, so that neither a queue nor a process keeps them apart.
    let url = database(true).await;
    let servers = [start(config(url.clone()), Clock::system()).await, start(config(url), Clock::system()).await];
    let help = act(Kind::Help, "bob", "ada", day(0));
    let calls: Vec<_> = (0..200)
        .map(|number| {
            let (mut client, help) = (client_of(servers[number % 2].address(), "one"), help.clone());
            tokio::spawn(async move { record(&mut client, help).await })
        })
        .collect();
    let mut fresh = 0;
    let mut times = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        fresh += usize::from(!answer.replayed);
        times.push(answer.record_time);
    }
    times.dedup();
    assert_eq!((fresh, times.len()), (1, 1));
    let mut client = client_of(servers[0].address(), "one");
    assert_eq!(connection(&mut client, "ada", "bob", day(1)).await.their_interaction_counts[0].count, 1);
}

#[tokio::test]
async fn many_writers_of_one_tie_lose_nothing() {
    let url = database(true).await;
    let servers = [start(config(url.clone()), Clock::system()).await, start(config(url), Clock::system()).await];
    let calls: Vec<_> = (0..300_i64)
        .map(|number| {
            let mut client = client_of(servers[number as usize % 2].address(), "hot");
            // Every other one is late.
            let time = after(day(number % 20), number * 60);
            let (actor, recipient) = if number % 3 == 0 { ("ada", "bob") } else { ("bob", "ada") };
            tokio::spawn(async move { record(&mut client, act(Kind::Help, actor, recipient, time)).await })
        })
        .collect();
    for call in calls {
        assert!(!call.await.unwrap().replayed);
    }
    let mut client = client_of(servers[0].address(), "hot");
    let kept = connection(&mut client, "ada", "bob", day(40)).await;
    assert_eq!((kept.their_interaction_counts[0].count, kept.your_interaction_counts[0].count), (200, 100));
}

#[tokio::test]
async fn validating_records_nothing_and_answers_as_recording_would() {
    let mut client = client();
    let help = act(Kind::Help, "bob", "ada", day(0));
    let validate = |interaction| pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: true };
    let answer = client.record_interaction(validate(help.clone())).await.unwrap().into_inner();
    assert_eq!(
        (answer.interaction_id, answer.replayed, answer.record_time),
        (help.interaction_id.clone(), false, None)
    );
    assert!(rank(&mut client, "ada", day(1)).await.is_empty());
    let recorded = record(&mut client, help.clone()).await;
    let answer = client.record_interaction(validate(help.clone())).await.unwrap().into_inner();
    assert_eq!((answer.replayed, answer.record_time), (true, recorded.record_time));
    let mut other = help;
    other.unprompted = true;
    let status = client.record_interaction(validate(other)).await.unwrap_err();
    assert_eq!(reason(&status), "INTERACTION_CONFLICT");
}

#[tokio::test]
async fn an_id_is_made_when_none_is_given() {
    let mut client = client();
    let mut help = act(Kind::Help, "bob", "ada", day(0));
    help.interaction_id.clear();
    let ids =
        [record(&mut client, help.clone()).await, record(&mut client, help).await].map(|made| made.interaction_id);
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7)));
}
