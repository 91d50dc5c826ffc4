//! A person's own rhythm: on which days they acted at all, toward anybody. Not a rating: it only tells whether they are
//! around.

use crate::domain::{Day, Kind, Timestamp};

use super::{CLOCKS, Policy, credit::shows_around, tie::decay};

/// What a person showed on one day, toward anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveDay {
    /// Whether they did anything but harm or refuse.
    pub active: bool,
    /// Whether they helped somebody.
    pub helped: bool,
}

impl ActiveDay {
    /// Takes in one more act of the day.
    pub fn gather(&mut self, kind: Kind, policy: &Policy) {
        self.active |= shows_around(kind, policy);
        self.helped |= kind.helps();
    }
}

/// One person's decayed active days as an actor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    /// The latest act.
    pub last_time: Timestamp,
    /// What was shown on the day of the latest act.
    pub today: ActiveDay,
    /// Active days, for each clock, as of the day of the latest act.
    pub active: [f64; CLOCKS],
    /// Days of help to anybody, likewise.
    pub helped: [f64; CLOCKS],
}

impl Rhythm {
    /// The rhythm before anything happened, ready for a first act at `time`.
    pub fn empty(time: Timestamp) -> Self {
        Self { last_time: time, today: ActiveDay::default(), active: [0.0; CLOCKS], helped: [0.0; CLOCKS] }
    }

    /// What is already absorbed of `day`, when the rhythm itself knows.
    pub fn day_of(&self, day: Day) -> Option<ActiveDay> {
        match day.cmp(&self.last_time.day()) {
            std::cmp::Ordering::Greater => Some(ActiveDay::default()),
            std::cmp::Ordering::Equal => Some(self.today),
            std::cmp::Ordering::Less => None,
        }
    }

    /// Takes in acts of one day, given what was absorbed of that day before.
    pub fn absorb_day(
        &mut self,
        day: Day,
        earlier: ActiveDay,
        acts: impl IntoIterator<Item = (Timestamp, Kind)>,
        policy: &Policy,
    ) {
        let ahead = day.days_since(self.last_time.day());
        let (faded_active, faded_helped) = self.faded(ahead, policy);
        let age = self.last_time.day().days_since(day);
        let is_latest = age <= 0.0;
        (self.active, self.helped) = (faded_active, faded_helped);
        let mut seen = earlier;
        for (time, kind) in acts {
            seen.gather(kind, policy);
            self.last_time = self.last_time.max(time);
        }
        for clock in 0..CLOCKS {
            let factor = decay(age, policy.half_lives[clock]);
            self.active[clock] += f64::from(u8::from(seen.active && !earlier.active)) * factor;
            self.helped[clock] += f64::from(u8::from(seen.helped && !earlier.helped)) * factor;
        }
        if is_latest {
            self.today = seen;
        }
    }

    /// How much of a person's evidence is left, given how quiet they have become.
    pub(super) fn left(&self, as_of: Timestamp, policy: &Policy) -> Left {
        let (active, helped) = self.faded(self.last_time.day().age_at(as_of), policy);
        let of =
            |days: f64| policy.quiet_floor - (1.0 - policy.quiet_floor) * (-days / policy.quiet_scale_days).exp_m1();
        Left { all: of(active[MIDDLE]), help: of(helped[MIDDLE]) }
    }

    fn faded(&self, days: f64, policy: &Policy) -> ([f64; CLOCKS], [f64; CLOCKS]) {
        let fade =
            |sums: [f64; CLOCKS]| std::array::from_fn(|clock| sums[clock] * decay(days, policy.half_lives[clock]));
        (fade(self.active), fade(self.helped))
    }
}

/// The clock that quiet is read from.
const MIDDLE: usize = 1;

/// How much of a person's evidence is left, in (0, 1].
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Of attention exchanged.
    pub all: f64,
    /// Of help and ideas.
    pub help: f64,
}

impl Left {
    /// Of a person who never did anything.
    pub(super) fn floor(policy: &Policy) -> Self {
        Self { all: policy.quiet_floor, help: policy.quiet_floor }
    }

    /// Of a person who is around all the time.
    pub(super) const FULL: Self = Self { all: 1.0, help: 1.0 };
}
