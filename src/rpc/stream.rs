//! The stream of `RecordInteractions`: one task takes items in, another acknowledges them in order as they are committed.
//! What one reads ahead of the other is bounded. A caller who loses the right to record is heard no further.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::{
    domain::{Faults, InteractionId, TenantId},
    service::{Accepted, Recorded, Service, ServiceError},
};

use super::{admission::Turn, consistency, pb, request, standing::Standing, status};

/// How many items of a stream may wait for their commit.
const WINDOW: usize = 4096;
/// How many items one acknowledgement covers at most: as many rejections, 4 KiB each, stay below what clients take.
const MAX_ACKNOWLEDGED: usize = 512;
/// How many acknowledgements may wait for the caller.
const ANSWERS: usize = 16;

/// An item that was taken in, and what became of it or will.
struct Item {
    sequence: i64,
    interaction_id: String,
    taken: Result<Accepted, ServiceError>,
}

type Answers = mpsc::Sender<Result<pb::RecordInteractionsResponse, Status>>;

/// Records what arrives, and answers with acknowledgements, until the caller has sent all or the connection goes away.
pub(super) fn record(
    service: Service,
    tenant: TenantId,
    turn: Turn,
    inbound: Streaming<pb::RecordInteractionsRequest>,
    going_away: CancellationToken,
    standing: Standing,
) -> ReceiverStream<Result<pb::RecordInteractionsResponse, Status>> {
    let (answers, stream) = mpsc::channel(ANSWERS);
    let (items, taken) = mpsc::channel(WINDOW);
    let told = tenant.clone();
    let streaming = async move {
        // Nothing that was accepted is lost when taking in is given up.
        let taking_in = async {
            tokio::select! {
                ended = take_in(service, tenant, &turn, inbound, items, going_away) => ended,
                refused = standing.lost() => Err(refused),
            }
        };
        // Items already taken in are acknowledged before the stream ends, whatever ended it.
        let (ended, broken) = tokio::join!(taking_in, acknowledge(&told, taken, answers.clone()));
        if let Err(status) = broken.and(ended) {
            // The caller may be gone; then nobody needs to know.
            let _ = answers.send(Err(status)).await;
        }
    };
    tokio::spawn(streaming.in_current_span());
    ReceiverStream::new(stream)
}

async fn take_in(
    service: Service,
    tenant: TenantId,
    turn: &Turn,
    mut inbound: Streaming<pb::RecordInteractionsRequest>,
    items: mpsc::Sender<Item>,
    going_away: CancellationToken,
) -> Result<(), Status> {
    let mut last = 0;
    loop {
        let request = tokio::select! {
            message = inbound.message() => message.map_err(|broken| status::of_transport(&broken))?,
            () = going_away.cancelled() => return Err(status::of_service(&ServiceError::ShuttingDown)),
            // The acknowledging side has stopped: something failed, or the caller hung up.
            () = items.closed() => return Ok(()),
        };
        let Some(request) = request else { return Ok(()) };
        if request.sequence <= last {
            let mut faults = Faults::default();
            faults.add("sequence", "must be at least 1 and higher than the one before");
            return Err(status::of_faults(&faults));
        }
        last = request.sequence;
        // A place is there before anything is accepted, so that nothing accepted goes without its acknowledgement.
        let Ok(place) = items.reserve().await else { return Ok(()) };
        turn.next().await;
        let mut faults = Faults::default();
        let draft = request::draft(request.interaction, &mut faults);
        let taken = service.accept(tenant.clone(), &draft, faults).await;
        // An id that is too long is not carried along: a window of such would hold a gigabyte.
        let interaction_id = draft.interaction_id.filter(|id| id.len() <= InteractionId::MAX_BYTES).unwrap_or_default();
        place.send(Item { sequence: last, interaction_id, taken });
    }
}

async fn acknowledge(tenant: &TenantId, mut taken: mpsc::Receiver<Item>, answers: Answers) -> Result<(), Status> {
    // The latest of all: what was recorded later may have been acknowledged sooner.
    let mut revision = None;
    while let Some(first) = taken.recv().await {
        let mut acknowledgement = pb::RecordInteractionsResponse::default();
        let mut covered = 0;
        let mut next = Some(first);
        let mut failed = None;
        // Whatever is already there shares an acknowledgement, as commits are shared.
        while let Some(item) = next.take() {
            if let Err(error) = settle(item, &mut acknowledgement, &mut revision).await {
                failed = Some(status::of_service(&error));
                break;
            }
            covered += 1;
            next = if covered < MAX_ACKNOWLEDGED { taken.try_recv().ok() } else { None };
        }
        acknowledgement.consistency_token = revision.map(|at| consistency::token(tenant, at)).unwrap_or_default();
        if acknowledgement.sequence > 0 && answers.send(Ok(acknowledgement)).await.is_err() {
            return Ok(());
        }
        if let Some(status) = failed {
            return Err(status);
        }
    }
    Ok(())
}

/// Waits for what becomes of an item, and notes it; an error when it could be neither recorded nor refused.
async fn settle(
    item: Item,
    acknowledgement: &mut pb::RecordInteractionsResponse,
    revision: &mut Option<i64>,
) -> Result<(), ServiceError> {
    let recorded = match item.taken {
        Ok(accepted) => accepted.recorded().await,
        Err(error) => Err(error),
    };
    if let Ok(recorded) = &recorded {
        *revision = (*revision).max(recorded.revision);
    }
    match recorded {
        Ok(Recorded { replayed: false, .. }) => acknowledgement.recorded_count += 1,
        Ok(Recorded { replayed: true, .. }) => acknowledgement.replayed_count += 1,
        Err(error @ (ServiceError::Invalid(_) | ServiceError::Conflict)) => {
            acknowledgement.rejections.push(pb::Rejection {
                sequence: item.sequence,
                interaction_id: item.interaction_id,
                status: Some(status::to_message(&status::of_service(&error))),
            });
        }
        Err(error) => return Err(error),
    }
    acknowledgement.sequence = item.sequence;
    Ok(())
}
