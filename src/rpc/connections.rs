//! Connections: taking them in, speaking TLS where that is asked for, bounding how old and how idle they become, and letting
//! them go in good order. Calls on them are elsewhere, and so is the choice of who leaves when there is no room (`room`).

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::{Bytes, Frame, Incoming, SizeHint},
    server::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt as _};

use super::{
    gathered::Gathered,
    room::{Place, Room, Seat, Use},
    status,
    tls::{Tls, names_in},
    unread::Unread,
};

/// The most calls at once on one connection.
const MAX_STREAMS: u32 = 1024;
/// The most calls of one connection that may have been given up before they were looked at; one more closes it. As many as
/// may be under way: callers behind a shared connection who lose patience together do not fail those who wait.
const MAX_GIVEN_UP: usize = 1024;
/// How many bytes of one call may have arrived that are not read yet, and of all calls of a connection. The second is far above
/// the first so that streams can wait: `h2` closes a connection on which what unread messages lack of 256 bytes each comes to
/// more than half of it.
const UNREAD: (u32, u32) = (128 * 1024, 16 * 1024 * 1024);
/// How many bytes of one call's answer the transport takes before they are written.
const UNWRITTEN: usize = 64 * 1024;
/// The most metadata of one call, in bytes.
const MAX_METADATA_BYTES: u32 = 16 * 1024;
/// How often an idle connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a call may take until its answer begins, the arrival of its request included: longer than any work takes.
const CALL_LIMIT: Duration = Duration::from_mins(1);
/// How long calls under way may take to end on a connection that is told to go away while the server stays.
const LAST_CALLS: Duration = Duration::from_mins(1);
/// How long a connection without calls may take to go away.
const IDLE_FAREWELL: Duration = Duration::from_secs(1);
/// How long a connection without calls has to be told that another one takes its place.
const FAREWELL: Duration = Duration::from_millis(20);
/// The paths of the calls that keep a connection in use while they are under way. Others, such as `Watch` of the health service,
/// can be left open for ever by anybody.
const KEEPING: &str = "/rapport.v1.";
/// How long a connection may take to be spoken on: the TLS handshake, or else the first byte. From then on it may be idle, as
/// connections are that clients open before they call.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before more is taken in when the system has no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// What connections are like.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// The most at once. One more takes the place of one without a call under way; while there is none, it waits.
    pub most: usize,
    /// How long a connection may have no call under way.
    pub idle: Duration,
    /// After how long a connection is told to go away, give or take a tenth, so that callers spread over servers again.
    pub age: Duration,
}

/// Who is at the other end of the connection that a call came over.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// The names in the client certificate that was verified.
    pub certificate_names: Arc<[String]>,
    /// Cancelled when the connection is told to go away: long streams end then.
    pub going_away: CancellationToken,
    /// The answers that are not read yet: after too long, the connection is told to go away.
    pub unread: Unread,
}

/// Serves calls on whatever connects, until told to stop and all calls have ended.
pub(super) async fn serve<S>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: ConnectionLimits,
    service: S,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (room, connections) = (Room::new(limits.most), TaskTracker::new());
    // Whoever gives up on this cuts the connections off.
    let cut_off = CancellationToken::new();
    let _cuts_off = cut_off.clone().drop_guard();
    while let Some((stream, place)) = stop.run_until_cancelled(next(&listener, &room)).await {
        // Without it small answers would wait for more to send.
        let _ = stream.set_nodelay(true);
        let life = Life { seat: Arc::clone(place.seat()), age: about(limits.age), idle: limits.idle };
        let (tls, service, going_away) = (tls.clone(), service.clone(), stop.child_token());
        let connection = async move {
            let _place = place;
            let given_up = async {
                tokio::select! {
                    () = going_away.cancelled() => {}
                    () = life.seat.left() => {}
                }
            };
            let Some(tls) = tls else {
                let greeted = tokio::select! {
                    greeted = greeted(&stream) => greeted,
                    () = given_up => false,
                };
                if greeted {
                    speak(stream, Arc::default(), life, going_away, service).await;
                }
                return;
            };
            let shaken = tokio::select! {
                shaken = shaken(&tls, stream) => shaken,
                () = given_up => None,
            };
            if let Some(stream) = shaken {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let names = shown.map(names_in).unwrap_or_default();
                speak(stream, names.into(), life, going_away, service).await;
            }
        };
        connections.spawn(cut_off.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// True once a first byte is there, unless that takes too long.
async fn greeted(stream: &TcpStream) -> bool {
    matches!(timeout(HELLO_LIMIT, stream.peek(&mut [0])).await, Ok(Ok(1)))
}

/// The connection once TLS is spoken on it, unless that takes too long.
async fn shaken<I>(tls: &Tls, stream: I) -> Option<TlsStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HELLO_LIMIT, tls.acceptor().accept(stream)).await.ok()?.ok()
}

