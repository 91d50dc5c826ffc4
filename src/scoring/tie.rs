//! Ties: the directed, decaying evidence of one actor toward one recipient. What the evidence says about willingness is in
//! `willingness`; which outcomes count is in `commitment`.

use crate::domain::{Day, Kind, Timestamp};

use super::{Act, CLOCKS, DayCell, DayEvidence, Policy};

/// Decayed sums of evidence. All are at least 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Attention: active days, for each clock.
    pub attention: [f64; CLOCKS],
    /// Help: its credit, in days of half an hour, for each clock.
    pub help: [f64; CLOCKS],
    /// Promises kept.
    pub kept: f64,
    /// Promises broken.
    pub broken: f64,
    /// Asks granted.
    pub granted: f64,
    /// Asks declined.
    pub declined: f64,
    /// Promotions.
    pub promotions: f64,
    /// Violations reported.
    pub violations: f64,
}

/// How many numbers [`Evidence`] holds.
pub const EVIDENCE_LEN: usize = 2 * CLOCKS + 6;

impl Evidence {
    /// All sums in a fixed order, for storage.
    pub fn to_array(&self) -> [f64; EVIDENCE_LEN] {
        let mut array = [0.0; EVIDENCE_LEN];
        let clocked = [self.attention, self.help];
        let single = [self.kept, self.broken, self.granted, self.declined, self.promotions, self.violations];
        for (place, value) in array.iter_mut().zip(clocked.into_iter().flatten().chain(single)) {
            *place = value;
        }
        array
    }

    /// The sums from that order.
    pub fn from_array(array: &[f64; EVIDENCE_LEN]) -> Self {
        let clocked = |feature: usize| std::array::from_fn(|clock| array[feature * CLOCKS + clock]);
        let [.., kept, broken, granted, declined, promotions, violations] = *array;
        Self { attention: clocked(0), help: clocked(1), kept, broken, granted, declined, promotions, violations }
    }

    /// The same sums, that many days later.
    #[must_use]
    pub fn faded(mut self, days: f64, policy: &Policy) -> Self {
        if days > 0.0 {
            for clock in 0..CLOCKS {
                let factor = decay(days, policy.half_lives[clock]);
                self.attention[clock] *= factor;
                self.help[clock] *= factor;
            }
            let outcome = decay(days, policy.outcome_half_life);
            let outcomes = [&mut self.kept, &mut self.broken, &mut self.granted, &mut self.declined];
            for sum in outcomes {
                *sum *= outcome;
            }
            let harm = decay(days, policy.harm_half_life);
            self.promotions *= harm;
            self.violations *= harm;
        }
        self
    }

    /// Adds what a day gained, aged by that many days.
    fn add_day(&mut self, before: &DayEvidence, after: &DayEvidence, age: f64, policy: &Policy) {
        for clock in 0..CLOCKS {
            let factor = decay(age, policy.half_lives[clock]);
            self.attention[clock] += (after.active - before.active) * factor;
            self.help[clock] += (after.help - before.help) * factor;
        }
    }

    /// What speaks against somebody is not divided by its audience: it is no smaller for each because others had it too.
    fn add_outcome(&mut self, act: &Act, age: f64, policy: &Policy) {
        let weight = decay(age, policy.outcome_half_life);
        match act.kind {
            Kind::PromiseKept => self.kept += weight * act.share(),
            Kind::AskGranted => self.granted += weight * act.share(),
            Kind::PromiseBroken => self.broken += weight,
            Kind::AskDeclined => self.declined += weight,
            _ => {}
        }
    }

    fn add_harm(&mut self, kind: Kind, age: f64, policy: &Policy) {
        let weight = decay(age, policy.harm_half_life);
        match kind {
            Kind::Promotion => self.promotions += weight,
            Kind::Violation => self.violations += weight,
            _ => {}
        }
    }
}

/// What is left after `days` of something that halves every `half_life` days.
pub(super) fn decay(days: f64, half_life: f64) -> f64 {
    (-days / half_life).exp2()
}

/// The directed, decaying evidence of one actor toward one recipient: a few hundred bytes, however long the history.
#[derive(Clone, Debug, PartialEq)]
pub struct Tie {
    /// The earliest act.
    pub first_time: Timestamp,
    /// The latest act.
    pub last_time: Timestamp,
    /// How many acts of each kind, in the order of [`Kind::ALL`].
    pub counts: [i32; Kind::COUNT],
    /// What was done on the day of the latest act, as far as it is still open to more.
    pub today: DayCell,
    /// The evidence as of the day of the latest act.
    pub evidence: Evidence,
}

impl Tie {
    /// The tie before anything happened, ready for a first act at `time`.
    pub fn empty(time: Timestamp) -> Self {
        Self {
            first_time: time,
            last_time: time,
            counts: [0; Kind::COUNT],
            today: DayCell::default(),
            evidence: Evidence::default(),
        }
    }

    /// The day of the latest act.
    pub fn day(&self) -> Day {
        self.last_time.day()
    }

    /// What is already absorbed of `day`, when the tie itself knows: of its latest day, and of later ones. Of an earlier
    /// day only the ledger knows.
    pub fn cell_of(&self, day: Day) -> Option<DayCell> {
        match day.cmp(&self.day()) {
            std::cmp::Ordering::Greater => Some(DayCell::default()),
            std::cmp::Ordering::Equal => Some(self.today),
            std::cmp::Ordering::Less => None,
        }
    }

    /// Takes in acts of one day. `earlier` is what was absorbed of that day before; `counts` tells of each act whether it
    /// is the outcome that decides its commitment. Answers with what the day gained.
    pub fn absorb_day<'a>(
        &mut self,
        day: Day,
        earlier: DayCell,
        acts: impl IntoIterator<Item = (&'a Act, bool)>,
        policy: &Policy,
    ) -> DayEvidence {
        self.evidence = self.evidence.faded(day.days_since(self.day()), policy);
        let age = self.day().days_since(day);
        let mut cell = earlier;
        for (act, decides) in acts {
            cell.gather(act, policy);
            if decides {
                self.evidence.add_outcome(act, age, policy);
            }
            self.evidence.add_harm(act.kind, age, policy);
            let count = &mut self.counts[act.kind.index()];
            *count = count.saturating_add(1);
            if day >= self.day() {
                self.today = cell;
            }
            self.first_time = self.first_time.min(act.time);
            self.last_time = self.last_time.max(act.time);
        }
        let (before, after) = (earlier.evidence(policy), cell.evidence(policy));
        self.evidence.add_day(&before, &after, age, policy);
        debug_assert!(self.evidence.to_array().iter().all(|sum| sum.is_finite()), "evidence stays finite");
        after.minus(&before)
    }

    /// Replaces how promises and asks came out by what a fold of the outcomes alone says.
    pub fn take_outcomes(&mut self, outcomes: &Self, policy: &Policy) {
        let folded = outcomes.evidence.faded(self.day().days_since(outcomes.day()), policy);
        let own = &mut self.evidence;
        (own.kept, own.broken, own.granted, own.declined) =
            (folded.kept, folded.broken, folded.granted, folded.declined);
    }

    /// The evidence as it stands at `as_of`; at the earliest on the day of the latest act.
    pub fn evidence_at(&self, as_of: Timestamp, policy: &Policy) -> Evidence {
        self.evidence.faded(self.day().age_at(as_of), policy)
    }

    /// How many acts of one kind.
    pub fn count(&self, kind: Kind) -> i32 {
        self.counts[kind.index()]
    }
}
