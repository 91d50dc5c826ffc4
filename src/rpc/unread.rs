//! Answers that are not read yet. The turn of a call lasts until the socket has taken the last byte of its answer, so what
//! callers leave unread counts as calls under way, and its bytes are bounded.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::service::ServiceError;

use super::{
    admission::{Crowded, Turn},
    status,
};

/// How long a caller may leave an answer without reading any of it.
pub(super) const READ_LIMIT: Duration = Duration::from_mins(1);
/// How often a connection looks for such answers.
const LOOK: Duration = Duration::from_secs(15);
/// Answers of so many bytes are never refused for what else is unread.
pub(super) const SMALL_ANSWER_BYTES: usize = 16 * 1024;
/// How many bytes of answers may be unread on one connection when another one is added.
const MAX_CONNECTION_BYTES: usize = 16 * 1024 * 1024;
/// How much of an answer is handed to the transport at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// What is unread on one connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Unread(Arc<Answers>);

#[derive(Debug)]
struct Answers {
    began: Instant,
    bytes: AtomicUsize,
    count: AtomicU64,
    /// When something of each answer was last taken, in milliseconds after `began`.
    waiting: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    given_up: CancellationToken,
}

impl Default for Unread {
    fn default() -> Self {
        Self(Arc::new(Answers {
            began: Instant::now(),
            bytes: AtomicUsize::new(0),
            count: AtomicU64::new(0),
            waiting: Mutex::default(),
            given_up: CancellationToken::new(),
        }))
    }
}

impl Unread {
    /// The connection has an answer that is not read for too long.
    pub(super) fn give_up(&self) {
        self.0.given_up.cancel();
    }

    /// Waits until there is such an answer.
    pub(super) async fn given_up(&self) {
        while self.0.given_up.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = waiting.values().map(|taken| taken.load(Ordering::Relaxed)).min();
            let limit = u64::try_from(READ_LIMIT.as_millis()).unwrap_or(u64::MAX);
            if longest.is_some_and(|taken| self.now() >= taken.saturating_add(limit)) {
                return;
            }
        }
    }

    /// An answer begins to wait; refused when the connection has too much of that.
    pub(super) fn wait(&self, bytes: usize) -> Result<Waiting, Crowded> {
        let before = self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        if bytes > SMALL_ANSWER_BYTES && before >= MAX_CONNECTION_BYTES {
            self.0.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(Crowded::Connection);
        }
        let (number, taken) = (self.0.count.fetch_add(1, Ordering::Relaxed), Arc::new(AtomicU64::new(self.now())));
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&taken));
        Ok(Waiting { unread: self.clone(), bytes, number, taken })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// An answer on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    unread: Unread,
    bytes: usize,
    number: u64,
    taken: Arc<AtomicU64>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.unread.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.unread.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The bytes of an answer with the turn of its call. The transport lets go of them once they are written.
struct Held {
    bytes: Bytes,
    _waiting: Waiting,
    _turn: Arc<Turn>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lets a call keep its turn until its answer is taken; an answer for which there is no room becomes a refusal.
pub(super) async fn hold(mut response: Response<Body>) -> Result<Response<Body>, Infallible> {
    let Some(turn) = response.extensions_mut().remove::<Arc<Turn>>() else { return Ok(response) };
    let (parts, mut body) = response.into_parts();
    let first = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
    let (other, data) = match first {
        None => return Ok(Response::from_parts(parts, body)),
        Some(Err(status)) => return Ok(status.into_http()),
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => (None, data),
            Err(other) => (Some(other), Bytes::new()),
        },
    };
    let waiting = match turn.answer(data.len()) {
        Ok(waiting) => waiting,
        Err(crowded) => return Ok(status::of_service(&ServiceError::from(crowded)).into_http()),
    };
    let taken = (Arc::clone(&waiting.taken), waiting.unread.clone());
    let rest = Bytes::from_owner(Held { bytes: data, _waiting: waiting, _turn: turn });
    Ok(Response::from_parts(parts, Body::new(Chunks { rest, other, body, taken })))
}

/// An answer in parts, each given when the transport has room for it.
struct Chunks {
    rest: Bytes,
    /// What came in place of data.
    other: Option<Frame<Bytes>>,
    body: Body,
    taken: (Arc<AtomicU64>, Unread),
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            let (taken, unread) = &self.taken;
            taken.store(unread.now(), Ordering::Relaxed);
            let length = self.rest.len().min(CHUNK_BYTES);
            let chunk = self.rest.split_to(length);
            if self.rest.is_empty() {
                // What is empty would still hold the turn.
                self.rest = Bytes::new();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match self.other.take() {
            Some(other) => Poll::Ready(Some(Ok(other))),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.other.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_read_slowly_and_not_be_left() {
        let unread = Unread::default();
        let [read, left] = [1, 2].map(|bytes| unread.wait(bytes).unwrap());
        drop(left);
        let reading = tokio::spawn(async move {
            for _ in 0..5 {
                sleep(READ_LIMIT / 2).await;
                read.taken.store(read.unread.now(), Ordering::Relaxed);
            }
            read
        });
        unread.given_up().await;
        let since = READ_LIMIT / 2 * 5 + READ_LIMIT;
        assert!((since..=since + LOOK).contains(&unread.0.began.elapsed()), "{:?}", unread.0.began.elapsed());
        drop(reading.await.unwrap());
        assert_eq!(unread.0.bytes.load(Ordering::Relaxed), 0);
        assert!(unread.0.waiting.lock().unwrap().is_empty());
        tokio::time::timeout(READ_LIMIT * 10, unread.given_up()).await.unwrap_err();
        unread.give_up();
        unread.given_up().await;
    }

    #[tokio::test]
    async fn a_connection_has_room_for_small_answers_whatever_else_is_unread() {
        let unread = Unread::default();
        let half = unread.wait(MAX_CONNECTION_BYTES / 2).unwrap();
        let _half = unread.wait(MAX_CONNECTION_BYTES / 2).unwrap();
        assert_eq!(unread.wait(SMALL_ANSWER_BYTES + 1).unwrap_err(), Crowded::Connection);
        let _small = unread.wait(SMALL_ANSWER_BYTES).unwrap();
        drop(half);
        unread.wait(SMALL_ANSWER_BYTES + 1).unwrap();
    }
}
