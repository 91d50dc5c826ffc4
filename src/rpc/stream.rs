//! The stream of `RecordInteractions`: one task takes items in, another acknowledges them in order as they are committed.
//! What one reads ahead of the other is bounded, and so is what waits for a caller who does not read. A caller who loses the
//! right to record is heard no further.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::{
    domain::{Faults, InteractionId, TenantId},
    service::{Accepted, Recorded, Service, ServiceError},
};

use super::{
    admission::Turn, connections::Peer, consistency, pb, request, standing::Standing, status, unread::READ_LIMIT,
};

/// How many items of a stream may wait for their commit.
const WINDOW: usize = 4096;
/// How many items one acknowledgement covers at most: as many rejections, 4 KiB each, stay below what clients take.
const MAX_ACKNOWLEDGED: usize = 512;
/// How many bytes of rejections one acknowledgement has when it is closed; it is at most one rejection, 4 KiB, larger.
const MAX_REJECTION_BYTES: usize = 64 * 1024;
/// How many bytes of rejections of faulty items may wait for the caller of a stream. While there are more, no items are read.
const MAX_UNREAD_BYTES: u32 = 256 * 1024;
/// How many acknowledgements may wait for the caller.
const ANSWERS: usize = 2;
/// How long a stream may be open without an item, and how long after its last one.
const IDLE_LIMITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));

/// An item that was taken in.
struct Item {
    sequence: i64,
    interaction_id: String,
    taken: Taken,
}

/// What became of an item or will.
enum Taken {
    /// It waits for its commit.
    Accepted(Accepted),
    /// It is faulty; the caller's reading makes room for it.
    Rejected(pb::Rejection, OwnedSemaphorePermit),
    /// It could be neither recorded nor refused.
    Failed(ServiceError),
}

/// An acknowledgement on its way to the caller, with the room that its rejections take.
#[derive(Default)]
struct Answer {
    message: pb::RecordInteractionsResponse,
    covered: usize,
    bytes: usize,
    room: Option<OwnedSemaphorePermit>,
}

type Answers = mpsc::Sender<Result<Answer, Status>>;

/// What a stream is answered with. The turn lasts until nobody waits for it any more.
pub(super) struct Acknowledgements {
    answers: mpsc::Receiver<Result<Answer, Status>>,
    _turn: Arc<Turn>,
}

impl tokio_stream::Stream for Acknowledgements {
    type Item = Result<pb::RecordInteractionsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_recv(context).map(|answer| answer.map(|answer| answer.map(|answer| answer.message)))
    }
}

/// Records what arrives, and answers with acknowledgements, until the caller has sent all, does not use the stream, or the
/// connection goes away.
pub(super) fn record(
    service: Service,
    tenant: TenantId,
    turn: Turn,
    inbound: Streaming<pb::RecordInteractionsRequest>,
    connection: Peer,
    standing: Standing,
) -> Acknowledgements {
    let turn = Arc::new(turn);
    // One more, so that there is always room to say how the stream ended.
    let (answers, stream) = mpsc::channel(ANSWERS + 1);
    let (items, taken) = mpsc::channel(WINDOW);
    let acknowledgements = Acknowledgements { answers: stream, _turn: Arc::clone(&turn) };
    let streaming = async move {
        let Ok(last) = answers.clone().reserve_owned().await else { return };
        let told = tenant.clone();
        let intake = Intake { service, tenant, turn, items, connection: connection.clone() };
        // Nothing that was accepted is lost when taking in is given up.
        let taking_in = async {
            tokio::select! {
                ended = intake.run(inbound) => ended,
                refused = standing.lost() => Err(refused),
            }
        };
        // Items already taken in are acknowledged before the stream ends, whatever ended it.
        let (ended, broken) = tokio::join!(taking_in, acknowledge(&told, taken, answers));
        if matches!(broken, Err(ServiceError::StreamUnread)) {
            connection.unread.give_up();
        }
        if let Err(status) = broken.map_err(|error| status::of_service(&error)).and(ended) {
            last.send(Err(status));
        }
    };
    tokio::spawn(streaming.in_current_span());
    acknowledgements
}

