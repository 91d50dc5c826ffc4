//! What is put under load: a server of Rapport's over its public API, or the same work in SQL written by hand.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    cli::{
        Failure,
        client::{Server, to_wire},
    },
    domain::{PersonId, Timestamp},
    rpc::pb,
    service::Clock,
    store::{Baseline, BaselineAct, StoreError},
};

use super::load::{Act, Call};

/// How many connections of a ranking are asked for.
const PAGE: i32 = 20;
/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Where calls go. Cloning is cheap.
#[derive(Clone)]
pub(super) enum Target {
    /// One server, over several connections in turn.
    Rapport(Arc<[Server]>, Clock),
    /// Statements written by hand.
    Sql(Baseline, Clock),
}

/// The name of what went wrong, for counting.
pub(super) type Wrong = String;

impl Target {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Rapport(..) => "Rapport",
            Self::Sql(..) => "SQL by hand",
        }
    }

    /// Makes a call over the connection of that number.
    pub(super) async fn call(&self, connection: usize, call: Call) -> Result<(), Wrong> {
        // It is large, and would be copied on its way into a box or the timeout.
        let work = std::pin::pin!(async {
            match (self, call) {
                (Self::Rapport(servers, clock), Call::Record(act)) => {
                    let server = &servers[connection % servers.len()];
                    let interaction = Some(interaction(act, clock.now()));
                    let request = pb::RecordInteractionRequest { interaction, validate_only: false };
                    // Measured as it comes: nothing is tried again.
                    server
                        .client
                        .relationships()
                        .record_interaction(request)
                        .await
                        .map(drop)
                        .map_err(|status| of_status(&status))
                }
                (Self::Rapport(servers, _), Call::Rank(person)) => {
                    let server = &servers[connection % servers.len()];
                    let request = pb::RankConnectionsRequest { person, page_size: PAGE, ..Default::default() };
                    server
                        .client
                        .relationships()
                        .rank_connections(request)
                        .await
                        .map(drop)
                        .map_err(|status| of_status(&status))
                }
                (Self::Sql(baseline, clock), Call::Record(act)) => {
                    baseline.record(&baseline_act(act), clock.now()).await.map_err(|error| of_store(&error))
                }
                (Self::Sql(baseline, clock), Call::Rank(person)) => {
                    let person = PersonId::parse(&person).map_err(|error| error.to_string())?;
                    baseline.rank(&person, clock.now(), PAGE.into()).await.map(drop).map_err(|error| of_store(&error))
                }
            }
        });
        timeout(CALL_LIMIT, work).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }
}

fn of_status(status: &Status) -> Wrong {
    format!("{:?}", status.code())
}

fn of_store(error: &StoreError) -> Wrong {
    error.to_string()
}

fn baseline_act(act: Act) -> BaselineAct {
    BaselineAct {
        id: act.id,
        actor: act.actor,
        recipient: act.recipient,
        kind: i16::try_from(i32::from(act.kind)).unwrap_or(0),
    }
}

fn interaction(act: Act, time: Timestamp) -> pb::Interaction {
    pb::Interaction {
        interaction_id: act.id,
        actor: act.actor,
        recipients: vec![act.recipient],
        interaction_time: Some(to_wire(time)),
        kind: act.kind.into(),
        ..Default::default()
    }
}

/// A stream of acts to a server, and its acknowledgements.
pub(super) struct Stream {
    requests: mpsc::Sender<pb::RecordInteractionsRequest>,
    answers: tonic::Streaming<pb::RecordInteractionsResponse>,
    sent: i64,
    acknowledged: i64,
}

impl Stream {
    pub(super) async fn open(server: &Server, window: usize) -> Result<Self, Failure> {
        let (requests, outbound) = mpsc::channel(window);
        let mut client = server.client.relationships();
        let answers = client.record_interactions(ReceiverStream::new(outbound)).await;
        let answers = server.told(answers.map_err(Into::into)).await?.into_inner();
        Ok(Self { requests, answers, sent: 0, acknowledged: 0 })
    }

    /// How many acts wait for their acknowledgement.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.sent - self.acknowledged).unwrap_or(0)
    }

    pub(super) async fn send(&mut self, act: Act, time: Timestamp) -> Result<(), Wrong> {
        self.sent += 1;
        let request = pb::RecordInteractionsRequest { sequence: self.sent, interaction: Some(interaction(act, time)) };
        self.requests.send(request).await.map_err(|_| "broken stream".to_owned())
    }

    /// Waits for the next acknowledgement; tells how many acts it covers.
    pub(super) async fn acknowledged(&mut self) -> Result<usize, Wrong> {
        let answer = self.answers.message().await.map_err(|status| of_status(&status))?;
        let answer = answer.ok_or_else(|| format!("{:?}", Code::Unavailable))?;
        if !answer.rejections.is_empty() {
            return Err("rejected".to_owned());
        }
        let covered = usize::try_from(answer.sequence - self.acknowledged).unwrap_or(0);
        self.acknowledged = answer.sequence;
        Ok(covered)
    }
}
