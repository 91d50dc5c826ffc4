//! Batches: entries that are recorded at once, tried again when they meet what passes, and taken apart when one of them harms the
//! others.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, Span, field::Empty};

use crate::telemetry::{
    Metrics,
    names::{self, EntryOutcome, Operation},
    trace,
};

use super::{
    Entry, Outcome, Store, StoreError,
    append::Caution,
    fold::Ahead,
    lease::{Lease, within},
    record::record,
    writer::{Pending, WriteError},
};

/// How long a batch is tried again, from its first try.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// How long a batch may take with all its tries and parts. What waits behind one that got no answer is still tried then.
const BATCH_LIMIT: Duration = Duration::from_secs(15);
/// How long an entry may wait until its batch begins. Later ones are refused before the database hears of them, so that what
/// piled up while it stood still does not keep it from what is wanted now.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Records batches over one connection for as long as that goes well.
pub(super) struct Recorder {
    store: Store,
    lease: Option<Lease>,
    /// How often the present batch was tried, with its parts.
    attempts: u32,
    caution: Caution,
    ahead: Arc<Ahead>,
}

impl Recorder {
    pub(super) fn new(store: Store, ahead: Arc<Ahead>) -> Self {
        Self { store, lease: None, attempts: 0, caution: Caution::default(), ahead }
    }

    /// Records entries at once, or those of each tenant when tables are distributed, and tells what became of each, in their
    /// order. After a lost connection the same entries can be recorded again: what was committed is recognised.
    async fn record(&mut self, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        self.attempts += 1;
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.store.lease(Operation::Record).await?,
        };
        // Distributed tables are known to take the careful statement alone.
        if self.store.is_distributed() {
            self.caution.take();
        }
        let outcomes = within(async {
            let mut outcomes = Vec::with_capacity(entries.len());
            let together = |one: &Entry, next: &Entry| one.tenant == next.tenant || !self.store.is_distributed();
            for entries in entries.chunk_by(together) {
                outcomes.extend(record(&mut lease, entries, &mut self.caution).await?);
            }
            Ok(outcomes)
        });
        let outcomes = outcomes.await;
        let (lease, outcomes) = lease.go_on(outcomes)?;
        self.lease = Some(lease);
        Ok(outcomes)
    }
}

/// Writes a batch, and answers everybody in it.
pub(super) async fn write_batch(mut batch: Vec<Pending>, mut recorder: Recorder) -> Recorder {
    let begun = Instant::now();
    let longest_wait = batch.iter().map(|pending| begun - pending.since).max().unwrap_or_default();
    recorder.store.metrics.batch_begun(batch.len(), longest_wait);
    // Whoever has hung up by now, as at a deadline, was promised nothing.
    let is_late = |pending: &mut Pending| begun - pending.since > WAIT_LIMIT || pending.answer.is_closed();
    for late in batch.extract_if(.., is_late) {
        recorder.store.metrics.entries(EntryOutcome::Dropped, 1);
        let _ = late.answer.send(Err(WriteError::Late));
    }
    if batch.is_empty() {
        return recorder;
    }
    if recorder.store.is_distributed() {
        batch.sort_by(|one, other| one.entry.tenant.cmp(&other.entry.tenant));
    }
    let span = batch_span(&batch);
    let (entries, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|pending| (pending.entry, pending.answer)).unzip();
    recorder.attempts = 0;
    let outcomes = write(&mut recorder, &entries, begun + BATCH_LIMIT).instrument(span.clone()).await;
    span.record(names::BATCH_ATTEMPTS, i64::from(recorder.attempts));
    // It ends before anybody is answered, as the work does.
    drop(span);
    count(&recorder.store.metrics, &outcomes);
    let is_new = |outcome: &_| matches!(outcome, Ok(Outcome::Recorded { replayed: false, .. }));
    let new = entries.iter().zip(&outcomes).filter(|(_, outcome)| is_new(outcome)).map(|(entry, _)| entry.acts()).sum();
    recorder.store.metrics.to_fold(new);
    recorder.ahead.add(new);
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Whoever asked may have hung up since; the entry is recorded all the same.
        let _ = answer.send(outcome);
    }
    recorder
}

/// Of nobody's trace: the batch serves many calls, and links the spans of all.
fn batch_span(batch: &[Pending]) -> Span {
    let span = tracing::debug_span!(
        parent: None,
        names::BATCH_SPAN,
        { names::BATCH_SIZE } = i64::try_from(batch.len()).unwrap_or(i64::MAX),
        { names::BATCH_ATTEMPTS } = Empty,
    );
    trace::link(&span, batch.iter().map(|pending| &pending.caller));
    span
}