/// The side that takes items in.
struct Intake {
    service: Service,
    tenant: TenantId,
    turn: Arc<Turn>,
    items: mpsc::Sender<Item>,
    connection: Peer,
}

impl Intake {
    async fn run(self, mut inbound: Streaming<pb::RecordInteractionsRequest>) -> Result<(), Status> {
        let room = Arc::new(Semaphore::new(usize::try_from(MAX_UNREAD_BYTES).unwrap_or(usize::MAX)));
        let mut idle = std::pin::pin!(sleep(IDLE_LIMITS.0));
        let mut last = 0;
        loop {
            let request = tokio::select! {
                message = inbound.message() => message.map_err(|broken| status::of_transport(&broken))?,
                () = self.connection.going_away.cancelled() => {
                    return Err(status::of_service(&ServiceError::ShuttingDown));
                }
                // The acknowledging side has stopped: something failed, or the caller hung up.
                () = self.items.closed() => return Ok(()),
                () = idle.as_mut() => return Err(status::of_service(&ServiceError::StreamIdle)),
            };
            let Some(request) = request else { return Ok(()) };
            if request.sequence <= last {
                let mut faults = Faults::default();
                faults.add("sequence", "must be at least 1 and higher than the one before");
                return Err(status::of_faults(&faults));
            }
            last = request.sequence;
            // A place is there before anything is accepted, so that nothing accepted goes without its acknowledgement.
            let Ok(place) = self.items.reserve().await else { return Ok(()) };
            let item = tokio::select! {
                item = self.take(request, &room) => item,
                () = self.items.closed() => return Ok(()),
            };
            place.send(item);
            idle.as_mut().reset(Instant::now() + IDLE_LIMITS.1);
        }
    }

    async fn take(&self, request: pb::RecordInteractionsRequest, room: &Arc<Semaphore>) -> Item {
        self.turn.next().await;
        let mut faults = Faults::default();
        let draft = request::draft(request.interaction, &mut faults);
        let taken = self.service.accept(self.tenant.clone(), &draft, faults).await;
        // An id that is too long is not carried along: a window of such would hold a gigabyte.
        let interaction_id = draft.interaction_id.filter(|id| id.len() <= InteractionId::MAX_BYTES).unwrap_or_default();
        let sequence = request.sequence;
        let taken = match taken {
            Ok(accepted) => Taken::Accepted(accepted),
            Err(error) => rejected(sequence, &interaction_id, error, room).await,
        };
        Item { sequence, interaction_id, taken }
    }
}

/// An item that is refused at once, as soon as there is room for its rejection.
async fn rejected(sequence: i64, interaction_id: &str, error: ServiceError, room: &Arc<Semaphore>) -> Taken {
    let rejection = match rejection(sequence, interaction_id, error) {
        Ok(rejection) => rejection,
        Err(error) => return Taken::Failed(error),
    };
    let bytes = u32::try_from(rejection.encoded_len()).unwrap_or(u32::MAX).min(MAX_UNREAD_BYTES);
    match Arc::clone(room).acquire_many_owned(bytes).await {
        Ok(permit) => Taken::Rejected(rejection, permit),
        Err(closed) => Taken::Failed(ServiceError::Internal(closed.into())),
    }
}

/// What a caller is told of an item that is refused; the error itself when it says nothing about the item.
fn rejection(sequence: i64, interaction_id: &str, error: ServiceError) -> Result<pb::Rejection, ServiceError> {
    match error {
        ServiceError::Invalid(_) | ServiceError::Conflict => Ok(pb::Rejection {
            sequence,
            interaction_id: interaction_id.to_owned(),
            status: Some(status::to_message(&status::of_service(&error))),
        }),
        error => Err(error),
    }
}

