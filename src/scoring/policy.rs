//! The versioned parameters of scoring. What is here decides numbers; what the numbers mean is in the module above.

use std::borrow::Cow;

use crate::domain::Kind;

/// How many clocks a tie keeps.
pub const CLOCKS: usize = 3;

/// One weight for each clock, shortest first.
pub type Weights = [f64; CLOCKS];

/// What one kind of interaction is worth.
#[derive(Clone, Copy, Debug)]
pub struct KindPolicy {
    /// Minutes of effort taken for granted when the caller states none.
    pub default_minutes: f64,
    /// How far it makes a day an active one, 0 to 1.
    pub day_weight: f64,
}

/// The parameters of scoring. All weights are at least 0; half-lives are in days.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name in answers.
    pub version: Cow<'static, str>,
    /// The half-lives of a tie's clocks, shortest first.
    pub half_lives: [f64; CLOCKS],
    /// The half-life of how promises and asks came out.
    pub outcome_half_life: f64,
    /// The half-life of harm; longer than any other that matters.
    pub harm_half_life: f64,
    /// What each kind is worth, in the order of [`Kind::ALL`].
    pub kinds: [KindPolicy; Kind::COUNT],
    /// The minutes `s` of the effort credit `ln(1 + m / s)`.
    pub effort_scale_minutes: f64,
    /// The most minutes of presence that count for a pair and day.
    pub presence_cap_minutes: f64,
    /// Evidence is divided by the size of the group to this power; at least 1, or broadcasting would pay.
    pub group_power: f64,
    /// The weight of unprompted help, as extra minutes for each minute.
    pub unprompted_bonus: f64,
    /// The weight of help that serves a stated goal, as extra minutes for each minute.
    pub goal_bonus: f64,
    /// Days after which an ask without a due time falls due.
    pub ask_due_days: u32,
    /// Days of help toward the other.
    pub help_days: Weights,
    /// Effort of help toward the other.
    pub help: Weights,
    /// Ideas and thanks toward the other.
    pub ideas: Weights,
    /// Active days that were returned.
    pub exchange_days: Weights,
    /// Presence that was returned.
    pub exchange_presence: Weights,
    /// Days of help received from the other.
    pub goodwill_days: Weights,
    /// Effort of help received from the other.
    pub goodwill_help: Weights,
    /// Ideas and thanks received from the other.
    pub goodwill_ideas: Weights,
    /// The `κ` beyond which more intensity adds less and less.
    pub saturation: f64,
    /// The willingness toward a stranger.
    pub prior: f64,
    /// How many trials the prior is worth.
    pub prior_trials: f64,
    /// What is left of a person's evidence when they have gone quiet toward everybody.
    pub quiet_floor: f64,
    /// How many recent active days (on the middle clock) bring a person back from quiet, by a factor of `e`.
    pub quiet_scale_days: f64,
    /// Successes for a promise kept.
    pub kept: f64,
    /// Successes for an ask granted.
    pub granted: f64,
    /// Failures for a promise broken.
    pub broken: f64,
    /// Failures for an ask declined.
    pub declined: f64,
    /// Failures for a commitment left open past its due time.
    pub left_open: f64,
    /// Failures for a promotion, in the willingness of either toward the other.
    pub promotion: f64,
    /// Failures for a violation, in the willingness of either toward the other.
    pub violation: f64,
    /// The normal quantile of the interval; 1.2816 makes it 80 %.
    pub interval_quantile: f64,
    /// The probability from which somebody can be counted on: `REAL` when both can, `ONE_SIDED` when one can.
    pub real_from: f64,
    /// The probability from which there is evidence worth the name: `BUDDING`.
    pub budding_from: f64,
    /// The failures from broken trust (broken promises, promotions, violations) from which a willingness below the prior
    /// means `BROKEN`.
    pub broken_from: f64,
}

/// Half-lives and weights chosen by reasoning, so that three half-hour favours within a month bring a willingness near one
/// half, and no amount of one-sided attention moves it.
pub static REASONED: Policy = Policy {
    version: Cow::Borrowed("reasoned-1"),
    half_lives: [3.0, 30.0, 365.0],
    outcome_half_life: 365.0,
    harm_half_life: 730.0,
    kinds: [
        KindPolicy { default_minutes: 0.1, day_weight: 0.02 }, // REACTION
        KindPolicy { default_minutes: 2.0, day_weight: 0.5 },  // MESSAGE
        KindPolicy { default_minutes: 30.0, day_weight: 1.0 }, // MEETING
        KindPolicy { default_minutes: 10.0, day_weight: 1.0 }, // IDEA
        KindPolicy { default_minutes: 3.0, day_weight: 0.5 },  // GRATITUDE
        KindPolicy { default_minutes: 30.0, day_weight: 1.0 }, // HELP
        KindPolicy { default_minutes: 20.0, day_weight: 1.0 }, // INTRODUCTION
        KindPolicy { default_minutes: 15.0, day_weight: 1.0 }, // ENDORSEMENT
        KindPolicy { default_minutes: 0.0, day_weight: 0.5 },  // PROMISE
        KindPolicy { default_minutes: 0.0, day_weight: 1.0 },  // PROMISE_KEPT
        KindPolicy { default_minutes: 0.0, day_weight: 0.0 },  // PROMISE_BROKEN
        KindPolicy { default_minutes: 0.0, day_weight: 0.0 },  // PROMISE_RELEASED
        KindPolicy { default_minutes: 0.0, day_weight: 0.5 },  // ASK
        KindPolicy { default_minutes: 0.0, day_weight: 1.0 },  // ASK_GRANTED
        KindPolicy { default_minutes: 0.0, day_weight: 0.0 },  // ASK_DECLINED
        KindPolicy { default_minutes: 0.0, day_weight: 0.0 },  // PROMOTION
        KindPolicy { default_minutes: 0.0, day_weight: 0.0 },  // VIOLATION
    ],
    effort_scale_minutes: 15.0,
    presence_cap_minutes: 60.0,
    group_power: 1.0,
    unprompted_bonus: 0.5,
    goal_bonus: 0.5,
    ask_due_days: 14,
    help_days: [0.02, 0.08, 0.06],
    help: [0.02, 0.08, 0.05],
    ideas: [0.01, 0.04, 0.03],
    exchange_days: [0.02, 0.04, 0.008],
    exchange_presence: [0.005, 0.01, 0.002],
    goodwill_days: [0.0, 0.008, 0.006],
    goodwill_help: [0.0, 0.008, 0.005],
    goodwill_ideas: [0.0, 0.004, 0.003],
    saturation: 4.0,
    prior: 0.1,
    prior_trials: 2.0,
    quiet_floor: 0.4,
    quiet_scale_days: 2.0,
    kept: 1.0,
    granted: 1.0,
    broken: 2.0,
    declined: 0.7,
    left_open: 0.3,
    promotion: 0.25,
    violation: 40.0,
    interval_quantile: 1.281_551_565_544_6,
    real_from: 0.5,
    budding_from: 0.2,
    broken_from: 1.0,
};

impl Policy {
    /// What a kind is worth.
    pub fn kind(&self, kind: Kind) -> &KindPolicy {
        &self.kinds[kind.index()]
    }

    /// The intensity toward a stranger, `λ0`.
    pub(super) fn prior_intensity(&self) -> f64 {
        -(1.0 - self.prior).ln()
    }

    /// The failures that the prior stands for, `b0`.
    pub(super) fn prior_failures(&self) -> f64 {
        self.prior_trials * (1.0 - self.prior)
    }
}
