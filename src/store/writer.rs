//! The group-commit writer: many concurrent calls share one commit, and each is answered after it.
//!
//! While a batch is written, entries gather, so batches are small when there is little to do and large when there is much.
//! When much has gathered, batches are written side by side. Single calls and streams wait in lines of their own and share
//! batches, so that neither keeps the other waiting. What is added to the ledger is folded behind; when that falls too far
//! behind, the writer waits for it. Nobody who hangs up can stop a commit half-way.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::telemetry::{Metrics, trace::Caller};

use super::{
    Entry, Outcome, Store, StoreError,
    batch::{Recorder, write_batch},
    fold::{Ahead, FOLDERS},
};

/// How many batches can be written at once, each over a connection that is kept for it.
pub const LANES: usize = 2;
/// With how many acts a batch takes no more.
pub const MAX_BATCH: usize = 512;
/// How many acts make a batch that does not wait until the one before it is committed.
const BESIDE: usize = 64;
/// The most entries of single calls, and of streams, that wait beyond some [`LANES`] times [`MAX_BATCH`] of them. More calls
/// are refused; streams wait.
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

/// The way into the lines. Cloning is cheap; the writer stops when it is closed, or when the last one is gone.
#[derive(Clone, Debug)]
pub struct Writer {
    calls: mpsc::Sender<Pending>,
    streams: mpsc::Sender<Pending>,
    closing: CancellationToken,
    ahead: Arc<Ahead>,
    metrics: Metrics,
}

/// What will have become of an entry.
pub type Answer = oneshot::Receiver<Result<Outcome, WriteError>>;

impl Writer {
    /// Starts the writing task. It ends when it is closed or every writer is dropped, and nobody waits.
    pub fn start(store: &Store) -> (Self, JoinHandle<()>) {
        let ([calls, streams], lanes) = lanes(store);
        let (closing, ahead) = (CancellationToken::new(), Arc::clone(&lanes.ahead));
        let writing = tokio::spawn(lanes.run(closing.clone()));
        (Self { calls, streams, closing, ahead, metrics: store.metrics.clone() }, writing)
    }

    /// Lets nothing more in. What waits is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Folds what is unfolded, also what other servers recorded, which may be no more.
    pub fn fold_all(&self) {
        self.ahead.look();
    }

    /// Queues the entry of a single call, or refuses it at once when too many wait.
    pub fn offer(&self, entry: Entry) -> Result<Answer, WriteError> {
        let (pending, answered) = Pending::new(entry);
        self.calls.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        self.metrics.queued();
        Ok(answered)
    }

    /// Queues an entry of a stream as soon as there is room.
    pub async fn push(&self, entry: Entry) -> Result<Answer, WriteError> {
        let place = self.streams.reserve().await.map_err(|_| WriteError::Stopped)?;
        let (pending, answered) = Pending::new(entry);
        place.send(pending);
        self.metrics.queued();
        Ok(answered)
    }
}

/// Entries that wait, in the order in which they came.
struct Line {
    arriving: mpsc::Receiver<Pending>,
    arrived: Vec<Pending>,
    /// What the next batches are made of.
    waiting: VecDeque<Pending>,
    is_open: bool,
}

impl Line {
    fn new() -> (mpsc::Sender<Pending>, Self) {
        let (queue, arriving) = mpsc::channel(QUEUE_LEN);
        (queue, Self { arriving, arrived: Vec::with_capacity(MAX_BATCH), waiting: VecDeque::new(), is_open: true })
    }

    /// Whether it takes in what arrives.
    fn takes_in(&self) -> bool {
        self.is_open && self.waiting.len() < LANES * MAX_BATCH
    }

    /// How many of the entries that have waited longest come to so many acts, the last one included, and to how many.
    fn first(&self, enough: usize) -> (usize, usize) {
        let (mut entries, mut acts) = (0, 0);
        for pending in &self.waiting {
            if acts >= enough {
                break;
            }
            entries += 1;
            acts += pending.entry.acts();
        }
        (entries, acts)
    }

    /// Takes in what has arrived, as soon as anything has, or closes when nothing more can.
    async fn take_in(&mut self) {
        self.is_open = self.arriving.recv_many(&mut self.arrived, MAX_BATCH).await > 0;
        self.waiting.extend(self.arrived.drain(..));
    }
}

/// Those who wait, and the connections that record.
struct Lanes {
    calls: Line,
    streams: Line,
    /// Those that do not write.
    recorders: Vec<Recorder>,
    writing: JoinSet<Recorder>,
    ahead: Arc<Ahead>,
    store: Store,
}

/// The ways in for single calls and for streams, and where they lead.
fn lanes(store: &Store) -> ([mpsc::Sender<Pending>; 2], Lanes) {
    let ahead = Arc::<Ahead>::default();
    let recorders = std::iter::repeat_with(|| Recorder::new(store.clone(), Arc::clone(&ahead))).take(LANES).collect();
    let ((to_calls, calls), (to_streams, streams)) = (Line::new(), Line::new());
    let lanes = Lanes { calls, streams, recorders, writing: JoinSet::new(), ahead, store: store.clone() };
    ([to_calls, to_streams], lanes)
}