async fn acknowledge(tenant: &TenantId, mut taken: mpsc::Receiver<Item>, answers: Answers) -> Result<(), ServiceError> {
    // The latest of all: what was recorded later may have been acknowledged sooner.
    let mut revision = None;
    while let Some(first) = taken.recv().await {
        let mut answer = Answer::default();
        let mut next = Some(first);
        let mut failed = None;
        // Whatever is already there shares an acknowledgement, as commits are shared.
        while let Some(item) = next.take() {
            if let Err(error) = answer.settle(item, &mut revision).await {
                failed = Some(error);
                break;
            }
            next = if answer.is_full() { None } else { taken.try_recv().ok() };
        }
        answer.message.consistency_token = revision.map(|at| consistency::token(tenant, at)).unwrap_or_default();
        if answer.message.sequence > 0 {
            let Ok(slot) = timeout(READ_LIMIT, answers.reserve()).await else { return Err(ServiceError::StreamUnread) };
            let Ok(slot) = slot else { return Ok(()) };
            slot.send(Ok(answer));
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

impl Answer {
    /// Waits for what becomes of an item, and notes it; an error when it could be neither recorded nor refused.
    async fn settle(&mut self, item: Item, revision: &mut Option<i64>) -> Result<(), ServiceError> {
        match item.taken {
            Taken::Accepted(accepted) => match accepted.recorded().await {
                Ok(recorded) => self.count(&recorded, revision),
                Err(error) => self.reject(rejection(item.sequence, &item.interaction_id, error)?),
            },
            Taken::Rejected(rejection, room) => {
                self.reject(rejection);
                match &mut self.room {
                    Some(taken) => taken.merge(room),
                    none => *none = Some(room),
                }
            }
            Taken::Failed(error) => return Err(error),
        }
        self.message.sequence = item.sequence;
        self.covered += 1;
        Ok(())
    }

    fn count(&mut self, recorded: &Recorded, revision: &mut Option<i64>) {
        *revision = (*revision).max(recorded.revision);
        if recorded.replayed {
            self.message.replayed_count += 1;
        } else {
            self.message.recorded_count += 1;
        }
    }

    fn reject(&mut self, rejection: pb::Rejection) {
        self.bytes += rejection.encoded_len();
        self.message.rejections.push(rejection);
    }

    fn is_full(&self) -> bool {
        self.covered >= MAX_ACKNOWLEDGED || self.bytes >= MAX_REJECTION_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_reads_nothing_is_given_up_and_one_who_reads_late_is_not() {
        let tenant = TenantId::parse("a").unwrap();
        for (reads, ends) in [(0, true), (1, true), (100, false)] {
            let (answers, mut unread) = mpsc::channel::<Result<Answer, Status>>(ANSWERS);
            let (items, taken) = mpsc::channel(WINDOW);
            let room = Arc::new(Semaphore::new(1 << 30));
            for sequence in 1..=2000 {
                let taken = rejected(sequence, &"i".repeat(128), ServiceError::Invalid(Faults::default()), &room).await;
                items.send(Item { sequence, interaction_id: String::new(), taken }).await.unwrap();
            }
            drop(items);
            let reading = tokio::spawn(async move {
                for _ in 0..reads {
                    sleep(READ_LIMIT * 9 / 10).await;
                    let Some(answer) = unread.recv().await else { return };
                    assert!(answer.unwrap().bytes <= MAX_REJECTION_BYTES + 4096);
                }
                sleep(READ_LIMIT * 3).await;
            });
            let begun = Instant::now();
            let ended = acknowledge(&tenant, taken, answers).await;
            assert_eq!(matches!(ended, Err(ServiceError::StreamUnread)), ends, "{reads}: {ended:?}");
            assert!(!ends || begun.elapsed() <= READ_LIMIT * (reads + 1));
            reading.abort();
        }
    }
}
