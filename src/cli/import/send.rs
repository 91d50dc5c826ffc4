//! Sending lines over `RecordInteractions`, and going on where it broke off: whatever is not acknowledged is sent again
//! over a new stream, and the server recognises what it had recorded.

use std::{collections::VecDeque, fmt, path::PathBuf, time::Duration};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    Progress, Rejects, Resume,
    input::{Input, ReadLine},
    mapping::Line,
};
use crate::{
    cli::{Failure, client::Server, print},
    rpc::{MAX_MESSAGE_BYTES, pb},
};

/// How many lines may wait for their acknowledgement.
const WINDOW: usize = 4096;
/// How many lines are read ahead.
const READ_AHEAD: usize = 1024;
/// How often a broken stream is begun again without anything acknowledged in between.
const ATTEMPTS: u32 = 10;

/// What came of an import.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(in crate::cli) struct Totals {
    pub recorded: u64,
    pub replayed: u64,
    pub toward_self: u64,
    pub rejected: u64,
    #[serde(skip)]
    outcome: Option<String>,
}

impl Totals {
    /// How many lines were dealt with.
    pub(super) fn lines(&self) -> u64 {
        self.recorded + self.replayed + self.toward_self + self.rejected
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} recorded, {} had been before, {} toward oneself passed over, {} rejected",
            self.recorded, self.replayed, self.toward_self, self.rejected
        )?;
        self.outcome.iter().try_for_each(|outcome| write!(formatter, "{outcome}"))
    }
}

struct Sender<'a> {
    server: &'a Server,
    lines: mpsc::Receiver<ReadLine>,
    /// The lines behind the last that was dealt with.
    waiting: VecDeque<ReadLine>,
    /// All lines are read.
    exhausted: bool,
    /// The server has answered.
    reached: bool,
    progress: Progress,
    rejects: Rejects,
    resume: Resume,
}

/// Why a stream ended before everything was acknowledged.
enum Broken {
    /// It may go better with another stream.
    Passing(Status),
    /// It will not.
    ForGood(Failure),
}

impl<E: Into<Failure>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::ForGood(error.into())
    }
}

/// Sends all lines of an input, and tells what came of it.
pub(super) async fn send(server: &Server, input: Input, rejects: PathBuf, resume: Resume) -> Result<Totals, Failure> {
    let progress = Progress::start(input.size(), &resume.place.totals);
    let rejects = Rejects::new(rejects, resume.place.rejects_bytes);
    let (hand_on, lines) = mpsc::channel(READ_AHEAD);
    let reading = tokio::task::spawn_blocking(move || input.read(|line| hand_on.blocking_send(line).is_ok()));
    let waiting = VecDeque::with_capacity(WINDOW);
    let mut sender = Sender { server, lines, waiting, exhausted: false, reached: false, progress, rejects, resume };
    let mut ended = sender.run().await;
    if ended.is_ok() {
        ended = reading.await?;
    }
    let Sender { progress, mut rejects, resume, .. } = sender;
    let mut totals = resume.place.totals.clone();
    let (took, rate) = progress.finish(&totals);
    let into = if totals.rejected == 0 { String::new() } else { format!(" into {}", rejects.path().display()) };
    totals.outcome = Some(format!("{into}, in {:.1} s, {rate} a second.", took.as_secs_f64()));
    rejects.flush()?;
    if let Err(failure) = ended {
        if totals.lines() > 0 {
            print::progress(format_args!("Until it failed: {totals}"));
        }
        return Err(failure);
    }
    resume.finish();
    Ok(totals)
}

