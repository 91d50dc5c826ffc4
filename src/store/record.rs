//! Recording entries: what is new among them goes into the ledger, and with that it is recorded. What it comes to is folded
//! later, in `fold`.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::domain::{InteractionId, TenantId, Timestamp};

use super::{
    StoreError,
    append::{Caution, append},
    ledger,
    ledger::{Entry, EntryKey},
};

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the ledger now.
    Recorded {
        /// Whether it had been before, with the same content.
        replayed: bool,
        /// When it was first recorded.
        record_time: Timestamp,
        /// A revision of its tenant that shows it.
        revision: i64,
    },
    /// Its id stands for other content.
    Conflict,
}

fn key(entry: &Entry) -> (&TenantId, &InteractionId) {
    (&entry.tenant, &entry.interaction.id)
}

/// Records entries, and tells what became of each, in their order. What is new is committed when this returns, all or nothing.
pub(super) async fn record(
    connection: &mut PgConnection,
    entries: &[Entry],
    caution: &mut Caution,
) -> Result<Vec<Outcome>, StoreError> {
    let mut candidates: Vec<&Entry> = entries.iter().collect();
    candidates.sort_by(|one, other| key(one).cmp(&key(other)));
    // Of entries with one key only the first can be new.
    candidates.dedup_by(|later, first| key(later) == key(first));
    let appended = append(connection, &candidates, caution).await?;
    let is_candidate = |entry: &Entry| {
        let place = candidates.binary_search_by(|other| key(other).cmp(&key(entry))).ok();
        place.and_then(|place| candidates.get(place)).is_some_and(|first| std::ptr::eq(*first, entry))
    };
    let revision = |entry| appended.revision_of(entry).filter(|_| is_candidate(entry));
    let revisions: Vec<Option<i64>> = entries.iter().map(revision).collect();
    let of_known = entries.iter().zip(&revisions).filter(|(_, revision)| revision.is_none());
    let known: Vec<EntryKey> = of_known.map(|(entry, _)| entry.key()).collect();
    let recorded = if known.is_empty() { HashMap::new() } else { ledger::recorded(connection, known.iter()).await? };
    let outcome = |(entry, revision): (&Entry, _)| match revision {
        Some(revision) => Ok(Outcome::Recorded { replayed: false, record_time: entry.record_time, revision }),
        None => recorded.get(&entry.key()).map(|first| entry.against(first)).ok_or(StoreError::Raced),
    };
    entries.iter().zip(revisions).map(outcome).collect()
}

impl Entry {
    /// What became of it, given what the ledger holds under its id. When that was recorded at the very time this entry
    /// arrived, it is this entry, committed by an attempt whose answer was lost.
    pub(super) fn against(&self, first: &ledger::Recorded) -> Outcome {
        if first.fingerprint == self.interaction.fingerprint() {
            let record_time = first.record_time;
            Outcome::Recorded { replayed: record_time != self.record_time, record_time, revision: first.revision }
        } else {
            Outcome::Conflict
        }
    }
}
