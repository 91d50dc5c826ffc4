//! The group-commit writer: many concurrent calls share one transaction, and each is answered after its commit.
//!
//! A few lanes, each a task with a connection of its own, do all the writing of a server: while one waits for its commit,
//! another goes on. What one person does always takes the same lane, so that no tie is written by two. Behind a lane that is
//! busy, entries gather in a bounded queue, so batches are small when there is little to do and large when there is much.
//! Nobody who hangs up can stop a transaction half-way.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use sqlx::Connection as _;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Entry, Outcome, Store, StoreError, absorb,
    lease::{Lease, within},
};

/// How many lanes there are.
pub const LANES: usize = 2;
/// The most entries that share a transaction.
pub const MAX_BATCH: usize = 512;
/// The most entries that wait in one lane; more are refused.
pub const QUEUE_LEN: usize = 4096;
/// How long a batch is tried again, from its first try.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// How long a batch may take with all its tries and parts.
const BATCH_LIMIT: Duration = Duration::from_secs(20);
/// How long an entry may wait until its batch begins.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Why an entry was not recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Too many entries are waiting.
    #[error("too many entries are waiting")]
    QueueFull,
    /// The entry has waited too long.
    #[error("the entry has waited too long")]
    Late,
    /// The writer has stopped.
    #[error("the writer has stopped")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

struct Pending {
    entry: Entry,
    since: Instant,
    answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

/// The way into the queues. Cloning is cheap; the writer stops when it is closed, or when the last one is gone.
#[derive(Clone, Debug)]
pub struct Writer {
    lanes: [mpsc::Sender<Pending>; LANES],
    closing: CancellationToken,
}

/// What will have become of an entry.
pub type Answer = oneshot::Receiver<Result<Outcome, WriteError>>;

impl Writer {
    /// Starts the lanes. They end when the writer is closed or every copy of it is dropped, and the queues are empty; all
    /// end when one of them breaks.
    pub fn start(store: &Store) -> (Self, JoinHandle<()>) {
        let closing = CancellationToken::new();
        let mut writing = JoinSet::new();
        let lanes = std::array::from_fn(|_| {
            let (queue, entries) = mpsc::channel(QUEUE_LEN);
            writing.spawn(write_batches(Recorder::new(store.clone()), entries, closing.clone()));
            queue
        });
        let written = async move { while let Some(Ok(())) = writing.join_next().await {} };
        (Self { lanes, closing }, tokio::spawn(written))
    }

    fn lane(&self, entry: &Entry) -> &mpsc::Sender<Pending> {
        let mut hasher = DefaultHasher::new();
        (entry.tenant.as_str(), entry.interaction.actor.as_str()).hash(&mut hasher);
        let [even, odd] = &self.lanes;
        if hasher.finish().is_multiple_of(2) { even } else { odd }
    }

    /// Lets nothing more in. What is queued is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Queues an entry, or refuses it at once when the queue is full.
    pub fn offer(&self, entry: Entry) -> Result<Answer, WriteError> {
        let (answer, answered) = oneshot::channel();
        self.lane(&entry).try_send(Pending { entry, since: Instant::now(), answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        Ok(answered)
    }

    /// Queues an entry as soon as there is room.
    pub async fn push(&self, entry: Entry) -> Result<Answer, WriteError> {
        let (answer, answered) = oneshot::channel();
        let place = self.lane(&entry).reserve().await.map_err(|_| WriteError::Stopped)?;
        place.send(Pending { entry, since: Instant::now(), answer });
        Ok(answered)
    }
}

/// Records batches over one connection for as long as that goes well.
struct Recorder {
    store: Store,
    lease: Option<Lease>,
}

impl Recorder {
    fn new(store: Store) -> Self {
        Self { store, lease: None }
    }

    /// Records entries in one transaction, and tells what became of each, in their order. After a lost connection the same
    /// entries can be recorded again: what was committed is recognised.
    async fn record(&mut self, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.store.lease().await?,
        };
        let outcomes = within(async {
            let mut transaction = lease.begin().await?;
            let outcomes = absorb::record(&mut transaction, entries, self.store.policy).await?;
            transaction.commit().await?;
            Ok(outcomes)
        });
        let outcomes = outcomes.await;
        let (lease, outcomes) = lease.go_on(outcomes)?;
        self.lease = Some(lease);
        Ok(outcomes)
    }
}

async fn write_batches(mut recorder: Recorder, mut queue: mpsc::Receiver<Pending>, closing: CancellationToken) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let taken = tokio::select! {
            biased;
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            taken = queue.recv_many(&mut batch, MAX_BATCH) => taken,
        };
        if taken == 0 {
            return;
        }
        let begun = Instant::now();
        for late in batch.extract_if(.., |pending| begun - pending.since > WAIT_LIMIT) {
            let _ = late.answer.send(Err(WriteError::Late));
        }
        let (entries, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|pending| (pending.entry, pending.answer)).unzip();
        if entries.is_empty() {
            continue;
        }
        let outcomes = write(&mut recorder, &entries, begun + BATCH_LIMIT).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have hung up; the entry is recorded all the same.
            let _ = answer.send(outcome);
        }
    }
}

/// Writes a batch. When it fails for good, its halves are written alone, so that one bad entry harms no other.
async fn write(recorder: &mut Recorder, entries: &[Entry], deadline: Instant) -> Vec<Result<Outcome, WriteError>> {
    match try_write(recorder, entries, deadline).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) if error.is_passing() || entries.len() == 1 => {
            // What the driver displays holds no values; what it would show for debugging does.
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(entries = entries.len(), error = %error, cause, "a batch was not recorded");
            let error = Arc::new(error);
            entries.iter().map(|_| Err(WriteError::Store(Arc::clone(&error)))).collect()
        }
        Err(_) => {
            let (first, second) = entries.split_at(entries.len() / 2);
            let mut outcomes = Box::pin(write(recorder, first, deadline)).await;
            outcomes.extend(Box::pin(write(recorder, second, deadline)).await);
            outcomes
        }
    }
}

async fn try_write(recorder: &mut Recorder, entries: &[Entry], deadline: Instant) -> Result<Vec<Outcome>, StoreError> {
    let begun = Instant::now();
    let mut attempt = 0;
    loop {
        match timeout_at(deadline, recorder.record(entries)).await.unwrap_or(Err(StoreError::Silent)) {
            Err(error) if error.is_passing() && begun.elapsed() < RETRY_LIMIT && Instant::now() < deadline => {
                tracing::warn!(attempt, error = %error, "recording a batch again");
                sleep(pause(attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// 20 ms, doubling up to 1.3 s, with up to half as much again so that servers do not march in step.
fn pause(attempt: u32) -> Duration {
    let base = Duration::from_millis(20) * 2_u32.pow(attempt.min(6));
    let mut random = [0; 1];
    // Without randomness the pause is merely not spread.
    let _ = getrandom::fill(&mut random);
    base + base * u32::from(random[0]) / 510
}
