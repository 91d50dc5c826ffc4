//! Recording by stream: acknowledged in order, resumable, bounded, and one bad item harms no other.

use std::{net::SocketAddr, time::Duration};

use prost::Message as _;
use rapport::{
    domain::Kind,
    rpc::pb::{self, relationship_service_client::RelationshipServiceClient},
    service::Clock,
};
use sqlx::{Connection as _, PgConnection};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::{
    harness::{Client, act, after, client, client_of, config, connection, database, day, record, start},
    wire::{assert_faulty, assert_refused},
};

pub type Item = pb::RecordInteractionsRequest;
type Answer = pb::RecordInteractionsResponse;

fn help(number: i64) -> pb::Interaction {
    act(Kind::Help, "zed-77", "rosa-99", after(day(0), number))
}

fn item(sequence: i64, interaction: pb::Interaction) -> Item {
    Item { sequence, interaction: Some(interaction) }
}

/// Items numbered from 1, all of one tie.
fn items(count: i64) -> Vec<Item> {
    (1..=count).map(|number| item(number, help(number))).collect()
}

/// A stream that items can be put into one by one.
async fn open(client: &mut Client) -> (mpsc::Sender<Item>, Streaming<Answer>) {
    let (items, sent) = mpsc::channel(1);
    (items, client.record_interactions(ReceiverStream::new(sent)).await.unwrap().into_inner())
}