/// The next connection, as soon as there is room for it.
async fn next(listener: &TcpListener, room: &Arc<Room>) -> (TcpStream, Place) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, room.place().await),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken in");
                sleep(NO_ROOM).await;
            }
        }
    }
}

/// How long a connection may last.
struct Life {
    seat: Arc<Seat>,
    age: Duration,
    idle: Duration,
}

/// Speaks HTTP/2 until the other end has enough, or for as long as the connection may live and its calls take.
async fn speak<I, S>(stream: I, certificate_names: Arc<[String]>, life: Life, going_away: CancellationToken, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let Life { seat, age, idle } = life;
    let (used, unread) = (Arc::clone(&seat), Unread::default());
    let peer = Peer { certificate_names, going_away: going_away.clone(), unread: unread.clone() };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        used.touch();
        let in_use = request.uri().path().starts_with(KEEPING).then(|| used.begin());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        let answering = timeout(CALL_LIMIT, service.clone().oneshot(request));
        async move {
            let answer = answering.await.unwrap_or_else(|_| Ok(status::of_deadline().into_http()))?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _in_use: in_use }))
        }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_GIVEN_UP)
        .initial_stream_window_size(UNREAD.0)
        .initial_connection_window_size(UNREAD.1)
        .max_send_buf_size(UNWRITTEN)
        .max_header_list_size(MAX_METADATA_BYTES)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let grace = tokio::select! {
        ended = Gathered::new(connection.as_mut()) => return log(ended),
        // The server's own end has a limit of its own.
        () = going_away.cancelled() => Duration::MAX,
        () = sleep(age) => LAST_CALLS,
        () = unread.given_up() => LAST_CALLS,
        () = seat.unused(idle) => IDLE_FAREWELL,
        () = seat.left() => FAREWELL,
    };
    going_away.cancel();
    // GOAWAY: calls under way end, and no others begin.
    connection.as_mut().graceful_shutdown();
    let mut ending = Gathered::new(connection);
    let mut ended = timeout(grace, &mut ending).await;
    if ended.is_err() && grace < LAST_CALLS && seat.is_busy() {
        // A call began just before the connection was told to go away.
        ended = timeout(LAST_CALLS, ending).await;
    }
    match ended {
        Ok(ended) => log(ended),
        Err(late) => tracing::debug!(%late, "a connection was closed that did not end by itself"),
    }
}

/// An answer, which keeps its connection in use until it is handed to the transport.
struct Answer {
    body: Body,
    _in_use: Option<Use>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// A time, give or take a tenth.
fn about(time: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness it is merely not spread.
    let _ = getrandom::fill(&mut random);
    time * 9 / 10 + time * u32::from(random[0]) / 1275
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_takes_too_long_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::load(crate::rpc::tls::tests::files(folder.path())).unwrap();
        let (mut caller, stream) = tokio::io::duplex(4096);
        // One byte a second is no handshake, and no end either.
        let dawdling = tokio::spawn(async move {
            for byte in [0x16, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1)) {
                if caller.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        assert!(shaken(&tls, stream).await.is_none());
        assert_eq!(begun.elapsed(), HELLO_LIMIT);
        dawdling.await.unwrap();
    }
}
