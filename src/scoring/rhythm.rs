//! A person's own rhythm: on how many tie-days they acted toward anybody, helped anybody, and were acted toward. A tie-day
//! is a day of one tie, so that a rhythm is the sum of ties and can be added to in any order. Not a rating: it only tells
//! whether they are around, and whether what they send comes back.

use crate::domain::{Day, Timestamp};

use super::{CLOCKS, Evidence, Policy, tie::decay};

/// What one day added to a person's rhythm, toward and from anybody, in tie-days.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PersonDay {
    /// Active tie-days as an actor.
    pub sent: f64,
    /// Active tie-days of others toward them.
    pub received: f64,
    /// Tie-days of help as an actor.
    pub helped: f64,
}

/// One person's decayed tie-days, for each clock, as of the day of the latest act.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    /// The latest act by them or toward them.
    pub last_time: Timestamp,
    /// Active tie-days as an actor.
    pub sent: [f64; CLOCKS],
    /// Active tie-days of others toward them.
    pub received: [f64; CLOCKS],
    /// Tie-days of help as an actor.
    pub helped: [f64; CLOCKS],
}

/// How many numbers a [`Rhythm`] holds beside its time.
pub const RHYTHM_LEN: usize = 3 * CLOCKS;

impl Rhythm {
    /// The rhythm before anything happened, ready for a first act at `time`.
    pub fn empty(time: Timestamp) -> Self {
        Self { last_time: time, sent: [0.0; CLOCKS], received: [0.0; CLOCKS], helped: [0.0; CLOCKS] }
    }

    /// All sums in a fixed order, for storage.
    pub fn to_array(&self) -> [f64; RHYTHM_LEN] {
        let mut array = [0.0; RHYTHM_LEN];
        for (place, sum) in array.iter_mut().zip([self.sent, self.received, self.helped].into_iter().flatten()) {
            *place = sum;
        }
        array
    }

    /// The sums from that order.
    pub fn from_array(last_time: Timestamp, array: &[f64; RHYTHM_LEN]) -> Self {
        let sums = |which: usize| std::array::from_fn(|clock| array[which * CLOCKS + clock]);
        Self { last_time, sent: sums(0), received: sums(1), helped: sums(2) }
    }

    /// Takes in what a day gained, of which the latest act was at `last_time`.
    pub fn absorb(&mut self, last_time: Timestamp, gained: &PersonDay, policy: &Policy) {
        let PersonDay { sent, received, helped } = *gained;
        let day = Self { last_time, sent: [sent; CLOCKS], received: [received; CLOCKS], helped: [helped; CLOCKS] };
        self.add(&day, policy);
    }

    /// Adds more of the same person, as of the later of the two days.
    pub fn add(&mut self, more: &Self, policy: &Policy) {
        let (day, own_day) = (more.day(), self.day());
        let (ahead, age) = (day.days_since(own_day), own_day.days_since(day));
        for clock in 0..CLOCKS {
            let half_life = policy.half_lives[clock];
            let (fade, factor) = (decay(ahead, half_life), decay(age, half_life));
            self.sent[clock] = self.sent[clock] * fade + more.sent[clock] * factor;
            self.received[clock] = self.received[clock] * fade + more.received[clock] * factor;
            self.helped[clock] = self.helped[clock] * fade + more.helped[clock] * factor;
        }
        self.last_time = self.last_time.max(more.last_time);
    }

    /// The day of the latest act.
    pub fn day(&self) -> Day {
        self.last_time.day()
    }

    /// What there is beside one pair, whose evidence is that as of `as_of` too: by the person toward the other, and back.
    pub(super) fn elsewhere(&self, as_of: Timestamp, own: &Evidence, back: &Evidence, policy: &Policy) -> Elsewhere {
        let age = self.day().age_at(as_of);
        let of = |sums: [f64; CLOCKS], pair: [f64; CLOCKS]| {
            std::array::from_fn(|clock| (sums[clock] * decay(age, policy.half_lives[clock]) - pair[clock]).max(0.0))
        };
        Elsewhere {
            sent: of(self.sent, own.attention),
            received: of(self.received, back.attention),
            helped: of(self.helped, [0.0; CLOCKS]),
        }
    }
}

/// What a person's rhythm is beside one pair, so that nothing done within the pair changes it: only of help all counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elsewhere {
    pub sent: [f64; CLOCKS],
    pub received: [f64; CLOCKS],
    pub helped: [f64; CLOCKS],
}

impl Elsewhere {
    /// How far attention that is not returned in one pair still counts, 0 to 1: in full when a third of what the person
    /// sends to others comes back from them, not at all from somebody whom nobody answers.
    pub(super) fn answered(&self) -> f64 {
        let longest = CLOCKS - 1;
        let received = (self.received[longest] - ROUNDING_DAYS).max(0.0);
        (ANSWERED_SCALE * received / (self.sent[longest] + ANSWERED_FLOOR_DAYS)).min(1.0)
    }
}

/// How many times over it counts when what is sent comes back.
const ANSWERED_SCALE: f64 = 3.0;
/// What keeps a few answers to next to nothing from looking like much.
const ANSWERED_FLOOR_DAYS: f64 = 0.01;
/// What rounding leaves of a sum out of which a pair was taken, at most: it is no answer.
const ROUNDING_DAYS: f64 = 1e-6;
