//! The same state as kept step by step, derived from a whole history at once: for past as-of times, for rebuilding, and
//! as the measure that everything else is held to.

use std::collections::{BTreeMap, HashMap};

use crate::domain::{Day, InteractionId, Kind, Timestamp};

use super::{Act, ActiveDay, Commitment, CommitmentKey, DayCell, Effect, Policy, Rhythm, Tie};

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

/// The rhythm that a person's acts amount to, in any order; none without an act.
pub fn fold_rhythm(acts: impl IntoIterator<Item = (Timestamp, Kind)>, policy: &Policy) -> Option<Rhythm> {
    let mut days: BTreeMap<Day, Vec<(Timestamp, Kind)>> = BTreeMap::new();
    for (time, kind) in acts {
        days.entry(time.day()).or_default().push((time, kind));
    }
    let (first, _) = *days.values().next()?.first()?;
    let mut rhythm = Rhythm::empty(first);
    for (day, acts) in days {
        rhythm.absorb_day(day, ActiveDay::default(), acts, policy);
    }
    Some(rhythm)
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
        (self.last_time, self.today) == (other.last_time, other.today)
            && all_agree(self.active, other.active)
            && all_agree(self.helped, other.helped)
    }
}
