//! Promises and asks: what somebody committed to toward somebody, and how it came out. Which acts of which pair belong
//! together is known from their ids alone, so that an outcome may arrive before what it settles.

use crate::domain::{InteractionId, Kind, Timestamp};

use super::{Act, Policy, credit::share, tie::decay};

/// Microseconds in a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// An outcome recorded for a commitment. The earliest one decides; ids break ties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// When.
    pub time: Timestamp,
    /// Which interaction says so.
    pub id: InteractionId,
}

/// One promise, or one ask, between one who is committed and one who counts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commitment {
    /// When it was made; `None` while only an outcome is known.
    pub made_time: Option<Timestamp>,
    /// When it falls due, if ever.
    pub due_time: Option<Timestamp>,
    /// How many people it was made to; 0 while only an outcome is known.
    pub group_size: u32,
    /// The outcome that decides.
    pub outcome: Option<Outcome>,
    /// When the promise was released.
    pub released_time: Option<Timestamp>,
}

/// What an act does to the commitment that it opens or settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that a tie would have to know.
    None,
    /// It is the first outcome, and counts.
    Decides,
    /// It is earlier than the outcome that counted so far: the tie has to be folded again.
    Overrules,
}

/// Which commitment an act is about, within its pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitmentKey {
    /// Whether the actor is the one committed; else the recipient is.
    pub actor_is_committed: bool,
    /// The promise or the ask.
    pub id: InteractionId,
}

impl CommitmentKey {
    /// The commitment that `act` opens or settles, if any.
    pub fn of(act: &Act) -> Option<Self> {
        let id = if act.kind.opens() { Some(&act.id) } else { act.refers_to.as_ref().filter(|_| act.kind.settles()) };
        id.map(|id| Self { actor_is_committed: act.kind.actor_is_committed(), id: id.clone() })
    }
}

impl Commitment {
    /// Takes in an act that opens or settles it.
    pub fn take_in(&mut self, act: &Act, policy: &Policy) -> Effect {
        match act.kind {
            Kind::Promise => self.open(act, act.due_time),
            Kind::Ask => {
                let default = act.time.saturating_add_micros(i64::from(policy.ask_due_days) * DAY_MICROS);
                self.open(act, Some(act.due_time.unwrap_or(default)))
            }
            Kind::PromiseReleased => {
                self.released_time = Some(self.released_time.map_or(act.time, |time| time.min(act.time)));
                Effect::None
            }
            kind if kind.is_outcome() => self.settle(Outcome { time: act.time, id: act.id.clone() }),
            _ => Effect::None,
        }
    }

    fn open(&mut self, act: &Act, due_time: Option<Timestamp>) -> Effect {
        (self.made_time, self.due_time, self.group_size) = (Some(act.time), due_time, act.group_size);
        Effect::None
    }

    fn settle(&mut self, outcome: Outcome) -> Effect {
        match &self.outcome {
            Some(decided) if *decided <= outcome => Effect::None,
            decided => {
                let effect = if decided.is_some() { Effect::Overrules } else { Effect::Decides };
                self.outcome = Some(outcome);
                effect
            }
        }
    }

    /// When it was settled: came out one way or the other, or was released.
    pub fn settled_time(&self) -> Option<Timestamp> {
        self.outcome.as_ref().map(|outcome| outcome.time).into_iter().chain(self.released_time).min()
    }

    /// How much of a weak no it amounts to at `as_of`, 0 to 1: something only when it was left open past the day it was due;
    /// less when it was made to many, and less as that recedes.
    pub fn left_open(&self, as_of: Timestamp, policy: &Policy) -> f64 {
        let made = self.made_time.is_some_and(|time| time <= as_of);
        let open = self.settled_time().is_none_or(|time| time > as_of);
        match self.due_time {
            Some(due) if made && open && due.day() < as_of.day() => {
                share(self.group_size) * decay(due.day().age_at(as_of), policy.outcome_half_life)
            }
            _ => 0.0,
        }
    }
}
