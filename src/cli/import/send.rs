//! Sending lines by the client's stream, which goes on where it broke off, and keeping track of what became of each.

use std::{collections::VecDeque, fmt, path::PathBuf};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Progress, Rejects, Resume,
    input::{Input, ReadLine},
    mapping::Line,
};
use crate::{
    cli::{Failure, client::Server, print},
    client::{Acknowledgements, StreamEvent, WINDOW},
    rpc::{MAX_MESSAGE_BYTES, pb},
};

/// How many lines are read ahead.
const READ_AHEAD: usize = 1024;

/// What was done to ids and words before they were sent.
const CLEANED: &str = "Characters that the server refuses were taken out, or normalized,";

/// What came of an import.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(in crate::cli) struct Totals {
    pub recorded: u64,
    pub replayed: u64,
    pub toward_self: u64,
    pub rejected: u64,
    /// Ids and words, of lines that were not rejected, that were cleaned.
    #[serde(default)]
    pub cleaned: u64,
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
        self.outcome.iter().try_for_each(|outcome| write!(formatter, "{outcome}"))?;
        match self.cleaned {
            0 => Ok(()),
            1 => write!(formatter, " {CLEANED} in 1 id or word."),
            count => write!(formatter, " {CLEANED} in {count} ids and words."),
        }
    }
}

struct Sender<'a> {
    server: &'a Server,
    lines: mpsc::Receiver<ReadLine>,
    /// Where interactions go; `None` once all lines are read.
    outbound: Option<mpsc::Sender<pb::RecordInteractionsRequest>>,
    acknowledgements: Acknowledgements,
    /// The lines behind the last that was dealt with.
    waiting: VecDeque<ReadLine>,
    /// The server has answered.
    reached: bool,
    progress: Progress,
    rejects: Rejects,
    /// The first line that was rejected, and why.
    first_rejected: Option<(i64, String)>,
    resume: Resume,
}

/// Sends all lines of an input, and tells what came of it.
pub(super) async fn send(server: &Server, input: Input, rejects: PathBuf, resume: Resume) -> Result<Totals, Failure> {
    let progress = Progress::start(input.size(), &resume.place.totals);
    let rejects = Rejects::new(rejects, resume.place.rejects_bytes);
    let (hand_on, lines) = mpsc::channel(READ_AHEAD);
    let reading = tokio::task::spawn_blocking(move || input.read(|line| hand_on.blocking_send(line).is_ok()));
    let (outbound, items) = mpsc::channel(WINDOW);
    let acknowledgements = server.client.record_stream(ReceiverStream::new(items));
    let (outbound, waiting) = (Some(outbound), VecDeque::with_capacity(WINDOW));
    let mut sender = Sender {
        server,
        lines,
        outbound,
        acknowledgements,
        waiting,
        reached: false,
        progress,
        rejects,
        first_rejected: None,
        resume,
    };
    let mut ended = sender.run().await;
    if ended.is_ok() {
        ended = reading.await?;
    }
    let Sender { progress, mut rejects, first_rejected, resume, .. } = sender;
    let mut totals = resume.place.totals.clone();
    let (took, rate) = progress.finish(&totals);
    let into = if totals.rejected == 0 { String::new() } else { format!(" into {}", rejects.path().display()) };
    totals.outcome = Some(format!("{into}, in {:.1} s, {rate} a second.", took.as_secs_f64()));
    rejects.flush()?;
    if let Some((number, reason)) = first_rejected {
        print::progress(format_args!("the first line that was rejected is line {number}: {reason}"));
    }
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
        while self.outbound.is_some() || !self.waiting.is_empty() {
            tokio::select! {
                event = self.acknowledgements.next() => {
                    match self.server.told(event).await? {
                        Some(StreamEvent::Opened) => self.reached = true,
                        Some(StreamEvent::Acknowledged(answer)) => self.acknowledged(answer)?,
                        Some(StreamEvent::Broken(status)) => self.broken(&status).await?,
                        None => return Err("the stream ended early".into()),
                    }
                }
                line = self.lines.recv(), if self.outbound.is_some() && self.waiting.len() < WINDOW => match line {
                    None => self.outbound = None,
                    Some(read) => self.take(read)?,
                },
            }
        }
        Ok(())
    }

    /// A server that was never there is not waited for; one that is not ready yet has answered.
    async fn broken(&mut self, status: &Status) -> Result<(), Failure> {
        self.reached |= std::error::Error::source(status).is_none();
        if !self.reached {
            return Err(self.server.not_there(status).await);
        }
        self.progress.say(format_args!("the stream broke ({}); trying again", status.message()));
        Ok(())
    }

    fn take(&mut self, mut read: ReadLine) -> Result<(), Failure> {
        if let Some(request) = request(&read) {
            if request.encoded_len() > MAX_MESSAGE_BYTES {
                read.line = Line::Rejected("the interaction is larger than the server takes in".to_owned());
            } else if let Some(outbound) = &self.outbound {
                // There is room for all that may wait; when the stream has ended, its last event says why.
                let _ = outbound.try_send(request);
            }
        }
        self.waiting.push_back(read);
        self.settle(0, Vec::new())
    }

    fn acknowledged(&mut self, answer: pb::RecordInteractionsResponse) -> Result<(), Failure> {
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
    fn settle(&mut self, sequence: i64, rejections: Vec<pb::Rejection>) -> Result<(), Failure> {
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
                self.first_rejected.get_or_insert_with(|| (read.number, reason.clone()));
                self.rejects.keep(read.number, &read.text, &reason)?;
            } else {
                place.totals.cleaned += read.cleaned;
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