impl Lanes {
    async fn run(mut self, closing: CancellationToken) {
        let follow = || AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self.ahead).follow(self.store.clone())));
        let folding: [_; FOLDERS] = std::array::from_fn(|_| follow());
        let mut is_closing = false;
        while self.calls.is_open || self.streams.is_open || self.waiting() > 0 || !self.writing.is_empty() {
            tokio::select! {
                () = closing.cancelled(), if !is_closing => {
                    is_closing = true;
                    self.calls.arriving.close();
                    self.streams.arriving.close();
                }
                Some(written) = self.writing.join_next() => match written {
                    Ok(recorder) => self.recorders.push(recorder),
                    // A defect. Whoever waits is told that nothing is recorded any more.
                    Err(_) => return,
                },
                () = self.ahead.room.notified() => {}
                () = self.calls.take_in(), if self.calls.takes_in() => {}
                () = self.streams.take_in(), if self.streams.takes_in() => {}
            }
            while let Some((batch, recorder)) = self.next() {
                self.writing.spawn(write_batch(batch, recorder));
            }
            let firsts = [&self.calls, &self.streams].into_iter().filter_map(|line| line.waiting.front());
            self.store.metrics.waits_since(firsts.map(|oldest| oldest.since.into_std()).min());
        }
        drop(folding);
    }

    fn waiting(&self) -> usize {
        self.calls.waiting.len() + self.streams.waiting.len()
    }

    /// The next batch that can be written now: of what waits when none is being written, else when much waits. When it cannot
    /// hold all, single calls and streams have half of it each, or what the others leave.
    fn next(&mut self) -> Option<(Vec<Pending>, Recorder)> {
        let enough = if self.recorders.len() == LANES { 1 } else { BESIDE };
        let waiting = self.calls.first(enough).1 + self.streams.first(enough).1;
        if waiting < enough || self.ahead.is_full() {
            return None;
        }
        let recorder = self.recorders.pop()?;
        let share = self.streams.first(MAX_BATCH / 2).1.min(MAX_BATCH / 2);
        let (of_calls, acts) = self.calls.first(MAX_BATCH - share);
        let (of_streams, _) = self.streams.first(MAX_BATCH.saturating_sub(acts).max(share));
        let (calls, streams) = (&mut self.calls.waiting, &mut self.streams.waiting);
        Some((calls.drain(..of_calls).chain(streams.drain(..of_streams)).collect(), recorder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::MAX_RECIPIENTS, scoring::DEFAULT, store::batch::tests::entry};

    fn waiting(entries: usize) -> impl Iterator<Item = Pending> {
        groups(entries, 1)
    }

    fn groups(entries: usize, recipients: usize) -> impl Iterator<Item = Pending> {
        (0..entries).map(move |_| Pending::new(entry(recipients)).0)
    }

    fn with(calls: usize, streams: usize) -> Lanes {
        let (_, mut lanes) = lanes(&Store::new("postgresql://127.0.0.1:1/none", 4, &DEFAULT).unwrap());
        lanes.calls.waiting.extend(waiting(calls));
        lanes.streams.waiting.extend(waiting(streams));
        lanes
    }

    /// How many entries the next batch has.
    fn next(lanes: &mut Lanes) -> Option<usize> {
        lanes.next().map(|(batch, _)| batch.len())
    }

    #[tokio::test]
    async fn what_is_few_waits_for_a_commit_and_what_is_much_does_not() {
        let mut lanes = with(1, 0);
        let (batch, recorder) = lanes.next().unwrap();
        assert_eq!(batch.len(), 1);
        lanes.calls.waiting.extend(waiting(BESIDE - 1));
        assert_eq!(next(&mut lanes), None);
        lanes.recorders.push(recorder);
        assert_eq!(next(&mut lanes), Some(BESIDE - 1));
        lanes.streams.waiting.extend(waiting(BESIDE));
        assert_eq!(next(&mut lanes), Some(BESIDE));
    }

    #[tokio::test]
    async fn nothing_is_recorded_too_far_ahead_of_what_is_folded() {
        let mut lanes = with(3 * MAX_BATCH, 0);
        assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(MAX_BATCH); 2]);
        lanes.ahead.add(2 * MAX_BATCH);
        assert_eq!(next(&mut lanes), None);
    }

    #[tokio::test]
    async fn what_concerns_many_counts_for_as_many_and_keeps_nobody_waiting() {
        const MANY: usize = MAX_RECIPIENTS;
        let enough = MAX_BATCH.div_ceil(MANY);
        for (calls, streams, shares) in [
            ((20, MANY), (0, 1), [enough, 0]),
            ((0, 1), (20, MANY), [0, enough]),
            ((20, MANY), (20, MANY), [3, 3]),
            ((20, MANY), (1, MANY), [5, 1]),
            ((1, MANY), (20, MANY), [1, 5]),
            ((20, MANY), (1, 1), [enough, 1]),
            ((1, 1), (20, MANY), [1, enough]),
        ] {
            let mut lanes = with(0, 0);
            lanes.calls.waiting.extend(groups(calls.0, calls.1));
            lanes.streams.waiting.extend(groups(streams.0, streams.1));
            lanes.next().unwrap();
            let left = [lanes.calls.waiting.len(), lanes.streams.waiting.len()];
            assert_eq!([calls.0 - left[0], streams.0 - left[1]], shares);
        }
    }

    #[tokio::test]
    async fn calls_and_streams_share_what_cannot_hold_all() {
        let half = MAX_BATCH / 2;
        for (calls, streams, shares) in [
            (10, 20, [10, 20]),
            (MAX_BATCH, MAX_BATCH, [half, half]),
            (10, MAX_BATCH, [10, MAX_BATCH - 10]),
            (MAX_BATCH, 10, [MAX_BATCH - 10, 10]),
            (0, MAX_BATCH + 1, [0, MAX_BATCH]),
            (MAX_BATCH + 1, 0, [MAX_BATCH, 0]),
        ] {
            let mut lanes = with(calls, streams);
            lanes.next().unwrap();
            let left = [lanes.calls.waiting.len(), lanes.streams.waiting.len()];
            assert_eq!([calls - left[0], streams - left[1]], shares);
        }
    }
}
