//! Streams of callers who lose their credentials while they record.

use std::time::{Duration, Instant};

use rapport::{access::Key, domain::Kind, rpc::pb};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    guarded::{Client, Guarded, client, principal},
    harness::{act, after, channel, day, unix_now},
    tokens::{Issuer, token_rules},
    wire::assert_refused,
};

/// How long a stream may go on without the right to.
const LIMIT: Duration = Duration::from_secs(5);

/// Records item by item until the stream ends: when and how it does. Every item was acknowledged that was recorded.
async fn record_on(client: &mut Client) -> (Instant, Status) {
    let (items, sent) = mpsc::channel(1);
    let mut answers = client.record_interactions(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let mut acknowledged = 0;
    for number in 1.. {
        let mut interaction = act(Kind::Help, "rosa", "zed", after(day(0), number));
        interaction.interaction_id = format!("act-{number}");
        let item = pb::RecordInteractionsRequest { sequence: number, interaction: Some(interaction) };
        let is_open = items.send(item).await.is_ok();
        match answers.message().await {
            Ok(answer) => acknowledged = answer.expect("only an error ends it").sequence,
            Err(status) => {
                assert!(number > acknowledged && number > 1, "{is_open}");
                return (Instant::now(), status);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("numbers have no end")
}

/// How a stream ends after the access file has changed.
async fn after_change(before: &Value, after: &Value, key: &Key) -> Status {
    let server = Guarded::start(before, |_, _| {}).await;
    let mut caller = client(channel(server.address()), key.as_str().to_owned(), Some("crm"));
    let recording = tokio::spawn(async move { record_on(&mut caller).await });
    tokio::time::sleep(LIMIT).await;
    assert!(!recording.is_finished(), "a caller in good standing goes on");
    std::fs::write(&server.file, after.to_string()).unwrap();
    let changed = Instant::now();
    let (ended, status) = recording.await.unwrap();
    assert!(ended - changed < LIMIT, "it ended after {:?}", ended - changed);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_ends_its_stream() {
    let (key, other) = (Key::new().unwrap(), Key::new().unwrap());
    let document = |key: &Key| json!({"principals": [principal("crm", &[key], &["crm"], &["record"])]});
    let status = after_change(&document(&key), &document(&other), &key).await;
    assert_refused(&status, Code::Unauthenticated, "UNAUTHENTICATED", &["rosa", "zed", "act-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_withdrawn_ends_the_stream() {
    let key = Key::new().unwrap();
    let document = |rights: &[&str]| json!({"principals": [principal("crm", &[&key], &["crm"], rights)]});
    let status = after_change(&document(&["record", "rank"]), &document(&["rank"]), &key).await;
    assert_refused(&status, Code::PermissionDenied, "PERMISSION_DENIED", &["rosa", "zed", "act-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_its_stream() {
    /// The clocks of issuer and server may be apart by as much, in seconds.
    const LEEWAY: i64 = 30;
    let issuer = Issuer::new("1");
    let keys = issuer.keys().to_string();
    let server = Guarded::start(&token_rules("keys_file", "keys.json"), move |folder, _| {
        std::fs::write(folder.join("keys.json"), keys).unwrap();
    })
    .await;
    let expires = unix_now() - LEEWAY + 3;
    let token = issuer.token(|_, claims| claims["exp"] = expires.into());
    let began = Instant::now();
    let (ended, status) = record_on(&mut client(channel(server.address()), token, None)).await;
    assert_refused(&status, Code::Unauthenticated, "UNAUTHENTICATED", &["rosa", "zed", "act-"]);
    let lasted = ended - began;
    assert!(lasted > Duration::from_secs(1) && lasted < Duration::from_secs(3) + LIMIT, "it lasted {lasted:?}");
}
