//! Callers who are let in and mean harm: frames of HTTP/2 written by hand, and what an innocent caller notices meanwhile.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use rapport::{
    client::{Client as Reopening, StreamEvent},
    domain::Kind,
    rpc::pb::{self, relationship_service_client::RelationshipServiceClient},
    service::Clock,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Endpoint};

use crate::{
    harness::{Client, act, client_of, config, database, day, error_metadata, eventually, ready, start, try_record},
    streaming::{Item, long_winded},
    wire::{assert_refused, method},
};

/// Longer than an innocent caller ever waits.
const PATIENCE: Duration = Duration::from_secs(5);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A connection on which frames are written by hand.
struct Raw(TcpStream);

impl Raw {
    /// Says hello; the server may send this many bytes of each call unasked.
    async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut raw = Self(TcpStream::connect(address).await.unwrap());
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let initial_window = [&[0, 4][..], &window.to_be_bytes()].concat();
        raw.frame(SETTINGS, 0, 0, &initial_window).await;
        raw
    }

    /// Writes a frame; an error is the server's refusal to listen, which is no failure here.
    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let _ = self.0.write_all(&[&head, payload].concat()).await;
    }

    /// Begins a call; its messages may follow.
    async fn begin(&mut self, stream: u32, path: &str, tenant: &str) {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "server"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("rapport-tenant", tenant),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal field that is not indexed, its name and value as they are.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.frame(HEADERS, 4, stream, &block).await;
    }

    /// Sends a message of a call, the last one or not.
    async fn message(&mut self, stream: u32, message: &[u8], is_last: bool) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.frame(DATA, u8::from(is_last), stream, &[&[0], &length[..], message].concat()).await;
    }

    /// How many calls end without a message until so many have, or nothing more arrives within a caller's patience.
    async fn refusals(&mut self, most: usize) -> usize {
        let (mut refused, mut head) = (0, [0; 9]);
        while refused < most && matches!(timeout(PATIENCE, self.0.read_exact(&mut head)).await, Ok(Ok(_))) {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            // END_STREAM.
            refused += usize::from(head[3] == HEADERS && head[4] & 1 == 1);
        }
        refused
    }

    /// The kinds of the frames that arrive until the server closes the connection.
    async fn kinds_until_closed(mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        let mut head = [0; 9];
        while self.0.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            kinds.push(head[3]);
            let mut payload = vec![0; length as usize];
            if self.0.read_exact(&mut payload).await.is_err() {
                break;
            }
        }
        kinds
    }
}

/// Records over a connection of its own, within an innocent caller's patience.
async fn assert_served(address: SocketAddr, tenant: &str) {
    let mut client: Client = client_of(address, tenant);
    let recorded = timeout(PATIENCE, try_record(&mut client, act(Kind::Help, "rosa", "zed", day(0)))).await;
    recorded.expect("an innocent caller is served in time").unwrap();
}

