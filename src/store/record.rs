//! Recording entries: what is new among them goes into the ledger, and with that it is recorded. What it comes to is folded
//! later, in `fold`.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::domain::Timestamp;

use super::{
    StoreError, ledger,
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

/// Records entries, and tells what became of each, in their order. What is new is committed when this returns, all or nothing.
pub(super) async fn record(connection: &mut PgConnection, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
    let mut firsts: BTreeMap<EntryKey, &Entry> = BTreeMap::new();
    for entry in entries {
        firsts.entry(entry.key()).or_insert(entry);
    }
    let candidates: Vec<&Entry> = firsts.values().copied().collect();
    let new = ledger::append(connection, &candidates, []).await?;
    // Of two entries with one key only the first can be new.
    let revision = |entry: &Entry| {
        let key = entry.key();
        new.get(&key).filter(|_| firsts.get(&key).is_some_and(|first| std::ptr::eq(*first, entry))).copied()
    };
    let known: Vec<EntryKey> = entries.iter().filter(|entry| revision(entry).is_none()).map(Entry::key).collect();
    let recorded = if known.is_empty() { HashMap::new() } else { ledger::recorded(connection, known.iter()).await? };
    entries
        .iter()
        .map(|entry| match (revision(entry), recorded.get(&entry.key())) {
            (Some(revision), _) => Ok(Outcome::Recorded { replayed: false, record_time: entry.record_time, revision }),
            (None, Some(first)) => Ok(entry.against(first)),
            (None, None) => Err(StoreError::Raced),
        })
        .collect()
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