/// Sends all items; every acknowledgement, and the error that ended the stream.
async fn send(client: &mut Client, items: Vec<Item>) -> (Vec<Answer>, Option<Status>) {
    let mut stream = client.record_interactions(tokio_stream::iter(items)).await.unwrap().into_inner();
    let mut answers = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

/// What acknowledgements add up to: recorded, replayed, rejected. Asserts that they rise and cover these sequences.
fn add_up(answers: &[Answer], sequences: &[i64]) -> (i64, i64, i64) {
    let (mut sums, mut covered, mut rest) = ((0, 0, 0), 0, sequences);
    for answer in answers {
        assert!(answer.sequence > covered, "{answers:?}");
        covered = answer.sequence;
        let (now, later) = rest.split_at(rest.partition_point(|sequence| *sequence <= covered));
        assert_eq!(now.last(), Some(&covered), "an acknowledgement is of an item");
        let rejected: Vec<i64> = answer.rejections.iter().map(|rejection| rejection.sequence).collect();
        assert!(rejected.is_sorted() && rejected.iter().all(|sequence| now.contains(sequence)));
        assert_eq!(answer.recorded_count + answer.replayed_count + rejected.len() as i64, now.len() as i64);
        sums.0 += answer.recorded_count;
        sums.1 += answer.replayed_count;
        sums.2 += rejected.len() as i64;
        rest = later;
    }
    assert!(rest.is_empty(), "everything is acknowledged");
    sums
}

/// How often zed helped rosa.
async fn count(client: &mut Client) -> i64 {
    let kept = connection(client, "zed-77", "rosa-99", day(9)).await;
    kept.your_interaction_counts.first().map_or(0, |count| count.count)
}

fn status_of(rejection: &pb::Rejection) -> Status {
    let status = rejection.status.as_ref().unwrap();
    let code = Code::from(status.code);
    Status::with_details(code, status.message.clone(), status.encode_to_vec().into())
}

#[tokio::test]
async fn acknowledgements_come_in_order_and_a_bad_item_is_rejected_alone() {
    let mut client = client();
    let known = help(0);
    record(&mut client, known.clone()).await;
    let conflict = pb::Interaction { unprompted: true, ..known.clone() };
    let faulty = pb::Interaction { actor: "rosa-99".to_owned(), kind: 0, ..help(1) };
    // Sequences may leap.
    let sequences = [1, 2, 3, 10, 11, 12, 13, 1 << 40, i64::MAX];
    let overlong = pb::Interaction { interaction_id: "i".repeat(129), ..help(4) };
    let contents = [
        help(1),
        known.clone(),
        faulty.clone(),
        help(2),
        conflict.clone(),
        help(3),
        overlong,
        known,
        pb::Interaction::default(),
    ];
    let items = sequences.into_iter().zip(contents).map(|(sequence, content)| item(sequence, content)).collect();
    let (answers, ended) = send(&mut client, items).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(add_up(&answers, &sequences), (3, 2, 4));
    assert_eq!(count(&mut client).await, 4);

    let rejections: Vec<_> = answers.iter().flat_map(|answer| &answer.rejections).collect();
    let found: Vec<_> =
        rejections.iter().map(|rejection| (rejection.sequence, rejection.interaction_id.as_str())).collect();
    assert_eq!(
        found,
        [(3, faulty.interaction_id.as_str()), (11, conflict.interaction_id.as_str()), (13, ""), (i64::MAX, "")]
    );
    let given = ["zed-77", "rosa-99"];
    assert_faulty(&status_of(rejections[0]), &["interaction.recipients[0]", "interaction.kind"], &given);
    assert_refused(&status_of(rejections[1]), Code::AlreadyExists, "INTERACTION_CONFLICT", &given);
    assert_faulty(&status_of(rejections[2]), &["interaction.interaction_id"], &given);
    let required = ["actor", "recipients", "interaction_time", "kind"].map(|field| format!("interaction.{field}"));
    assert_faulty(&status_of(rejections[3]), &required.each_ref().map(String::as_str), &given);
}

#[tokio::test]
async fn an_item_without_an_interaction_is_rejected_as_a_single_call_would_be() {
    let mut client = client();
    let (answers, ended) = send(&mut client, vec![Item { sequence: 1, interaction: None }]).await;
    assert!(ended.is_none());
    let request = pb::RecordInteractionRequest::default();
    let single = client.record_interaction(request).await.unwrap_err();
    let rejected = status_of(&answers[0].rejections[0]);
    assert_eq!(
        (rejected.code(), rejected.message(), rejected.details()),
        (single.code(), single.message(), single.details())
    );
}

#[tokio::test]
async fn the_same_id_twice_in_a_stream_is_recorded_once() {
    let mut client = client();
    let help = help(0);
    let items = (1..=3).map(|sequence| item(sequence, help.clone())).collect();
    assert_eq!(add_up(&send(&mut client, items).await.0, &[1, 2, 3]), (1, 2, 0));
    assert_eq!(count(&mut client).await, 1);
}

#[tokio::test]
async fn an_empty_stream_ends_well() {
    let (answers, ended) = send(&mut client(), Vec::new()).await;
    assert!(answers.is_empty() && ended.is_none());
}

#[tokio::test]
async fn every_item_is_acknowledged_without_waiting_for_more() {
    let mut client = client();
    let (items, mut answers) = open(&mut client).await;
    for number in 1..=50 {
        items.send(item(number, help(number))).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.sequence, answer.recorded_count), (number, 1));
    }
    drop(items);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn sequences_that_do_not_rise_end_the_stream_after_what_came_before() {
    for (sequences, sound) in [(&[0][..], 0), (&[-1], 0), (&[i64::MIN], 0), (&[3, 5, 5, 6], 2), (&[3, 5, 4], 2)] {
        let mut client = client();
        let items = sequences.iter().map(|sequence| item(*sequence, help(*sequence))).collect();
        let (answers, ended) = send(&mut client, items).await;
        assert_eq!(add_up(&answers, &sequences[..sound]), (sound as i64, 0, 0));
        assert_faulty(&ended.unwrap(), &["sequence"], &["zed-77", "rosa-99"]);
        assert_eq!(count(&mut client).await, sound as i64);
    }
}

