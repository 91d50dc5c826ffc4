//! The group-commit writer: many concurrent calls share one transaction, and each is answered after its commit.
//!
//! While a batch is written, entries gather, so batches are small when there is little to do and large when there is much.
//! What has gathered begins over another connection as soon as the batch before it commits, so that nobody waits for the
//! disk twice. When very much waits, batches are written side by side; what two persons do always takes the same of these
//! lanes then, so that they seldom meet at a tie or a commitment. Nobody who hangs up can stop a transaction half-way.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Metrics, trace::Caller};

use super::{
    Entry, Outcome, Store, StoreError,
    batch::{Ending, Recorder, write_batch},
};

/// How many batches can be written at once, each over a connection that is kept for it.
pub const LANES: usize = 3;
/// The most entries that share a transaction.
pub const MAX_BATCH: usize = 512;
/// How many entries of a lane make a batch that does not wait until those of the others commit.
const BESIDE: usize = 64;
/// The most entries that wait beyond what the next batches can hold; more are refused.
pub const QUEUE_LEN: usize = 4096;

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

/// An entry that waits.
pub(super) struct Pending {
    pub entry: Entry,
    pub since: Instant,
    pub caller: Caller,
    pub answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

impl Pending {
    pub(super) fn new(entry: Entry) -> (Self, Answer) {
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
        let each = std::array::from_fn(|_| Lane::new(store.clone(), Arc::clone(&progress)));
        let lanes = Lanes { each, progress, writing: JoinSet::new(), metrics: store.metrics.clone() };
        let writing = tokio::spawn(lanes.run(entries, closing.clone()));
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

/// Entries that wait for one of the connections that record.
struct Lane {
    waiting: VecDeque<Pending>,
    /// Not there while a batch is written.
    recorder: Option<Recorder>,
    ending: Arc<Ending>,
}

impl Lane {
    fn new(store: Store, progress: Arc<Notify>) -> Self {
        let ending = Arc::new(Ending::new(progress));
        Self { waiting: VecDeque::new(), recorder: Some(Recorder::new(store, Arc::clone(&ending))), ending }
    }
}

struct Lanes {
    each: [Lane; LANES],
    /// Told when a batch commits.
    progress: Arc<Notify>,
    writing: JoinSet<(usize, Recorder)>,
    metrics: Metrics,
}

impl Lanes {
    async fn run(mut self, mut queue: mpsc::Receiver<Pending>, closing: CancellationToken) {
        let (mut incoming, mut open) = (Vec::with_capacity(MAX_BATCH), true);
        while open || self.waiting() > 0 || !self.writing.is_empty() {
            tokio::select! {
                biased;
                () = closing.cancelled(), if !queue.is_closed() => queue.close(),
                Some(written) = self.writing.join_next() => match written {
                    Ok((lane, recorder)) => self.each[lane].recorder = Some(recorder),
                    // A defect. Whoever waits is told that nothing is recorded any more.
                    Err(_) => return,
                },
                () = self.progress.notified() => {}
                taken = queue.recv_many(&mut incoming, MAX_BATCH), if open && self.waiting() < LANES * MAX_BATCH => {
                    open = taken > 0;
                }
            }
            for pending in incoming.drain(..) {
                self.each[lane_of(&pending.entry)].waiting.push_back(pending);
            }
            while let Some((lane, batch, recorder)) = self.next() {
                self.writing.spawn(write_batch(lane, batch, recorder));
            }
            self.metrics.waits_since(self.oldest().map(Instant::into_std));
        }
    }

    fn waiting(&self) -> usize {
        self.each.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Since when the entry waits that waits longest. Those still in the queue are younger than those in lanes.
    fn oldest(&self) -> Option<Instant> {
        self.each.iter().filter_map(|lane| Some(lane.waiting.front()?.since)).min()
    }

    /// The next batch that can be written now: of what waits when no batch is before its commit, else of a lane where much
    /// waits. What is few in other lanes goes along, so that it never waits for all of them to be at rest at once.
    fn next(&mut self) -> Option<(usize, Vec<Pending>, Recorder)> {
        let settled = self.each.iter().all(|lane| lane.recorder.is_some() || lane.ending.is_reached());
        let waiting = |lane: usize| self.each[lane].waiting.len();
        let begins = |number: &usize| self.each[*number].recorder.is_some() && (settled || waiting(*number) >= BESIDE);
        // What is much goes its own lane.
        let goes_along = |lane: &usize| (1..BESIDE).contains(&waiting(*lane));
        let number = (0..LANES)
            .filter(begins)
            .find(|number| waiting(*number) > 0 || (0..LANES).any(|lane| goes_along(&lane)))?;
        let others = (0..LANES).filter(goes_along).filter(|lane| *lane != number);
        let lanes: Vec<usize> = others.chain([number]).collect();
        let mut batch = Vec::with_capacity(MAX_BATCH);
        for lane in lanes {
            let waiting = &mut self.each[lane].waiting;
            batch.extend(waiting.drain(..waiting.len().min(MAX_BATCH - batch.len())));
        }
        let recorder = self.each[number].recorder.take()?;
        recorder.ending.begin();
        Some((number, batch, recorder))
    }
}

/// What two persons do always takes the same lane, whoever of them acts.
fn lane_of(entry: &Entry) -> usize {
    let (actor, recipient) = (Some(&entry.interaction.actor), entry.interaction.recipients.first());
    let mut hasher = DefaultHasher::new();
    (&entry.tenant, actor.min(recipient), actor.max(recipient)).hash(&mut hasher);
    let [hash, ..] = hasher.finish().to_le_bytes();
    usize::from(hash) % LANES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scoring::DEFAULT, store::batch::tests::entry};

    fn lanes(waiting: [usize; LANES]) -> Lanes {
        let store = Store::new("postgresql://127.0.0.1:1/none", 4, &DEFAULT).unwrap();
        let progress = Arc::new(Notify::new());
        let mut each = std::array::from_fn(|_| Lane::new(store.clone(), Arc::clone(&progress)));
        for (lane, count) in each.iter_mut().zip(waiting) {
            lane.waiting.extend((0..count).map(|_| Pending::new(entry()).0));
        }
        Lanes { each, progress, writing: JoinSet::new(), metrics: store.metrics.clone() }
    }

    /// The lane and length of the next batch, and what waits then.
    fn next(lanes: &mut Lanes) -> (Option<(usize, usize)>, [usize; LANES]) {
        let next = lanes.next().map(|(lane, batch, _)| (lane, batch.len()));
        (next, std::array::from_fn(|lane| lanes.each[lane].waiting.len()))
    }

    #[tokio::test]
    async fn what_is_few_goes_with_whatever_batch_begins() {
        let mut few = lanes([0, 3, 4]);
        assert_eq!(next(&mut few), (Some((0, 7)), [0, 0, 0]));
        let mut much = lanes([MAX_BATCH, 0, 2]);
        assert_eq!(next(&mut much), (Some((0, MAX_BATCH)), [2, 0, 0]), "what is much leaves room");
        much.each[1].waiting.extend((0..BESIDE).map(|_| Pending::new(entry()).0));
        much.each[2].waiting.push_back(Pending::new(entry()).0);
        assert_eq!(next(&mut much), (Some((1, BESIDE + 3)), [0, 0, 0]), "while the first is before its commit");
    }

    #[tokio::test]
    async fn what_is_few_waits_for_a_commit_and_what_is_much_does_not() {
        let mut lanes = lanes([1, BESIDE, BESIDE]);
        assert_eq!(next(&mut lanes), (Some((0, 1)), [0, BESIDE, BESIDE]));
        assert_eq!(next(&mut lanes), (Some((1, BESIDE)), [0, 0, BESIDE]));
        lanes.each[2].waiting.truncate(BESIDE - 1);
        assert_eq!(next(&mut lanes), (None, [0, 0, BESIDE - 1]));
        lanes.each[0].ending.reach();
        assert_eq!(next(&mut lanes).0, None, "the second is still before its own");
        lanes.each[1].ending.reach();
        assert_eq!(next(&mut lanes), (Some((2, BESIDE - 1)), [0, 0, 0]));
    }
}
