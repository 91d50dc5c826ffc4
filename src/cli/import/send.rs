//! Sending lines over `RecordInteractions`, and going on where it broke off: whatever is not acknowledged is sent again
//! over a new stream, and the server recognises what it had recorded.

use std::{collections::VecDeque, fmt, path::PathBuf, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    Progress, Rejects,
    input::{Input, ReadLine},
    mapping::Line,
};
use crate::{
    cli::{Failure, client::Server, print},
    rpc::pb,
};

/// How many lines may wait for their acknowledgement.
const WINDOW: usize = 4096;
/// How many lines are read ahead.
const READ_AHEAD: usize = 1024;
/// How often a broken stream is begun again without anything acknowledged in between.
const ATTEMPTS: u32 = 10;

/// What came of an import.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Totals {
    pub recorded: u64,
    pub replayed: u64,
    pub toward_self: u64,
    pub rejected: u64,
    outcome: Option<String>,
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

/// How far earlier attempts came, kept in a file.
pub(super) struct Resume {
    path: Option<PathBuf>,
    line: i64,
}

impl Resume {
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { path: None, line: 0 }) };
        let line = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| format!("{} holds no line number", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        Ok(Self { path: Some(path), line })
    }

    /// The last line that was dealt with.
    pub(super) fn line(&self) -> i64 {
        self.line
    }

    fn save(&mut self, line: i64) -> Result<(), Failure> {
        self.line = line;
        let Some(path) = &self.path else { return Ok(()) };
        // Written aside first, so that a break leaves the old number or the new one.
        let aside = path.with_extension("partial");
        std::fs::write(&aside, format!("{line}\n")).and_then(|()| std::fs::rename(&aside, path))?;
        Ok(())
    }

    fn finish(&self) {
        if let Some(path) = &self.path {
            // Nothing is lost when it stays: going on from the end finds nothing to do.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A line on its way.
struct Sent {
    number: i64,
    text: String,
    interaction: pb::Interaction,
}

struct Sender<'a> {
    server: &'a Server,
    lines: mpsc::Receiver<ReadLine>,
    unacknowledged: VecDeque<Sent>,
    /// All lines are read.
    exhausted: bool,
    totals: Totals,
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
pub(super) async fn send(
    server: &Server,
    input: Input,
    progress: Progress,
    rejects: Rejects,
    resume: Resume,
) -> Result<Totals, Failure> {
    let (hand_on, lines) = mpsc::channel(READ_AHEAD);
    let reading = tokio::task::spawn_blocking(move || input.read(|line| hand_on.blocking_send(line).is_ok()));
    let totals = Totals::default();
    let unacknowledged = VecDeque::with_capacity(WINDOW);
    let mut sender = Sender { server, lines, unacknowledged, exhausted: false, totals, progress, rejects, resume };
    sender.run().await?;
    reading.await??;
    let Sender { mut totals, progress, rejects, resume, .. } = sender;
    resume.finish();
    let (took, rate) = progress.finish(&totals);
    let rejected = rejects.finish()?.map_or_else(String::new, |path| format!(" into {}", path.display()));
    totals.outcome = Some(format!("{rejected}, in {:.1} s, {rate} a second.", took.as_secs_f64()));
    Ok(totals)
}

impl Sender<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut failures = 0;
        loop {
            let before = self.resume.line;
            match self.stream().await {
                Ok(()) => return Ok(()),
                Err(Broken::ForGood(failure)) => return Err(failure),
                Err(Broken::Passing(status)) => {
                    failures = if self.resume.line > before { 1 } else { failures + 1 };
                    if failures >= ATTEMPTS {
                        return Err(self.server.failure(&status));
                    }
                    print::progress(format_args!("the stream broke ({}); trying again", status.message()));
                    sleep(Duration::from_millis(100) * 2_u32.pow(failures.min(6))).await;
                }
            }
        }
    }

    /// One stream: first what is not acknowledged yet, then more lines, until all are.
    async fn stream(&mut self) -> Result<(), Broken> {
        let (outbound, requests) = mpsc::channel(WINDOW);
        for sent in &self.unacknowledged {
            // The channel holds a whole window.
            let _ = outbound.try_send(request(sent));
        }
        let call = self.server.request(ReceiverStream::new(requests));
        let mut client = self.server.client.clone();
        let mut answers = client.record_interactions(call).await.map_err(broken)?.into_inner();
        let mut outbound = Some(outbound);
        loop {
            if self.exhausted {
                outbound = None;
                if self.unacknowledged.is_empty() {
                    return Ok(());
                }
            }
            tokio::select! {
                answer = answers.message() => self.acknowledged(answer.map_err(broken)?)?,
                line = self.lines.recv(), if !self.exhausted && self.unacknowledged.len() < WINDOW => match line {
                    None => self.exhausted = true,
                    Some(read) => self.take(read, outbound.as_ref()).await?,
                },
            }
        }
    }

    async fn take(
        &mut self,
        read: ReadLine,
        outbound: Option<&mpsc::Sender<pb::RecordInteractionsRequest>>,
    ) -> Result<(), Broken> {
        match read.line {
            Line::TowardSelf => self.totals.toward_self += 1,
            Line::Rejected(reason) => {
                self.totals.rejected += 1;
                self.rejects.keep(read.number, &read.text, &reason)?;
            }
            Line::Interaction(interaction) => {
                let sent = Sent { number: read.number, text: read.text, interaction: *interaction };
                if let Some(outbound) = outbound {
                    // When the stream is broken, the answer that says so comes next.
                    let _ = outbound.send(request(&sent)).await;
                }
                self.unacknowledged.push_back(sent);
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, answer: Option<pb::RecordInteractionsResponse>) -> Result<(), Broken> {
        let Some(answer) = answer else {
            return Err(Broken::Passing(Status::unavailable("the server ended the stream early")));
        };
        self.totals.recorded += u64::try_from(answer.recorded_count).unwrap_or_default();
        self.totals.replayed += u64::try_from(answer.replayed_count).unwrap_or_default();
        let mut rejections = answer.rejections.into_iter().peekable();
        while let Some(sent) = self.unacknowledged.pop_front_if(|sent| sent.number <= answer.sequence) {
            if let Some(rejection) = rejections.next_if(|rejection| rejection.sequence == sent.number) {
                self.totals.rejected += 1;
                let reason = rejection.status.map(|status| status.message).unwrap_or_default();
                self.rejects.keep(sent.number, &sent.text, &reason)?;
            }
        }
        self.resume.save(answer.sequence)?;
        self.progress.show(&self.totals);
        Ok(())
    }
}

fn request(sent: &Sent) -> pb::RecordInteractionsRequest {
    pb::RecordInteractionsRequest { sequence: sent.number, interaction: Some(sent.interaction.clone()) }
}

fn broken(status: Status) -> Broken {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::Unknown => Broken::Passing(status),
        _ => Broken::ForGood(format!("the server refused: {}", status.message()).into()),
    }
}