/// Counts what became of entries.
fn count(metrics: &Metrics, outcomes: &[Result<Outcome, WriteError>]) {
    let [mut recorded, mut replayed, mut conflicts, mut failed] = [0; 4];
    for outcome in outcomes {
        match outcome {
            Ok(Outcome::Recorded { replayed: false, .. }) => recorded += 1,
            Ok(Outcome::Recorded { .. }) => replayed += 1,
            Ok(Outcome::Conflict) => conflicts += 1,
            Err(_) => failed += 1,
        }
    }
    metrics.entries(EntryOutcome::Recorded, recorded);
    metrics.entries(EntryOutcome::Replayed, replayed);
    metrics.entries(EntryOutcome::Conflict, conflicts);
    metrics.entries(EntryOutcome::Failed, failed);
}

/// Writes a batch. When it fails for good, its halves are written alone, so that one bad entry harms no other.
async fn write(recorder: &mut Recorder, entries: &[Entry], deadline: Instant) -> Vec<Result<Outcome, WriteError>> {
    match try_write(recorder, entries, deadline).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) if error.is_passing() || entries.len() == 1 => {
            // What the driver displays holds no values; what it would show for debugging does.
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(entries = entries.len(), error = %error, cause, "a batch was not recorded");
            let error = Arc::new(error);
            entries.iter().map(|_| Err(WriteError::Store(Arc::clone(&error)))).collect()
        }
        Err(_) => {
            let (first, second) = entries.split_at(entries.len() / 2);
            let mut outcomes = Box::pin(write(recorder, first, deadline)).await;
            outcomes.extend(Box::pin(write(recorder, second, deadline)).await);
            outcomes
        }
    }
}

async fn try_write(recorder: &mut Recorder, entries: &[Entry], deadline: Instant) -> Result<Vec<Outcome>, StoreError> {
    let begun = Instant::now();
    let mut attempt = 0;
    loop {
        match timeout_at(deadline, recorder.record(entries)).await.unwrap_or(Err(StoreError::Silent)) {
            Err(error) if error.is_passing() && begun.elapsed() < RETRY_LIMIT && Instant::now() < deadline => {
                tracing::warn!(attempt, error = %error, "recording a batch again");
                recorder.store.metrics.batch_retried();
                // Whoever won a race has committed.
                if !matches!(error, StoreError::Raced) || attempt > 0 {
                    sleep(pause(attempt)).await;
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// 20 ms, doubling up to 1.3 s, with up to half as much again so that servers do not march in step.
fn pause(attempt: u32) -> Duration {
    let base = Duration::from_millis(20) * 2_u32.pow(attempt.min(6));
    let mut random = [0; 1];
    // Without randomness the pause is merely not spread.
    let _ = getrandom::fill(&mut random);
    base + base * u32::from(random[0]) / 510
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        domain::{Draft, Faults, Interaction, InteractionId, Kind, TenantId, Timestamp},
        scoring::DEFAULT,
    };

    /// Any entry, toward so many.
    pub(in crate::store) fn entry(recipients: usize) -> Entry {
        let draft = Draft {
            actor: "bob".to_owned(),
            recipients: (0..recipients).map(|number| format!("ada-{number}")).collect(),
            interaction_time: Timestamp::from_seconds(1_767_225_600, 0),
            kind: Kind::from_number(Kind::Help.number().into()),
            ..Draft::default()
        };
        let made_id = || InteractionId::parse("one");
        let interaction = Interaction::parse(&draft, Timestamp::MAX, made_id, Faults::default()).unwrap();
        Entry { tenant: TenantId::unnamed(), interaction, record_time: Timestamp::MIN }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_never_reaches_the_database() {
        let store = Store::new("postgresql://127.0.0.1:1/none", 4, &DEFAULT).unwrap();
        let (late, told) = Pending::new(entry(1));
        tokio::time::advance(WAIT_LIMIT + Duration::from_millis(1)).await;
        let (unwanted, answer) = Pending::new(entry(1));
        drop(answer);
        let recorder = write_batch(vec![late, unwanted], Recorder::new(store, Arc::default())).await;
        assert!(matches!(told.await.unwrap(), Err(WriteError::Late)));
        assert_eq!(recorder.attempts, 0);
    }
}
