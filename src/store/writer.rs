//! The group-commit writer: many concurrent calls share one commit, and each is answered after it.
//!
//! While a batch is written, entries gather, so batches are small when there is little to do and large when there is much.
//! When much has gathered, batches are written side by side. What they add to the ledger is folded behind them; when that
//! falls too far behind, the writer waits for it. Nobody who hangs up can stop a commit half-way.

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
/// The most entries that share a commit.
pub const MAX_BATCH: usize = 512;
/// How many entries make a batch that does not wait until the one before it is committed.
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
    ahead: Arc<Ahead>,
    metrics: Metrics,
}

/// What will have become of an entry.
pub type Answer = oneshot::Receiver<Result<Outcome, WriteError>>;

impl Writer {
    /// Starts the writing task. It ends when it is closed or every writer is dropped, and the queue is empty.
    pub fn start(store: &Store) -> (Self, JoinHandle<()>) {
        let (queue, entries) = mpsc::channel(QUEUE_LEN);
        let closing = CancellationToken::new();
        let ahead = Arc::<Ahead>::default();
        let recorders =
            std::iter::repeat_with(|| Recorder::new(store.clone(), Arc::clone(&ahead))).take(LANES).collect();
        let lanes = Lanes {
            waiting: VecDeque::new(),
            recorders,
            writing: JoinSet::new(),
            ahead: Arc::clone(&ahead),
            store: store.clone(),
        };
        let writing = tokio::spawn(lanes.run(entries, closing.clone()));
        (Self { queue, closing, ahead, metrics: store.metrics.clone() }, writing)
    }

    /// Lets nothing more in. What is queued is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Folds what is unfolded, also what other servers recorded, which may be no more.
    pub fn fold_all(&self) {
        self.ahead.look();
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

/// Entries that wait, and the connections that record.
struct Lanes {
    waiting: VecDeque<Pending>,
    /// Those that do not write.
    recorders: Vec<Recorder>,
    writing: JoinSet<Recorder>,
    ahead: Arc<Ahead>,
    store: Store,
}

impl Lanes {
    async fn run(mut self, mut queue: mpsc::Receiver<Pending>, closing: CancellationToken) {
        let follow = || AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self.ahead).follow(self.store.clone())));
        let folding: [_; FOLDERS] = std::array::from_fn(|_| follow());
        let (mut incoming, mut open) = (Vec::with_capacity(MAX_BATCH), true);
        while open || !self.waiting.is_empty() || !self.writing.is_empty() {
            tokio::select! {
                biased;
                () = closing.cancelled(), if !queue.is_closed() => queue.close(),
                Some(written) = self.writing.join_next() => match written {
                    Ok(recorder) => self.recorders.push(recorder),
                    // A defect. Whoever waits is told that nothing is recorded any more.
                    Err(_) => return,
                },
                () = self.ahead.room.notified() => {}
                taken = queue.recv_many(&mut incoming, MAX_BATCH), if open && self.waiting.len() < LANES * MAX_BATCH => {
                    open = taken > 0;
                }
            }
            self.waiting.extend(incoming.drain(..));
            while let Some((batch, recorder)) = self.next() {
                self.writing.spawn(write_batch(batch, recorder));
            }
            self.store.metrics.waits_since(self.waiting.front().map(|oldest| oldest.since.into_std()));
        }
        drop(folding);
    }

    /// The next batch that can be written now: of what waits when none is being written, else when much waits.
    fn next(&mut self) -> Option<(Vec<Pending>, Recorder)> {
        let enough = if self.recorders.len() == LANES { 1 } else { BESIDE };
        if self.waiting.len() < enough || self.ahead.is_full() {
            return None;
        }
        let recorder = self.recorders.pop()?;
        Some((self.waiting.drain(..self.waiting.len().min(MAX_BATCH)).collect(), recorder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scoring::DEFAULT, store::batch::tests::entry};

    fn lanes(waiting: usize) -> Lanes {
        let store = Store::new("postgresql://127.0.0.1:1/none", 4, &DEFAULT).unwrap();
        let ahead = Arc::<Ahead>::default();
        let recorders = (0..LANES).map(|_| Recorder::new(store.clone(), Arc::clone(&ahead))).collect();
        let waiting = (0..waiting).map(|_| Pending::new(entry()).0).collect();
        Lanes { waiting, recorders, writing: JoinSet::new(), ahead, store }
    }

    /// How many entries the next batch has.
    fn next(lanes: &mut Lanes) -> Option<usize> {
        lanes.next().map(|(batch, _)| batch.len())
    }

    #[tokio::test]
    async fn what_is_few_waits_for_a_commit_and_what_is_much_does_not() {
        let mut lanes = lanes(1);
        let (batch, recorder) = lanes.next().unwrap();
        assert_eq!(batch.len(), 1);
        lanes.waiting.extend((1..BESIDE).map(|_| Pending::new(entry()).0));
        assert_eq!(next(&mut lanes), None);
        lanes.recorders.push(recorder);
        assert_eq!(next(&mut lanes), Some(BESIDE - 1));
        lanes.waiting.extend((0..BESIDE).map(|_| Pending::new(entry()).0));
        assert_eq!(next(&mut lanes), Some(BESIDE));
    }

    #[tokio::test]
    async fn nothing_is_recorded_too_far_ahead_of_what_is_folded() {
        let mut lanes = lanes(3 * MAX_BATCH);
        assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(MAX_BATCH); 2]);
        lanes.ahead.add(2 * MAX_BATCH);
        assert_eq!(next(&mut lanes), None);
    }
}
