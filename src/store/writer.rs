//! The group-commit writer: many concurrent calls share one transaction, and each is answered after its commit.
//!
//! While a batch is written, entries gather, so batches are small when there is little to do and large when there is much.
//! What has gathered begins over a second connection as soon as the batch before it commits, so that nobody waits for the
//! disk twice. When very much waits, the two are written side by side; what two persons do always takes the same of these
//! lanes then, so that they seldom meet at a tie or a commitment. Nobody who hangs up can stop a transaction half-way.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::Connection as _;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty};

use crate::telemetry::{
    Metrics,
    names::{self, EntryOutcome, Operation},
    trace::{self, Caller},
};

use super::{
    Entry, Outcome, Store, StoreError, absorb,
    lease::{Lease, within},
};

/// How many batches can be written at once, each over a connection that is kept for it.
pub const LANES: usize = 2;
/// The most entries that share a transaction.
pub const MAX_BATCH: usize = 512;
/// How many entries of a lane make a batch that does not wait until that of the other commits.
const BESIDE: usize = 128;
/// The most entries that wait beyond what the next batches can hold; more are refused.
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
    caller: Caller,
    answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

impl Pending {
    fn new(entry: Entry) -> (Self, Answer) {
        let (answer, answered) = oneshot::channel();
        (Self { entry, since: Instant::now(), caller: Caller::current(), answer }, answered)
    }
}

/// The way into the queue. Cloning is cheap; the writer stops when it is closed, or when the last one is gone.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: mpsc::Sender<Pending>,
    closing: CancellationToken,
    metrics: Metrics,
}

/// What will have become of an entry.
pub type Answer = oneshot::Receiver<Result<Outcome, WriteError>>;

impl Writer {
    /// Starts the writing task. It ends when it is closed or every writer is dropped, and the queue is empty.
    pub fn start(store: &Store) -> (Self, JoinHandle<()>) {
        let (queue, entries) = mpsc::channel(QUEUE_LEN);
        let closing = CancellationToken::new();
        let progress = Arc::new(Notify::new());
        let lanes = std::array::from_fn(|_| Lane::new(store.clone(), Arc::clone(&progress)));
        let writing = tokio::spawn(Lanes { lanes, progress, writing: JoinSet::new() }.run(entries, closing.clone()));
        (Self { queue, closing, metrics: store.metrics.clone() }, writing)
    }

    /// Lets nothing more in. What is queued is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Queues an entry, or refuses it at once when the queue is full.
    pub fn offer(&self, entry: Entry) -> Result<Answer, WriteError> {
        let (pending, answered) = Pending::new(entry);
        self.queue.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        self.metrics.queued();
        Ok(answered)
    }

    /// Queues an entry as soon as there is room.
    pub async fn push(&self, entry: Entry) -> Result<Answer, WriteError> {
        let place = self.queue.reserve().await.map_err(|_| WriteError::Stopped)?;
        let (pending, answered) = Pending::new(entry);
        place.send(pending);
        self.metrics.queued();
        Ok(answered)
    }
}

/// Records batches over one connection for as long as that goes well.
struct Recorder {
    store: Store,
    lease: Option<Lease>,
    /// How often the present batch was tried, with its parts.
    attempts: u32,
    ending: Arc<Ending>,
}

/// Whether the present batch of a lane takes no more locks, but commits.
struct Ending {
    reached: AtomicBool,
    progress: Arc<Notify>,
}

impl Ending {
    fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    fn reach(&self) {
        self.reached.store(true, Ordering::SeqCst);
        self.progress.notify_one();
    }

    fn begin(&self) {
        self.reached.store(false, Ordering::SeqCst);
    }
}

impl Recorder {
    fn new(store: Store, ending: Arc<Ending>) -> Self {
        Self { store, lease: None, attempts: 0, ending }
    }

    /// Records entries in one transaction, and tells what became of each, in their order. After a lost connection the same
    /// entries can be recorded again: what was committed is recognised.
    async fn record(&mut self, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        self.attempts += 1;
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.store.lease(Operation::Record).await?,
        };
        let outcomes = within(async {
            let mut transaction = lease.begin().await?;
            let outcomes = absorb::record(&mut transaction, entries, self.store.policy).await?;
            self.ending.reach();
            transaction.commit().await?;
            Ok(outcomes)
        });
        let outcomes = outcomes.await;
        let (lease, outcomes) = lease.go_on(outcomes)?;
        self.lease = Some(lease);
        Ok(outcomes)
    }
}

/// Entries that wait for one of the connections that record.
struct Lane {
    waiting: VecDeque<Pending>,
    /// Not there while a batch is written.
    recorder: Option<Recorder>,
    ending: Arc<Ending>,
}

impl Lane {
    fn new(store: Store, progress: Arc<Notify>) -> Self {
        let ending = Arc::new(Ending { reached: AtomicBool::new(false), progress });
        Self { waiting: VecDeque::new(), recorder: Some(Recorder::new(store, Arc::clone(&ending))), ending }
    }
}

struct Lanes {
    lanes: [Lane; LANES],
    /// Told when a batch commits.
    progress: Arc<Notify>,
    writing: JoinSet<(usize, Recorder)>,
}

