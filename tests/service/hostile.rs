//! Callers who are let in and mean harm: frames of HTTP/2 written by hand, and what an innocent caller notices meanwhile.

use std::{net::SocketAddr, time::Duration};

use rapport::{domain::Kind, service::Clock};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    harness::{Client, act, client_of, config, database, day, ready, start, try_record},
    wire::method,
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
