//! Recording by stream, and going on where it broke off: whatever is not acknowledged is sent again over a new stream, and
//! the server recognises what it had recorded.

use std::{collections::VecDeque, pin::Pin};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status};

use crate::rpc::pb;

use super::{CallError, Client, name, retry};

/// How many interactions of a stream may wait for their acknowledgement.
pub const WINDOW: usize = 4096;
/// How many events may wait to be looked at.
const EVENTS: usize = 16;

/// What happens to a stream of interactions.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// A server takes interactions in: at first, and again after a break.
    Opened,
    /// Everything up to its sequence is committed or rejected.
    Acknowledged(pb::RecordInteractionsResponse),
    /// The stream broke; it is taken up again. A stream that a server ends for want of items is no break: another one is opened
    /// with the next item.
    Broken(Status),
}

/// The acknowledgements of a stream of interactions. Dropping it ends the stream, and leaves open what becomes of interactions
/// that are not acknowledged.
#[derive(Debug)]
pub struct Acknowledgements {
    events: mpsc::Receiver<Result<StreamEvent, CallError>>,
    // Ends with its owner.
    _running: JoinSet<()>,
}

impl Acknowledgements {
    /// What happens next; `None` when all interactions are acknowledged. It fails when taking the stream up again would not
    /// help, or has not for as long as the client's patience lasts.
    pub async fn next(&mut self) -> Result<Option<StreamEvent>, CallError> {
        self.events.recv().await.transpose()
    }
}

impl Client {
    /// Records everything that `items` gives, each exactly once, in a task of its own. Sequences are the caller's choice, and
    /// have to rise; interactions without an id are given one. No more is taken than the window allows to be unacknowledged.
    ///
    /// ```no_run
    /// use rapport::{client::{Client, StreamEvent}, rpc::pb};
    ///
    /// # async fn example(client: Client, interactions: Vec<pb::Interaction>) -> Result<(), rapport::client::CallError> {
    /// let items = (1..).zip(interactions).map(|(sequence, interaction)| pb::RecordInteractionsRequest {
    ///     sequence,
    ///     interaction: Some(interaction),
    /// });
    /// let mut acknowledgements = client.record_stream(tokio_stream::iter(items.collect::<Vec<_>>()));
    /// while let Some(event) = acknowledgements.next().await? {
    ///     if let StreamEvent::Acknowledged(up_to) = event {
    ///         println!("{} and all before are committed or rejected", up_to.sequence);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn record_stream(
        &self,
        items: impl Stream<Item = pb::RecordInteractionsRequest> + Send + 'static,
    ) -> Acknowledgements {
        let (events, happening) = mpsc::channel(EVENTS);
        let waiting = VecDeque::new();
        let recording = Recording { client: self.clone(), items: Box::pin(items), waiting, exhausted: false, events };
        let mut running = JoinSet::new();
        running.spawn(recording.run());
        Acknowledgements { events: happening, _running: running }
    }
}

struct Recording {
    client: Client,
    items: Pin<Box<dyn Stream<Item = pb::RecordInteractionsRequest> + Send>>,
    /// What is not acknowledged.
    waiting: VecDeque<pb::RecordInteractionsRequest>,
    /// All items are taken.
    exhausted: bool,
    events: mpsc::Sender<Result<StreamEvent, CallError>>,
}

impl Recording {
    async fn run(mut self) {
        let (mut failures, mut since) = (0, Instant::now());
        loop {
            let mut progressed = false;
            let Err(status) = self.stream(&mut progressed).await else { return };
            // A server that ends a stream for not being used is there.
            let is_unused = status.code() == Code::Aborted;
            if progressed || is_unused {
                (failures, since) = (0, Instant::now());
            }
            failures += 1;
            match retry::pause_after(&status, failures) {
                Some(pause) if since.elapsed() + pause < self.client.patience.limit => {
                    if is_unused && self.waiting.is_empty() {
                        if !self.awaits_item().await {
                            return;
                        }
                        since = Instant::now();
                        continue;
                    }
                    self.tell(Ok(StreamEvent::Broken(status))).await;
                    sleep(pause).await;
                }
                _ => return self.tell(Err(CallError::new(status, failures))).await,
            }
        }
    }

    /// One stream: first what is not acknowledged yet, then more items, until all are.
    async fn stream(&mut self, progressed: &mut bool) -> Result<(), Status> {
        let (outbound, requests) = mpsc::channel(WINDOW);
        for request in &self.waiting {
            // The channel holds a whole window.
            let _ = outbound.try_send(request.clone());
        }
        let mut client = self.client.relationships();
        let opening = timeout(self.client.patience.limit, client.record_interactions(ReceiverStream::new(requests)));
        let no_answer = |_| Status::unavailable("no stream could be opened in time");
        let mut answers = opening.await.map_err(no_answer)??.into_inner();
        self.tell(Ok(StreamEvent::Opened)).await;
        let mut outbound = Some(outbound);
        loop {
            if self.exhausted {
                outbound = None;
                if self.waiting.is_empty() {
                    return Ok(());
                }
            }
            tokio::select! {
                answer = answers.message() => {
                    let ended = || Status::unavailable("the server ended the stream early");
                    self.acknowledged(answer?.ok_or_else(ended)?).await;
                    *progressed = true;
                }
                item = self.items.next(), if !self.exhausted && self.waiting.len() < WINDOW => match item {
                    None => self.exhausted = true,
                    Some(item) => self.take(item, outbound.as_ref()),
                },
            }
        }
    }

    /// Waits until there is something to open another stream for; false when there is nothing more, or nobody listens.
    async fn awaits_item(&mut self) -> bool {
        tokio::select! {
            () = self.events.closed() => return false,
            item = self.items.next() => match item {
                None => self.exhausted = true,
                Some(item) => self.take(item, None),
            }
        }
        !self.exhausted
    }

    fn take(
        &mut self,
        mut item: pb::RecordInteractionsRequest,
        outbound: Option<&mpsc::Sender<pb::RecordInteractionsRequest>>,
    ) {
        if let Some(interaction) = &mut item.interaction {
            name(interaction);
        }
        if let Some(outbound) = outbound {
            // There is room, as less than a window waits; when the stream is broken, the answer that says so comes next.
            let _ = outbound.try_send(item.clone());
        }
        self.waiting.push_back(item);
    }

    async fn acknowledged(&mut self, answer: pb::RecordInteractionsResponse) {
        while self.waiting.pop_front_if(|item| item.sequence <= answer.sequence).is_some() {}
        self.client.saw(&answer.consistency_token);
        self.tell(Ok(StreamEvent::Acknowledged(answer))).await;
    }

    async fn tell(&mut self, event: Result<StreamEvent, CallError>) {
        // Whoever does not listen any more ends this task.
        let _ = self.events.send(event).await;
    }
}