#[tokio::test]
async fn a_stream_broken_anywhere_is_resumed_without_loss_or_doubles() {
    const COUNT: i64 = 1500;
    let mut client = client();
    let all = items(COUNT);
    let (mut acknowledged, mut sums) = (0, (0, 0));
    for _ in 0..12 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let (patience, sent) = (i64::from(random[0]) * 4, i64::from(random[1]) * 4);
        // As many are sent as chance has it, and once that many are acknowledged, the line breaks.
        let rest: Vec<Item> = all[acknowledged as usize..].iter().take(sent as usize).cloned().collect();
        let (items, mut answers) = open(&mut client).await;
        let sending = tokio::spawn(async move {
            for item in rest {
                if items.send(item).await.is_err() {
                    return;
                }
            }
        });
        let before = acknowledged;
        while acknowledged < before + patience {
            let Some(answer) = answers.message().await.unwrap() else { break };
            acknowledged = answer.sequence;
            sums = (sums.0 + answer.recorded_count, sums.1 + answer.replayed_count);
        }
        sending.abort();
    }
    let rest = all[acknowledged as usize..].to_vec();
    let sequences: Vec<i64> = rest.iter().map(|item| item.sequence).collect();
    let (answers, ended) = send(&mut client, rest).await;
    assert!(ended.is_none());
    let last = add_up(&answers, &sequences);
    assert_eq!(sums.0 + sums.1 + last.0 + last.1, COUNT, "every item is acknowledged once");
    assert_eq!(count(&mut client).await, COUNT);
    let (answers, _) = send(&mut client, all).await;
    assert_eq!(answers.iter().map(|answer| answer.replayed_count).sum::<i64>(), COUNT);
}

#[tokio::test]
async fn twenty_thousand_items_go_through_a_bounded_window() {
    const COUNT: i64 = 20_000;
    const WINDOW: i64 = 2000;
    let mut client = client();
    let (items, mut answers) = open(&mut client).await;
    let acknowledged = tokio::sync::watch::channel(0);
    let mut window = acknowledged.1;
    let sending = tokio::spawn(async move {
        for number in 1..=COUNT {
            window.wait_for(|acknowledged| number - acknowledged <= WINDOW).await.unwrap();
            let recipient = format!("peer{}", number % 500);
            let interaction = act(Kind::Message, "zed-77", &recipient, after(day(0), number));
            items.send(item(number, interaction)).await.unwrap();
        }
    });
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let _ = acknowledged.0.send(answer.sequence);
        all.push(answer);
    }
    sending.await.unwrap();
    assert_eq!(add_up(&all, &(1..=COUNT).collect::<Vec<_>>()), (COUNT, 0, 0));
    let one = connection(&mut client, "zed-77", "peer7", day(1)).await;
    assert_eq!(one.your_interaction_counts[0].count, COUNT / 500);
}

#[tokio::test]
async fn streams_at_once_on_one_tie_give_exact_counts() {
    const STREAMS: i64 = 6;
    const COUNT: i64 = 400;
    let url = database(true).await;
    let servers = [start(config(url.clone()), Clock::system()).await, start(config(url), Clock::system()).await];
    // All of them send what they share as well.
    let shared = items(COUNT);
    let streams: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let mut client = client_of(servers[stream as usize % 2].address(), "one");
            let own = (1..=COUNT).map(|number| item(COUNT + number, help(stream * COUNT + number)));
            let all = shared.iter().cloned().chain(own).collect();
            tokio::spawn(async move { send(&mut client, all).await })
        })
        .collect();
    let mut sums = (0, 0);
    for stream in streams {
        let (answers, ended) = stream.await.unwrap();
        assert!(ended.is_none(), "{ended:?}");
        let (recorded, replayed, rejected) = add_up(&answers, &(1..=2 * COUNT).collect::<Vec<_>>());
        assert_eq!(rejected, 0);
        sums = (sums.0 + recorded, sums.1 + replayed);
    }
    assert_eq!(sums, (COUNT * (STREAMS + 1), COUNT * (STREAMS - 1)));
    assert_eq!(count(&mut client_of(servers[0].address(), "one")).await, COUNT * (STREAMS + 1));
}

