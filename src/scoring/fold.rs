//! The same state as kept step by step, derived from a whole history at once: for past as-of times, for rebuilding, and
//! as the measure that everything else is held to.

use std::collections::{BTreeMap, HashMap};

use crate::domain::{Day, InteractionId, Timestamp};

use super::{Act, Commitment, CommitmentKey, DayCell, Effect, PersonDay, Policy, Rhythm, Tie};

/// Both ties of a pair with the commitments on either side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairFold {
    /// The ties: of the first person toward the second, and back.
    pub ties: [Option<Tie>; 2],
    /// What the first and what the second committed to, by the promise or the ask.
    pub commitments: [BTreeMap<InteractionId, Commitment>; 2],
}

/// Folds what two people did toward each other: `acts[0]` by the first, `acts[1]` by the second, in any order.
pub fn fold_pair(acts: [&[Act]; 2], policy: &Policy) -> PairFold {
    let mut commitments: [BTreeMap<_, Commitment>; 2] = Default::default();
    for (actor, acts) in acts.into_iter().enumerate() {
        for act in acts {
            if let Some(key) = CommitmentKey::of(act) {
                let committed = if key.actor_is_committed { actor } else { 1 - actor };
                commitments[committed].entry(key.id).or_default().take_in(act, policy);
            }
        }
    }
    PairFold { ties: acts.map(|acts| fold_tie(acts, policy)), commitments }
}

/// The tie that one person's acts toward another amount to, in any order; none without an act.
pub fn fold_tie(acts: &[Act], policy: &Policy) -> Option<Tie> {
    let first = acts.iter().map(|act| act.time).min()?;
    let decisive = decisive_outcomes(acts, policy);
    let mut days: BTreeMap<Day, Vec<(&Act, bool)>> = BTreeMap::new();
    for act in acts {
        let decides = act.kind.is_outcome()
            && act.refers_to.as_ref().and_then(|id| decisive.get(id)).is_some_and(|outcome| *outcome == &act.id);
        days.entry(act.time.day()).or_default().push((act, decides));
    }
    let mut tie = Tie::empty(first);
    for (day, acts) in days {
        tie.absorb_day(day, DayCell::default(), acts, policy);
    }
    Some(tie)
}

/// For each commitment that these acts settle, the outcome that decides it.
fn decisive_outcomes<'a>(acts: &'a [Act], policy: &Policy) -> HashMap<&'a InteractionId, &'a InteractionId> {
    let mut commitments: HashMap<_, Commitment> = HashMap::new();
    let mut decisive = HashMap::new();
    for act in acts.iter().filter(|act| act.kind.is_outcome()) {
        if let Some(id) = &act.refers_to
            && commitments.entry(id).or_default().take_in(act, policy) != Effect::None
        {
            decisive.insert(id, &act.id);
        }
    }
    decisive
}

/// The rhythm that a person's days amount to, each with the time of its latest act, in any order; none without a day.
pub fn fold_rhythm(days: impl IntoIterator<Item = (Timestamp, PersonDay)>, policy: &Policy) -> Option<Rhythm> {
    let mut days: Vec<_> = days.into_iter().collect();
    days.sort_by_key(|(last_time, _)| *last_time);
    let mut rhythm = Rhythm::empty(days.first()?.0);
    for (last_time, day) in days {
        rhythm.absorb(last_time, &day, policy);
    }
    Some(rhythm)
}

/// The days of a person, from all acts of ties by them (`sent`) and toward them (`received`).
pub fn person_days<'a>(
    sent: impl IntoIterator<Item = &'a [Act]>,
    received: impl IntoIterator<Item = &'a [Act]>,
    policy: &Policy,
) -> Vec<(Timestamp, PersonDay)> {
    let sent = sent
        .into_iter()
        .flat_map(|acts| tie_days(acts, policy))
        .map(|(last_time, cell)| (last_time, PersonDay { sent: cell.active, received: 0.0, helped: cell.helped }));
    let received = received
        .into_iter()
        .flat_map(|acts| tie_days(acts, policy))
        .map(|(last_time, cell)| (last_time, PersonDay { received: cell.active, ..PersonDay::default() }));
    sent.chain(received).collect()
}

/// What was done on each day of one tie, and when last.
fn tie_days(acts: &[Act], policy: &Policy) -> Vec<(Timestamp, DayCell)> {
    let mut days: BTreeMap<Day, (Timestamp, DayCell)> = BTreeMap::new();
    for act in acts {
        let (last_time, cell) = days.entry(act.time.day()).or_insert((act.time, DayCell::default()));
        *last_time = act.time.max(*last_time);
        cell.gather(act, policy);
    }
    days.into_values().collect()
}

/// Whether two decayed sums are the same but for rounding: a relative difference of at most 1e-9.
pub fn agree(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs()) + 1e-15
}

fn all_agree(one: impl IntoIterator<Item = f64>, other: impl IntoIterator<Item = f64>) -> bool {
    one.into_iter().zip(other).all(|(one, other)| agree(one, other))
}

impl Tie {
    /// Whether two ties are the same but for rounding.
    pub fn agrees_with(&self, other: &Self) -> bool {
        (self.first_time, self.last_time, self.counts) == (other.first_time, other.last_time, other.counts)
            && all_agree(self.today.to_array(), other.today.to_array())
            && all_agree(self.evidence.to_array(), other.evidence.to_array())
    }
}

impl Rhythm {
    /// Whether two rhythms are the same but for rounding.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.last_time == other.last_time && all_agree(self.to_array(), other.to_array())
    }
}