#[tokio::test]
async fn connections_that_send_nothing_keep_nobody_out() {
    let mut config = config(database(true).await);
    config.connections.most = 20;
    config.health_listen = Some(([127, 0, 0, 1], 0).into());
    let app = rapport::app::App::start(config, Clock::system()).await.unwrap();
    ready(app.health_address().unwrap()).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for address in [app.address(), app.health_address().unwrap()] {
        for _ in 0..300 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
    }
    timeout(PATIENCE, ready(app.health_address().unwrap())).await.expect("probes are answered");
    timeout(PATIENCE, ready(app.address())).await.expect("probes are answered among callers, too");
    assert_served(app.address(), "innocent").await;
    for stream in silent {
        let closing = timeout(Duration::from_secs(15), Raw(stream).kinds_until_closed());
        closing.await.expect("a silent connection is closed");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_that_call_once_and_stay_give_their_places_away() {
    let mut config = config(database(true).await);
    config.connections.most = 10;
    let app = start(config, Clock::system()).await;
    let mut staying = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect(app.address(), 65_535).await;
        raw.begin(1, &method("GetConnection"), "hostile").await;
        raw.message(1, &[], true).await;
        // The call has been seen once something is answered beyond the server's own settings.
        let mut some = [0; 64];
        while raw.0.read(&mut some).await.unwrap() == some.len() {}
        staying.push(raw);
    }
    for _ in 0..10 {
        assert_served(app.address(), "innocent").await;
    }
}

#[tokio::test]
async fn a_connection_without_calls_is_told_to_go_whatever_it_pings() {
    let mut config = config(database(true).await);
    config.connections.idle = Duration::from_secs(1);
    let app = start(config, Clock::system()).await;
    let mut raw = Raw::connect(app.address(), 65_535).await;
    raw.begin(1, &method("GetConnection"), "hostile").await;
    raw.message(1, &[], true).await;
    for _ in 0..15 {
        raw.frame(PING, 0, 0, &[7; 8]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    raw.frame(PING, 0, 0, &[7; 8]).await;
    let kinds = timeout(Duration::from_secs(20), raw.kinds_until_closed()).await.expect("it is closed");
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn streams_that_send_nothing_leave_room_for_others_and_for_the_tenants_own_calls() {
    let app = start(config(database(true).await), Clock::system()).await;
    let mut connections = Vec::new();
    for number in 0..8 {
        let mut raw = Raw::connect(app.address(), 65_535).await;
        for stream in 0..1024 {
            raw.begin(2 * stream + 1, &method("RecordInteractions"), ["a", "b"][number % 2]).await;
        }
        connections.push(raw);
    }
    for tenant in ["innocent", "a", "b"] {
        assert_served(app.address(), tenant).await;
    }
    let mut innocent = client_of(app.address(), "innocent");
    let (items, sent) = mpsc::channel(1);
    let mut answers = innocent.record_interactions(ReceiverStream::new(sent)).await.unwrap().into_inner();
    items.send(Item { sequence: 1, interaction: Some(act(Kind::Help, "rosa", "zed", day(0))) }).await.unwrap();
    assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap().recorded_count, 1);
    let one_more = client_of(app.address(), "a").record_interactions(tokio_stream::empty()).await.unwrap_err();
    assert_refused(&one_more, Code::ResourceExhausted, "TENANT_LIMITED", &["rosa", "zed"]);
    assert_eq!(error_metadata(&one_more), [("limit_streams".to_owned(), "256".to_owned())]);
}

#[tokio::test]
async fn a_stream_without_items_ends_and_the_client_opens_another_when_it_has_one() {
    let app = start(config(database(true).await), Clock::system()).await;
    let begun = Instant::now();
    let (items, sent) = mpsc::channel(1);
    let client = Reopening::at(&format!("http://{}", app.address())).unwrap();
    let mut events = client.record_stream(ReceiverStream::new(sent));
    assert!(matches!(events.next().await, Ok(Some(StreamEvent::Opened))));
    let (_unused, nothing) = mpsc::channel::<Item>(1);
    let mut plain = client_of(app.address(), "plain");
    let mut answers = plain.record_interactions(ReceiverStream::new(nothing)).await.unwrap().into_inner();
    let ended = answers.message().await.unwrap_err();
    assert_refused(&ended, Code::Aborted, "STREAM_IDLE", &["plain"]);
    assert!((29..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    items.send(Item { sequence: 1, interaction: Some(act(Kind::Help, "rosa", "zed", day(0))) }).await.unwrap();
    drop(items);
    assert!(matches!(events.next().await, Ok(Some(StreamEvent::Opened))), "without telling of a break");
    assert!(matches!(events.next().await, Ok(Some(StreamEvent::Acknowledged(answer))) if answer.recorded_count == 1));
    assert!(matches!(events.next().await, Ok(None)));
}

#[tokio::test]
async fn rejections_that_are_not_read_stop_the_reading_of_items() {
    const STREAMS: usize = 12;
    let app = start(config(database(true).await), Clock::system()).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap().initial_stream_window_size(0);
    let mut client = RelationshipServiceClient::new(endpoint.connect().await.unwrap());
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        let sent = Arc::clone(&sent);
        let items = (1..=10_000).map(long_winded).inspect(move |_| _ = sent.fetch_add(1, Ordering::Relaxed));
        let mut request = tonic::Request::new(tokio_stream::iter(items));
        request.metadata_mut().insert("rapport-tenant", "hostile".parse().unwrap());
        unread.push(client.record_interactions(request).await.unwrap());
    }
    // No more is taken from any stream once nothing has been for a second.
    let mut before = 0;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} items of each stream were sent", before / STREAMS);
    assert!(before / STREAMS < 1000, "{before}");
    assert_served(app.address(), "innocent").await;
    assert_served(app.address(), "hostile").await;
    drop(unread);
}

/// A person with a ranking of 1000 connections, some 240 KB.
async fn record_network(client: &mut Client) {
    let items = (1..=1000).map(|sequence| Item {
        sequence,
        interaction: Some(act(Kind::Help, "zed", &format!("{sequence:0>128}"), day(0))),
    });
    let mut answers =
        client.record_interactions(tokio_stream::iter(items.collect::<Vec<_>>())).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
}

#[tokio::test]
async fn large_rankings_that_are_not_read_are_bounded_and_others_have_theirs() {
    const CALLS: u32 = 400;
    let app = start(config(database(true).await), Clock::system()).await;
    let [mut hostile, mut innocent] = ["hostile", "innocent"].map(|tenant| client_of(app.address(), tenant));
    record_network(&mut hostile).await;
    record_network(&mut innocent).await;
    let request = pb::RankConnectionsRequest { person: "zed".to_owned(), page_size: 1000, ..Default::default() };
    let mut raws = Vec::new();
    let (mut held, bytes) = (0, hostile.rank_connections(request.clone()).await.unwrap().get_ref().encoded_len());
    assert!(bytes > 200_000, "{bytes}");
    for _ in 0..3 {
        let mut raw = Raw::connect(app.address(), 0).await;
        for call in 0..CALLS {
            raw.begin(2 * call + 1, &method("RankConnections"), "hostile").await;
            raw.message(2 * call + 1, &request.encode_to_vec(), true).await;
        }
        held += CALLS as usize - raw.refusals(CALLS as usize).await;
        raws.push(raw);
    }
    println!("{held} answers of {bytes} bytes are held");
    assert!((2..=(32 << 20) / bytes).contains(&held), "{held}");
    let ranked = timeout(PATIENCE, innocent.rank_connections(request.clone())).await.expect("in time").unwrap();
    assert_eq!(ranked.get_ref().connections.len(), 1000);
    assert_served(app.address(), "hostile").await;
    let refused = hostile.rank_connections(request.clone()).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TENANT_LIMITED", &["zed"]);
    assert_eq!(error_metadata(&refused), [("limit_answer_bytes".to_owned(), (32 << 20).to_string())]);
    drop(raws);
    eventually("there is room again", async || hostile.rank_connections(request.clone()).await.is_ok()).await;
}

#[tokio::test]
async fn calls_whose_answers_are_not_read_are_under_way() {
    let mut config = config(database(true).await);
    config.admission.tenant_calls = 20;
    let app = start(config, Clock::system()).await;
    let request = pb::RankConnectionsRequest { person: "zed".to_owned(), ..Default::default() };
    let mut raw = Raw::connect(app.address(), 0).await;
    for call in 0..20 {
        raw.begin(2 * call + 1, &method("RankConnections"), "hostile").await;
        raw.message(2 * call + 1, &request.encode_to_vec(), true).await;
    }
    assert_eq!(raw.refusals(1).await, 0, "all are let in");
    let mut hostile = client_of(app.address(), "hostile");
    let refused = hostile.rank_connections(request.clone()).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TENANT_LIMITED", &["zed"]);
    assert_eq!(error_metadata(&refused), [("limit_calls".to_owned(), "20".to_owned())]);
    assert_served(app.address(), "innocent").await;
    drop(raw);
    eventually("the turns come again", async || hostile.rank_connections(request.clone()).await.is_ok()).await;
}