impl Lanes {
    async fn run(mut self, mut queue: mpsc::Receiver<Pending>, closing: CancellationToken) {
        let (mut incoming, mut open) = (Vec::with_capacity(MAX_BATCH), true);
        while open || self.waiting() > 0 || !self.writing.is_empty() {
            tokio::select! {
                biased;
                () = closing.cancelled(), if !queue.is_closed() => queue.close(),
                Some(written) = self.writing.join_next() => match written {
                    Ok((lane, recorder)) => self.lanes[lane].recorder = Some(recorder),
                    // A defect. Whoever waits is told that nothing is recorded any more.
                    Err(_) => return,
                },
                () = self.progress.notified() => {}
                taken = queue.recv_many(&mut incoming, MAX_BATCH), if open && self.waiting() < LANES * MAX_BATCH => {
                    open = taken > 0;
                }
            }
            for pending in incoming.drain(..) {
                self.lanes[lane_of(&pending.entry)].waiting.push_back(pending);
            }
            while let Some((lane, batch, recorder)) = self.next() {
                self.writing.spawn(write_batch(lane, batch, recorder));
            }
        }
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// The next batch that can be written now: of what waits when no batch is before its commit, else of a lane where much
    /// waits.
    fn next(&mut self) -> Option<(usize, Vec<Pending>, Recorder)> {
        let settled = self.lanes.iter().all(|lane| lane.recorder.is_some() || lane.ending.is_reached());
        let takes = |number: usize| {
            std::array::from_fn(|lane| {
                let waiting = self.lanes[lane].waiting.len();
                // What is much goes its own lane.
                waiting > 0 && if lane == number { settled || waiting >= BESIDE } else { settled && waiting < BESIDE }
            })
        };
        let (number, taken): (usize, [bool; LANES]) = (0..LANES)
            .filter(|number| self.lanes[*number].recorder.is_some())
            .map(|number| (number, takes(number)))
            .find(|(_, taken)| taken.contains(&true))?;
        let recorder = self.lanes[number].recorder.take()?;
        recorder.ending.begin();
        let mut batch = Vec::with_capacity(MAX_BATCH);
        for lane in self.lanes.iter_mut().zip(taken).filter_map(|(lane, is_taken)| is_taken.then_some(lane)) {
            batch.extend(lane.waiting.drain(..lane.waiting.len().min(MAX_BATCH - batch.len())));
        }
        Some((number, batch, recorder))
    }
}

/// What two persons do always takes the same lane, whoever of them acts.
fn lane_of(entry: &Entry) -> usize {
    let (actor, recipient) = (Some(&entry.interaction.actor), entry.interaction.recipients.first());
    let mut hasher = DefaultHasher::new();
    (&entry.tenant, actor.min(recipient), actor.max(recipient)).hash(&mut hasher);
    usize::from(!hasher.finish().is_multiple_of(2))
}

async fn write_batch(lane: usize, mut batch: Vec<Pending>, mut recorder: Recorder) -> (usize, Recorder) {
    let begun = Instant::now();
    let longest_wait = batch.iter().map(|pending| begun - pending.since).max().unwrap_or_default();
    recorder.store.metrics.batch_begun(batch.len(), longest_wait);
    for late in batch.extract_if(.., |pending| begun - pending.since > WAIT_LIMIT) {
        recorder.store.metrics.entries(EntryOutcome::Failed, 1);
        let _ = late.answer.send(Err(WriteError::Late));
    }
    if batch.is_empty() {
        return (lane, recorder);
    }
    let span = batch_span(&batch);
    let (entries, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|pending| (pending.entry, pending.answer)).unzip();
    recorder.attempts = 0;
    let outcomes = write(&mut recorder, &entries, begun + BATCH_LIMIT).instrument(span.clone()).await;
    span.record(names::BATCH_ATTEMPTS, i64::from(recorder.attempts));
    // It ends before anybody is answered, as the work does.
    drop(span);
    count(&recorder.store.metrics, &outcomes);
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Whoever asked may have hung up; the entry is recorded all the same.
        let _ = answer.send(outcome);
    }
    (lane, recorder)
}

/// Of nobody's trace: the batch serves many calls, and links the spans of all.
fn batch_span(batch: &[Pending]) -> Span {
    let span = tracing::debug_span!(
        parent: None,
        names::BATCH_SPAN,
        { names::BATCH_SIZE } = i64::try_from(batch.len()).unwrap_or(i64::MAX),
        { names::BATCH_ATTEMPTS } = Empty,
    );
    trace::link(&span, batch.iter().map(|pending| &pending.caller));
    span
}

fn count(metrics: &Metrics, outcomes: &[Result<Outcome, WriteError>]) {
    let [mut recorded, mut replayed, mut conflicts, mut failed] = [0; 4];
    for outcome in outcomes {
        match outcome {
            Ok(Outcome::Recorded { replayed: false, .. }) => recorded += 1,
            Ok(Outcome::Recorded { .. }) => replayed += 1,
            Ok(Outcome::Conflict) => conflicts += 1,
            Err(_) => failed += 1,
        }
    }
    metrics.entries(EntryOutcome::Recorded, recorded);
    metrics.entries(EntryOutcome::Replayed, replayed);
    metrics.entries(EntryOutcome::Conflict, conflicts);
    metrics.entries(EntryOutcome::Failed, failed);
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
                recorder.store.metrics.batch_retried();
                // Whoever won a race has committed.
                if !matches!(error, StoreError::Raced) || attempt > 0 {
                    sleep(pause(attempt)).await;
                }
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
