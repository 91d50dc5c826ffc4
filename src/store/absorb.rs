//! What new acts make of the ties, commitments and rhythms they touch. The control flow is here; what changes is decided by
//! `scoring`.

use std::collections::{BTreeMap, HashMap};

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
    commitment::Commitments,
    conclude::conclude,
    history,
    history::ActsByTie,
    rows::{CommitmentRowKey, KeyColumns, RhythmKey, TieKey},
    tie,
};

/// What acts come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Absorbed {
    /// Ties that are not kept yet.
    pub begun: BTreeMap<TieKey, Tie>,
    /// Kept ties, as they are by now.
    pub changed: BTreeMap<TieKey, Tie>,
    /// Commitments that are not kept yet.
    pub made: BTreeMap<CommitmentRowKey, Commitment>,
    /// Kept commitments, as they are by now.
    pub settled: BTreeMap<CommitmentRowKey, Commitment>,
    /// What days add to rhythms.
    pub gained: BTreeMap<RhythmKey, Rhythm>,
}

/// Takes acts into what is kept, each table locked in the order of its keys. The ledger holds them already.
pub(super) async fn absorb(connection: &mut PgConnection, acts: ActsByTie, policy: &Policy) -> Result<(), StoreError> {
    let touched = by_day(acts);
    if touched.is_empty() {
        return Ok(());
    }
    let kept = tie::lock(connection, &touched.keys().collect()).await?;
    let committing = committing(&touched);
    let keys: Vec<_> = committing.keys().cloned().collect();
    let commitments = if keys.is_empty() { Commitments::new() } else { commitment::lock(connection, &keys).await? };
    let absorbed = taken_in(connection, &touched, kept, (committing, commitments), policy).await?;
    commitment::insert(connection, &absorbed.made).await?;
    commitment::update(connection, &absorbed.settled).await?;
    conclude(connection, &absorbed, policy).await
}

/// What taking acts in would come to, in a snapshot.
pub(super) async fn absorbed(
    connection: &mut PgConnection,
    acts: ActsByTie,
    policy: &Policy,
) -> Result<Absorbed, StoreError> {
    let touched = by_day(acts);
    let kept = tie::get(connection, &touched.keys().collect()).await?;
    let committing = committing(&touched);
    let keys: Vec<_> = committing.keys().cloned().collect();
    let commitments = if keys.is_empty() { Commitments::new() } else { commitment::get(connection, &keys).await? };
    taken_in(connection, &touched, kept, (committing, commitments), policy).await
}

type DaysByTie = BTreeMap<TieKey, BTreeMap<Day, Vec<Act>>>;

fn by_day(acts: ActsByTie) -> DaysByTie {
    let mut touched = DaysByTie::new();
    for (key, acts) in acts {
        let days = touched.entry(key).or_default();
        for act in acts {
            days.entry(act.time.day()).or_default().push(act);
        }
    }
    touched
}

/// The acts that make or settle commitments.
type Committing<'a> = BTreeMap<CommitmentRowKey, Vec<(&'a TieKey, &'a Act)>>;

fn committing(touched: &DaysByTie) -> Committing<'_> {
    let mut acts = Committing::new();
    for (tie, act) in touched.iter().flat_map(|(tie, days)| days.values().flatten().map(move |act| (tie, act))) {
        if let Some(key) = CommitmentKey::of(act) {
            let row = (commitment::direction(tie, key.actor_is_committed), key.id);
            acts.entry(row).or_default().push((tie, act));
        }
    }
    acts
}

async fn taken_in(
    connection: &mut PgConnection,
    touched: &DaysByTie,
    kept: HashMap<TieKey, Tie>,
    (committing, commitments): (Committing<'_>, Commitments),
    policy: &Policy,
) -> Result<Absorbed, StoreError> {
    let mut absorbed = Absorbed::default();
    let effects = settle(committing, commitments, &mut absorbed, policy);
    take_in_ties(connection, touched, kept, &effects, &mut absorbed, policy).await?;
    Ok(absorbed)
}

/// Which acts decide a commitment, and which overrule what decided it before.
type Effects = HashMap<TieKey, HashMap<InteractionId, Effect>>;

fn settle(committing: Committing<'_>, mut kept: Commitments, absorbed: &mut Absorbed, policy: &Policy) -> Effects {
    let mut effects = Effects::new();
    for (key, acts) in committing {
        let known = kept.remove(&key);
        let target = if known.is_some() { &mut absorbed.settled } else { &mut absorbed.made };
        let mut commitment: Commitment = known.unwrap_or_default();
        for (tie, act) in acts {
            effects.entry(tie.clone()).or_default().insert(act.id.clone(), commitment.take_in(act, policy));
        }
        target.insert(key, commitment);
    }
    effects
}

/// What days of a tie gained, each with the time of its latest act.
type Gains = Vec<(Timestamp, DayEvidence)>;

async fn take_in_ties(
    connection: &mut PgConnection,
    touched: &DaysByTie,
    mut kept: HashMap<TieKey, Tie>,
    effects: &Effects,
    absorbed: &mut Absorbed,
    policy: &Policy,
) -> Result<(), StoreError> {
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
    let earlier = earlier_cells(history::acts_on_days(connection, &late).await?, touched, policy);
    let outcomes = folded_outcomes(connection, &fold, touched, policy).await?;
    let mut gains = BTreeMap::new();
    for (key, days) in touched {
        let known = kept.remove(key);
        let target = if known.is_some() { &mut absorbed.changed } else { &mut absorbed.begun };
        let (mut tie, gained) = tie_with(known, key, days, &earlier, effect, policy);
        if let Some(outcomes) = outcomes.get(key) {
            tie.take_outcomes(outcomes, policy);
        }
        target.insert(key.clone(), tie);
        gains.insert(key.clone(), gained);
    }
    absorbed.gained = rhythms(gains, policy);
    Ok(())
}

/// What was done on a day of a tie before these acts.
type EarlierCells = HashMap<(TieKey, Day), DayCell>;

fn earlier_cells(acts: ActsByTie, touched: &DaysByTie, policy: &Policy) -> EarlierCells {
    let mut cells = EarlierCells::new();
    for (key, acts) in acts {
        let new = |act: &Act| touched.get(&key).and_then(|days| days.get(&act.time.day()));
        for act in acts {
            let is_new = new(&act).is_some_and(|new| new.iter().any(|new| new.id == act.id));
            if !is_new {
                cells.entry((key.clone(), act.time.day())).or_default().gather(&act, policy);
            }
        }
    }
    cells
}

fn tie_with(
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
    touched: &DaysByTie,
    policy: &Policy,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let columns: KeyColumns<'_> = keys.iter().copied().collect();
    let mut outcomes = history::outcomes(connection, &columns).await?;
    for key in keys {
        let acts = outcomes.entry((*key).clone()).or_default();
        for act in touched.get(*key).into_iter().flat_map(BTreeMap::values).flatten() {
            if act.kind.is_outcome() && acts.iter().all(|known| known.id != act.id) {
                acts.push(act.clone());
            }
        }
    }
    Ok(outcomes.into_iter().filter_map(|(key, acts)| Some((key, fold_tie(&acts, policy)?))).collect())
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
