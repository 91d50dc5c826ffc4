//! One batch of entries in one transaction: into the ledger once, then into the ties, commitments and rhythms they touch,
//! each table locked in the order of its keys. The control flow is here; what changes is decided by `scoring`.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;

use crate::{
    domain::{Day, InteractionId, Timestamp},
    scoring::{
        Act, Commitment, CommitmentKey, DayCell, DayEvidence, Effect, PersonDay, Policy, Rhythm, Tie, fold_rhythm,
        fold_tie,
    },
};

use super::{
    StoreError, commitment,
    conclude::{Conclusion, Revisions, conclude},
    history,
    history::{ActsByTie, IdColumns},
    ledger,
    ledger::{Entry, EntryKey},
    rows::{CommitmentRowKey, KeyColumns, RhythmKey, TieKey},
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

/// Records entries within a transaction that the caller commits, and tells what became of each, in their order.
pub(super) async fn record(
    connection: &mut PgConnection,
    entries: &[Entry],
    policy: &Policy,
) -> Result<Vec<Outcome>, StoreError> {
    let mut firsts: BTreeMap<EntryKey, &Entry> = BTreeMap::new();
    for entry in entries {
        firsts.entry(entry.key()).or_insert(entry);
    }
    let candidates: Vec<&Entry> = firsts.values().copied().collect();
    let ties = touched(&candidates);
    let (new, kept) = ledger::insert(connection, &candidates, &ties.keys().collect()).await?;
    let mut outcomes = outcomes(connection, entries, &new).await?;
    if !new.is_empty() {
        let ties = if new.len() == candidates.len() { ties } else { touched(&new) };
        let raised = absorb(connection, &new, &ties, kept, policy).await?;
        for (outcome, entry) in outcomes.iter_mut().zip(entries) {
            // What was known before is known at the new revision too.
            if let (Outcome::Recorded { revision, .. }, Some(raised)) = (outcome, raised.get(entry.tenant.as_str())) {
                *revision = *raised;
            }
        }
    }
    Ok(outcomes)
}

async fn outcomes(
    connection: &mut PgConnection,
    entries: &[Entry],
    new: &[&Entry],
) -> Result<Vec<Outcome>, StoreError> {
    // By place, not by key: of two entries with one key only the first can be new.
    let is_new: Vec<bool> = {
        let new: HashSet<*const Entry> = new.iter().copied().map(std::ptr::from_ref).collect();
        entries.iter().map(|entry| new.contains(&std::ptr::from_ref(entry))).collect()
    };
    let known: Vec<EntryKey> =
        entries.iter().zip(&is_new).filter(|(_, is_new)| !**is_new).map(|(entry, _)| entry.key()).collect();
    let recorded = if known.is_empty() { HashMap::new() } else { ledger::recorded(connection, known.iter()).await? };
    entries
        .iter()
        .zip(is_new)
        .map(|(entry, is_new)| match recorded.get(&entry.key()) {
            // What comes out at which revision is known in the end.
            _ if is_new => Ok(Outcome::Recorded { replayed: false, record_time: entry.record_time, revision: 0 }),
            Some(first) => Ok(entry.against(first)),
            None => Err(StoreError::Raced),
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

type DaysByTie = BTreeMap<TieKey, BTreeMap<Day, Vec<Act>>>;

fn touched(entries: &[&Entry]) -> DaysByTie {
    let mut touched = DaysByTie::new();
    for (key, act) in entries.iter().flat_map(|entry| entry.acts()) {
        touched.entry(key).or_default().entry(act.time.day()).or_default().push(act);
    }
    touched
}

async fn absorb(
    connection: &mut PgConnection,
    entries: &[&Entry],
    touched: &DaysByTie,
    kept: HashMap<TieKey, Tie>,
    policy: &Policy,
) -> Result<Revisions, StoreError> {
    let ids: IdColumns<'_> = entries.iter().copied().collect();
    let effects = settle(connection, touched, policy).await?;
    let conclusion = absorb_ties(connection, touched, kept, &effects, &ids, policy).await?;
    conclude(connection, &conclusion, touched.keys().flat_map(TieKey::persons), policy).await
}

/// Which acts decide a commitment, and which overrule what decided it before.
type Effects = HashMap<TieKey, HashMap<InteractionId, Effect>>;

async fn settle(connection: &mut PgConnection, touched: &DaysByTie, policy: &Policy) -> Result<Effects, StoreError> {
    let mut acts: BTreeMap<CommitmentRowKey, Vec<(&TieKey, &Act)>> = BTreeMap::new();
    for (tie, act) in touched.iter().flat_map(|(tie, days)| days.values().flatten().map(move |act| (tie, act))) {
        if let Some(key) = CommitmentKey::of(act) {
            let row = (commitment::direction(tie, key.actor_is_committed), key.id);
            acts.entry(row).or_default().push((tie, act));
        }
    }
    let mut effects = Effects::new();
    if acts.is_empty() {
        return Ok(effects);
    }
    let keys: Vec<_> = acts.keys().cloned().collect();
    let mut kept = commitment::lock(connection, &keys).await?;
    let (mut new, mut changed) = (BTreeMap::new(), BTreeMap::new());
    for (key, acts) in acts {
        let known = kept.remove(&key);
        let target = if known.is_some() { &mut changed } else { &mut new };
        let mut commitment: Commitment = known.unwrap_or_default();
        for (tie, act) in acts {
            effects.entry(tie.clone()).or_default().insert(act.id.clone(), commitment.take_in(act, policy));
        }
        target.insert(key, commitment);
    }
    commitment::insert(connection, &new).await?;
    commitment::update(connection, &changed).await?;
    Ok(effects)
}

/// What days of a tie gained, each with the time of its latest act.
type Gains = Vec<(Timestamp, DayEvidence)>;

async fn absorb_ties(
    connection: &mut PgConnection,
    touched: &DaysByTie,
    mut kept: HashMap<TieKey, Tie>,
    effects: &Effects,
    ids: &IdColumns<'_>,
    policy: &Policy,
) -> Result<Conclusion, StoreError> {
    let effect =
        |key: &TieKey, act: &Act| effects.get(key).and_then(|of| of.get(&act.id)).copied().unwrap_or(Effect::None);
    let overruled = |key: &TieKey, days: &BTreeMap<Day, Vec<Act>>| {
        days.values().flatten().any(|act| effect(key, act) == Effect::Overrules)
    };
    let (fold, late): (Vec<&TieKey>, Vec<(TieKey, Day)>) = {
        let fold = touched.iter().filter(|(key, days)| overruled(key, days)).map(|(key, _)| key).collect();
        let late = touched.iter().flat_map(|(key, days)| {
            let tie = kept.get(key);
            let is_late = move |day: &&Day| tie.is_some_and(|tie| tie.cell_of(**day).is_none());
            days.keys().filter(is_late).map(|day| (key.clone(), *day))
        });
        (fold, late.collect())
    };
    let earlier = earlier_cells(history::acts_on_days(connection, &late, ids).await?, policy);
    let outcomes = folded_outcomes(connection, &fold, policy).await?;
    let (mut begun, mut changed, mut gains) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (key, days) in touched {
        let known = kept.remove(key);
        let target = if known.is_some() { &mut changed } else { &mut begun };
        let (mut tie, gained) = absorbed(known, key, days, &earlier, effect, policy);
        if let Some(outcomes) = outcomes.get(key) {
            tie.take_outcomes(outcomes, policy);
        }
        target.insert(key.clone(), tie);
        gains.insert(key.clone(), gained);
    }
    Ok(Conclusion { begun, changed, gained: rhythms(gains, policy), changes_more: false })
}

/// What was done on a day of a tie before this batch.
type EarlierCells = HashMap<(TieKey, Day), DayCell>;

fn earlier_cells(acts: ActsByTie, policy: &Policy) -> EarlierCells {
    let mut cells = EarlierCells::new();
    for (key, acts) in acts {
        for act in acts {
            cells.entry((key.clone(), act.time.day())).or_default().gather(&act, policy);
        }
    }
    cells
}

fn absorbed(
    known: Option<Tie>,
    key: &TieKey,
    days: &BTreeMap<Day, Vec<Act>>,
    earlier: &EarlierCells,
    effect: impl Fn(&TieKey, &Act) -> Effect,
    policy: &Policy,
) -> (Tie, Gains) {
    let first_time = days.values().flatten().map(|act| act.time).min().unwrap_or(Timestamp::MIN);
    let mut tie = known.unwrap_or_else(|| Tie::empty(first_time));
    let mut gains = Gains::new();
    for (day, acts) in days {
        let before = tie.cell_of(*day).or_else(|| earlier.get(&(key.clone(), *day)).copied()).unwrap_or_default();
        let decides = acts.iter().map(|act| (act, effect(key, act) == Effect::Decides));
        let gained = tie.absorb_day(*day, before, decides, policy);
        gains.extend(acts.iter().map(|act| act.time).max().map(|last_time| (last_time, gained)));
    }
    (tie, gains)
}

/// How the promises and asks of ties came out, from the ledger alone.
async fn folded_outcomes(
    connection: &mut PgConnection,
    keys: &[&TieKey],
    policy: &Policy,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let columns: KeyColumns<'_> = keys.iter().copied().collect();
    let acts = history::outcomes(connection, &columns).await?;
    Ok(acts.into_iter().filter_map(|(key, acts)| Some((key, fold_tie(&acts, policy)?))).collect())
}

/// What ties gained, for the rhythms of both persons.
fn rhythms(gains: BTreeMap<TieKey, Gains>, policy: &Policy) -> BTreeMap<RhythmKey, Rhythm> {
    let mut touched: BTreeMap<RhythmKey, Vec<(Timestamp, PersonDay)>> = BTreeMap::new();
    for (key, gains) in gains {
        for (last_time, gained) in gains {
            let sent = PersonDay { sent: gained.active, helped: gained.helped, received: 0.0 };
            let received = PersonDay { received: gained.active, ..PersonDay::default() };
            touched.entry((key.tenant.clone(), key.actor.clone())).or_default().push((last_time, sent));
            touched.entry((key.tenant.clone(), key.recipient.clone())).or_default().push((last_time, received));
        }
    }
    touched.into_iter().filter_map(|(key, days)| Some((key, fold_rhythm(days, policy)?))).collect()
}
