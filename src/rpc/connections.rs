//! Connections: taking them in, speaking TLS where that is asked for, bounding how many there are and how old they become,
//! and letting them go in good order. What is done on them is elsewhere.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::{
    gathered::Gathered,
    tls::{Tls, names_in},
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
/// The most metadata of one call, in bytes.
const MAX_METADATA_BYTES: u32 = 16 * 1024;
/// How often an idle connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before more is taken in when the system has no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// What connections are like.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// The most at once; more wait until one ends.
    pub most: usize,
    /// After how long a connection is told to go away, give or take a tenth, so that callers spread over servers again.
    pub age: Duration,
}

/// Who is at the other end of the connection that a call came over.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The names in the client certificate that was verified.
    pub certificate_names: Arc<[String]>,
    /// Cancelled when the connection is told to go away: long streams end then.
    pub going_away: CancellationToken,
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
    let (room, connections) = (Arc::new(Semaphore::new(limits.most)), TaskTracker::new());
    // Whoever gives up on this cuts the connections off.
    let cut_off = CancellationToken::new();
    let _cuts_off = cut_off.clone().drop_guard();
    while let Some((stream, place)) = stop.run_until_cancelled(next(&listener, &room)).await {
        // Without it small answers would wait for more to send.
        let _ = stream.set_nodelay(true);
        let (tls, service, going_away) = (tls.clone(), service.clone(), stop.child_token());
        let age = about(limits.age);
        let connection = async move {
            let _place = place;
            match tls {
                None => speak(stream, Arc::default(), age, going_away, service).await,
                Some(tls) => {
                    if let Some(Some(stream)) = going_away.run_until_cancelled(shaken(&tls, stream)).await {
                        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                        let names = shown.map(names_in).unwrap_or_default();
                        speak(stream, names.into(), age, going_away, service).await;
                    }
                }
            }
        };
        connections.spawn(cut_off.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The connection once TLS is spoken on it, unless that takes too long.
async fn shaken<I>(tls: &Tls, stream: I) -> Option<TlsStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HANDSHAKE_LIMIT, tls.acceptor().accept(stream)).await.ok()?.ok()
}

/// The next connection, as soon as there is room for it.
async fn next(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = Arc::clone(room).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken in");
                sleep(NO_ROOM).await;
            }
        }
    }
}

/// Speaks HTTP/2 until the other end has enough, or for as long as the connection may live and its calls take.
async fn speak<I, S>(
    stream: I,
    certificate_names: Arc<[String]>,
    age: Duration,
    going_away: CancellationToken,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let peer = Peer { certificate_names, going_away: going_away.clone() };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_GIVEN_UP)
        .initial_stream_window_size(UNREAD.0)
        .initial_connection_window_size(UNREAD.1)
        .max_header_list_size(MAX_METADATA_BYTES)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = Gathered::new(connection.as_mut()) => return log(ended),
        () = sleep(age) => going_away.cancel(),
        () = going_away.cancelled() => {}
    }
    // GOAWAY: calls under way end, and no others begin.
    connection.as_mut().graceful_shutdown();
    log(Gathered::new(connection).await);
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
        assert_eq!(begun.elapsed(), HANDSHAKE_LIMIT);
        dawdling.await.unwrap();
    }
}