/// An item that is rejected at length.
pub fn long_winded(sequence: i64) -> Item {
    let [recipients, topics] = [100, 16].map(|count| (0..count).map(|number| format!(" {number}")).collect());
    let interaction_id = "i".repeat(128);
    item(sequence, pb::Interaction { recipients, topics, interaction_id, ..help(sequence) })
}

#[tokio::test]
async fn acknowledgements_of_many_long_rejections_stay_within_what_clients_take() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    // What gRPC clients take unless told otherwise.
    let mut client = client_of(app.address(), "one").max_decoding_message_size(4 << 20);
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE ledger").execute(&mut blocker).await.unwrap();
    // While the first waits for its commit, rejections gather.
    let all = [item(1, help(0))].into_iter().chain((2..=700).map(long_winded)).collect();
    let sending = tokio::spawn(async move { send(&mut client, all).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    let (answers, ended) = sending.await.unwrap();
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(add_up(&answers, &(1..=700).collect::<Vec<_>>()), (1, 0, 699));
}

fn faulty(sequence: i64) -> Item {
    Item { sequence, interaction: None }
}

/// A caller on a thread of its own, who sends without end and reads nothing.
fn stalled(address: SocketAddr) -> Runtime {
    let runtime = Runtime::new().unwrap();
    runtime.spawn(async move {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().initial_stream_window_size(1024);
        let mut client = RelationshipServiceClient::new(endpoint.connect().await.unwrap());
        let _unread = client.record_interactions(tokio_stream::iter((1..).map(faulty))).await.unwrap();
        std::future::pending::<()>().await;
    });
    runtime
}

#[tokio::test]
async fn callers_who_read_nothing_or_hang_up_harm_nobody() {
    let mut settings = config(database(true).await);
    settings.drain_limit = Duration::from_secs(1);
    let app = start(settings, Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    let callers = [(); 3].map(|()| stalled(app.address()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!record(&mut client, help(1)).await.replayed, "others are served");
    let [one, rest @ ..] = callers;
    one.shutdown_background();
    // Many hang up in the middle of sound items.
    for number in 0..20 {
        let (items, answers) = open(&mut client).await;
        items.send(item(1, help(100 + number))).await.unwrap();
        drop((items, answers));
    }
    assert!(!record(&mut client, help(2)).await.replayed);
    assert!((2..=22).contains(&count(&mut client).await));
    // The others are cut off when the server ends.
    app.stopper().cancel();
    let ended = tokio::time::timeout(Duration::from_secs(4), app.ended()).await;
    rest.into_iter().for_each(Runtime::shutdown_background);
    ended.expect("callers cannot keep a server").unwrap();
}

#[tokio::test]
async fn a_stream_goes_on_at_another_server_where_one_ended() {
    const COUNT: i64 = 600;
    let url = database(true).await;
    let servers = [start(config(url.clone()), Clock::system()).await, start(config(url), Clock::system()).await];
    let all = items(COUNT);
    let mut acknowledged = 0;
    let (items, mut answers) = open(&mut client_of(servers[0].address(), "one")).await;
    let sending = tokio::spawn({
        let all = all.clone();
        async move {
            for item in all {
                if items.send(item).await.is_err() {
                    return;
                }
            }
            // As if there were more to come.
            items.closed().await;
        }
    });
    let ended = loop {
        match answers.message().await {
            Ok(answer) => acknowledged = answer.unwrap().sequence,
            Err(status) => break status,
        }
        servers[0].stopper().cancel();
    };
    // A caller who is still sending may see the line break before the words.
    if std::error::Error::source(&ended).is_none() {
        assert_refused(&ended, Code::Unavailable, "SHUTTING_DOWN", &["zed-77", "rosa-99"]);
    }
    sending.abort();
    let mut client = client_of(servers[1].address(), "one");
    let (answers, ended) = send(&mut client, all[acknowledged as usize..].to_vec()).await;
    assert!(ended.is_none());
    add_up(&answers, &(acknowledged + 1..=COUNT).collect::<Vec<_>>());
    assert_eq!(count(&mut client).await, COUNT);
}