impl Sender<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut failures = 0;
        loop {
            let before = self.resume.place.line;
            match self.stream().await {
                Ok(()) => return Ok(()),
                Err(Broken::ForGood(failure)) => return Err(failure),
                Err(Broken::Passing(status)) => {
                    failures = if self.resume.place.line > before { 1 } else { failures + 1 };
                    // A server that was never there is not waited for; one that is not ready yet has answered.
                    self.reached |= std::error::Error::source(&status).is_none();
                    if failures >= ATTEMPTS || !self.reached {
                        return Err(self.server.failure(&status));
                    }
                    self.progress.say(format_args!("the stream broke ({}); trying again", status.message()));
                    sleep(Duration::from_millis(100) * 2_u32.pow(failures.min(6))).await;
                }
            }
        }
    }

    /// One stream: first what is not acknowledged yet, then more lines, until all are.
    async fn stream(&mut self) -> Result<(), Broken> {
        let (outbound, requests) = mpsc::channel(WINDOW);
        for request in self.waiting.iter().filter_map(request) {
            // The channel holds a whole window.
            let _ = outbound.try_send(request);
        }
        let call = self.server.request(ReceiverStream::new(requests));
        let mut client = self.server.client.clone();
        let mut answers = client.record_interactions(call).await.map_err(broken)?.into_inner();
        self.reached = true;
        let mut outbound = Some(outbound);
        loop {
            if self.exhausted {
                outbound = None;
                if self.waiting.is_empty() {
                    return Ok(());
                }
            }
            tokio::select! {
                answer = answers.message() => self.acknowledged(answer.map_err(broken)?)?,
                line = self.lines.recv(), if !self.exhausted && self.waiting.len() < WINDOW => match line {
                    None => self.exhausted = true,
                    Some(read) => self.take(read, outbound.as_ref()).await?,
                },
            }
        }
    }

    async fn take(
        &mut self,
        mut read: ReadLine,
        outbound: Option<&mpsc::Sender<pb::RecordInteractionsRequest>>,
    ) -> Result<(), Broken> {
        if let Some(request) = request(&read) {
            if request.encoded_len() > MAX_MESSAGE_BYTES {
                read.line = Line::Rejected("the interaction is larger than the server takes in".to_owned());
            } else if let Some(outbound) = outbound {
                // When the stream is broken, the answer that says so comes next.
                let _ = outbound.send(request).await;
            }
        }
        self.waiting.push_back(read);
        self.settle(0, Vec::new())
    }

    fn acknowledged(&mut self, answer: Option<pb::RecordInteractionsResponse>) -> Result<(), Broken> {
        let Some(answer) = answer else {
            return Err(Broken::Passing(Status::unavailable("the server ended the stream early")));
        };
        let totals = &mut self.resume.place.totals;
        totals.recorded += u64::try_from(answer.recorded_count).unwrap_or_default();
        totals.replayed += u64::try_from(answer.replayed_count).unwrap_or_default();
        self.settle(answer.sequence, answer.rejections)?;
        self.resume.place.rejects_bytes = self.rejects.flush()?;
        self.resume.save()?;
        self.progress.show(&self.resume.place.totals);
        Ok(())
    }

    /// Deals with the lines in their order, up to the first that waits for a later acknowledgement than `sequence`.
    fn settle(&mut self, sequence: i64, rejections: Vec<pb::Rejection>) -> Result<(), Broken> {
        let place = &mut self.resume.place;
        let mut rejections = rejections.into_iter().peekable();
        let is_settled = |read: &mut ReadLine| !matches!(read.line, Line::Interaction(_)) || read.number <= sequence;
        while let Some(read) = self.waiting.pop_front_if(is_settled) {
            let rejection = rejections.next_if(|rejection| rejection.sequence == read.number);
            let reason = match read.line {
                Line::Interaction(_) => rejection.map(|rejection| rejection.status.unwrap_or_default().message),
                Line::Rejected(reason) => Some(reason),
                Line::TowardSelf => {
                    place.totals.toward_self += 1;
                    None
                }
            };
            if let Some(reason) = reason {
                place.totals.rejected += 1;
                self.rejects.keep(read.number, &read.text, &reason)?;
            }
            place.line = read.number;
        }
        Ok(())
    }
}

/// What a line asks the server to record, if anything.
fn request(read: &ReadLine) -> Option<pb::RecordInteractionsRequest> {
    let Line::Interaction(interaction) = &read.line else { return None };
    Some(pb::RecordInteractionsRequest { sequence: read.number, interaction: Some((**interaction).clone()) })
}

fn broken(status: Status) -> Broken {
    let in_transport = std::error::Error::source(&status).is_some();
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::Unknown => Broken::Passing(status),
        _ if in_transport => Broken::Passing(status),
        _ => Broken::ForGood(format!("the server refused: {}", status.message()).into()),
    }
}
