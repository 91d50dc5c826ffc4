//! Loops that make calls and measure them.
//!
//! In a closed loop every caller calls again as soon as it is answered: that finds the highest rate. In an open loop calls
//! are due at a fixed rate, whether earlier ones are answered or not, and each is measured from when it was due: who waits in
//! a queue is not left out (*coordinated omission*: Tene, 2013).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{cli::Failure, service::Clock};

use super::{
    load::{Load, Random},
    target::{Stream, Target, Wrong},
};

/// The longest time that is told from longer ones, in microseconds.
const LONGEST: u64 = 60_000_000;

/// How long, by how many, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub callers: usize,
    /// Calls a second; as fast as it goes when `None`.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub measured: Duration,
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// From when a call was due to its answer, in microseconds.
    pub latencies: Histogram<u64>,
    pub errors: BTreeMap<Wrong, u64>,
    pub seconds: f64,
}

impl Measured {
    fn new() -> Result<Self, Failure> {
        Ok(Self { latencies: Histogram::new_with_max(LONGEST, 3)?, errors: BTreeMap::new(), seconds: 0.0 })
    }

    fn note(&mut self, took: Duration, times: u64, outcome: Result<(), Wrong>) {
        match outcome {
            Ok(()) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
                // Within its bounds it takes everything.
                let _ = self.latencies.record_n(micros, times);
            }
            Err(wrong) => *self.errors.entry(wrong).or_default() += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.latencies.add(&other.latencies);
        for (wrong, count) in &other.errors {
            *self.errors.entry(wrong.clone()).or_default() += count;
        }
    }

    /// Calls, or acts of a stream, a second.
    pub(super) fn rate(&self) -> f64 {
        number(self.latencies.len()) / self.seconds
    }

    /// A quantile of the latency, in milliseconds; not a number when no call ended.
    pub(super) fn milliseconds(&self, quantile: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        number(self.latencies.value_at_quantile(quantile)) / 1000.0
    }
}

pub(super) fn number(count: u64) -> f64 {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
    let count = count as f64;
    count
}

/// When a measurement begins and ends.
#[derive(Clone, Copy)]
struct Span {
    start: Instant,
    from: Instant,
    until: Instant,
}

impl Span {
    fn now(pace: &Pace) -> Self {
        let start = Instant::now();
        let from = start + pace.warm_up;
        Self { start, from, until: from + pace.measured }
    }
}

/// Makes single calls.
pub(super) async fn calls(target: &Target, load: &Arc<Load>, pace: Pace) -> Result<Measured, Failure> {
    let (span, next) = (Span::now(&pace), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..pace.callers {
        let (target, load, next, measured) = (target.clone(), Arc::clone(load), Arc::clone(&next), Measured::new()?);
        callers.spawn(calls_of_one(caller, target, load, next, pace, span, measured));
    }
    together(callers, pace).await
}

async fn calls_of_one(
    caller: usize,
    target: Target,
    load: Arc<Load>,
    next: Arc<AtomicU64>,
    pace: Pace,
    span: Span,
    mut measured: Measured,
) -> Measured {
    let mut random = Random::new(pace.seed ^ (u64::try_from(caller).unwrap_or(0) << 32));
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let call = load.call(&mut random, number);
        let due = match pace.rate {
            None => Instant::now(),
            Some(rate) => span.start + Duration::from_secs_f64(number_of_seconds(number, rate)),
        };
        if due >= span.until {
            return measured;
        }
        // Even a sleep that is over already takes until the next tick of the timer, a millisecond.
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let outcome = target.call(caller, call).await;
        let (now, failed) = (Instant::now(), outcome.is_err());
        let counts = if pace.rate.is_some() { due >= span.from } else { now >= span.from && now < span.until };
        if counts {
            measured.note(now - due, 1, outcome);
        }
        if failed {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn number_of_seconds(number_of_calls: u64, rate: f64) -> f64 {
    number(number_of_calls) / rate
}

/// Sends acts over streams, one for each caller, with at most `window` of them unacknowledged in each.
pub(super) async fn streams(target: &Target, load: &Arc<Load>, pace: Pace, window: usize) -> Result<Measured, Failure> {
    let Target::Rapport(servers, clock) = target else { return Err("only Rapport has streams".into()) };
    let span = Span::now(&pace);
    let mut callers = JoinSet::new();
    for caller in 0..pace.callers {
        let stream = Stream::open(&servers[caller % servers.len()], window).await?;
        let seed = pace.seed ^ (u64::try_from(caller).unwrap_or(0) << 32);
        let first = u64::try_from(caller).unwrap_or(0) << 40;
        let sender =
            Sender { stream, load: Arc::clone(load), clock: clock.clone(), random: Random::new(seed), next: first };
        let measured = Measured::new()?;
        callers.spawn(sender.run(span, window, measured));
    }
    together(callers, pace).await
}

struct Sender {
    stream: Stream,
    load: Arc<Load>,
    clock: Clock,
    random: Random,
    next: u64,
}

impl Sender {
    async fn run(mut self, span: Span, window: usize, mut measured: Measured) -> Measured {
        let mut sent = VecDeque::with_capacity(window);
        while Instant::now() < span.until {
            let outcome = if self.stream.waiting() < window { self.send(&mut sent).await } else { Ok(()) };
            let outcome = match outcome {
                Ok(()) if self.stream.waiting() >= window => self.acknowledged(&mut sent, span, &mut measured).await,
                outcome => outcome,
            };
            if outcome.is_err() {
                measured.note(Duration::ZERO, 1, outcome);
                break;
            }
        }
        measured
    }

    async fn send(&mut self, sent: &mut VecDeque<Instant>) -> Result<(), Wrong> {
        let act = self.load.act(&mut self.random, self.next);
        self.next += 1;
        sent.push_back(Instant::now());
        self.stream.send(act, self.clock.now()).await
    }

    async fn acknowledged(
        &mut self,
        sent: &mut VecDeque<Instant>,
        span: Span,
        measured: &mut Measured,
    ) -> Result<(), Wrong> {
        let covered = self.stream.acknowledged().await?;
        let now = Instant::now();
        for at in sent.drain(..covered.min(sent.len())) {
            if now >= span.from && now < span.until {
                measured.note(now - at, 1, Ok(()));
            }
        }
        Ok(())
    }
}

async fn together(mut callers: JoinSet<Measured>, pace: Pace) -> Result<Measured, Failure> {
    let mut all = Measured { seconds: pace.measured.as_secs_f64(), ..Measured::new()? };
    while let Some(measured) = callers.join_next().await {
        all.add(&measured?);
    }
    Ok(all)
}
