//! The versioned parameters of scoring. The values here decide numbers; the module above explains the numbers.
//!
//! # Policies in use
//!
//! A policy is a JSON document with a version, and answers name that version (`policyVersion`). A tenant that has published no
//! policy uses the one built into the program. All policies read the same records, so another policy needs no rebuilding: it
//! takes effect with the next answer, on all servers at once. The pages of a ranking that began before keep the policy that the
//! ranking began with.
//!
//! ```sh
//! rapport policy show > policy.json      # the document in use; change it, and its version
//! rapport policy publish policy.json     # checks, publishes and uses it; --keep-aside only publishes
//! rapport policy list                    # newest first; an asterisk marks the policy in use
//! rapport policy rollback                # back to the policy in use before, or to a named version
//! ```
//!
//! A version stands for one document for good. Publishing the version again with another document is refused. Programs do the
//! same through `PolicyService`. How to fit a policy to a history is told in [`evaluation`](crate::evaluation).

use std::borrow::Cow;

use crate::domain::Kind;

use super::{TERMS, Terms};

/// How the names begin of policies that are built into versions of the program, and of no others.
pub const BUILT_IN_PREFIX: &str = "default-";

/// How many clocks a tie keeps.
pub const CLOCKS: usize = 4;

/// What one kind of interaction is worth.
#[derive(Clone, Copy, Debug)]
pub struct KindPolicy {
    /// Minutes of effort taken for granted when the caller states none.
    pub default_minutes: f64,
    /// How far it makes a day an active one, 0 to 1.
    pub day_weight: f64,
    /// How far it is help, 0 to 1.
    pub help_weight: f64,
}

/// The parameters of scoring. All weights are at least 0; half-lives are in days.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name in answers.
    pub version: Cow<'static, str>,
    /// The days over which a willingness is a chance.
    pub horizon_days: f64,
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
    /// The weight of unprompted help, as extra minutes for each minute.
    pub unprompted_bonus: f64,
    /// The weight of help that serves a stated goal, as extra minutes for each minute.
    pub goal_bonus: f64,
    /// Days after which an ask without a due time falls due.
    pub ask_due_days: u32,
    /// The logarithm of the intensity before the terms are weighed.
    pub base: f64,
    /// The weights of the [`Terms`], each at least 0.
    pub weights: [f64; TERMS],
    /// The willingness toward a stranger.
    pub prior: f64,
    /// How many trials the prior is worth.
    pub prior_trials: f64,
    /// Successes for a promise kept.
    pub kept: f64,
    /// Successes for an ask granted.
    pub granted: f64,
    /// Failures for a promise broken.
    pub broken: f64,
    /// Failures for an ask declined.
    pub declined: f64,
    /// Failures for a commitment left open past the day it was due.
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

/// The built-in policy. Its weights, base and prior are fitted; how is told in [`evaluation`](crate::evaluation). `REAL`
/// begins where an act within half a year is likelier than not, `1 − (1 − p)^6 ≥ 1/2`, `BUDDING` where one within two years is.
pub static DEFAULT: Policy = Policy {
    version: Cow::Borrowed("default-1"),
    horizon_days: 30.0,
    half_lives: [1.0, 7.0, 30.0, 365.0],
    outcome_half_life: 365.0,
    harm_half_life: 730.0,
    kinds: [
        KindPolicy { default_minutes: 0.0, day_weight: 0.02, help_weight: 0.0 }, // REACTION
        KindPolicy { default_minutes: 0.0, day_weight: 1.0, help_weight: 0.0 },  // MESSAGE
        KindPolicy { default_minutes: 0.0, day_weight: 1.0, help_weight: 0.0 },  // MEETING
        KindPolicy { default_minutes: 10.0, day_weight: 1.0, help_weight: 0.5 }, // IDEA
        KindPolicy { default_minutes: 3.0, day_weight: 0.5, help_weight: 0.2 },  // GRATITUDE
        KindPolicy { default_minutes: 30.0, day_weight: 1.0, help_weight: 1.0 }, // HELP
        KindPolicy { default_minutes: 20.0, day_weight: 1.0, help_weight: 1.0 }, // INTRODUCTION
        KindPolicy { default_minutes: 15.0, day_weight: 1.0, help_weight: 1.0 }, // ENDORSEMENT
        KindPolicy { default_minutes: 0.0, day_weight: 0.5, help_weight: 0.0 },  // PROMISE
        KindPolicy { default_minutes: 15.0, day_weight: 1.0, help_weight: 1.0 }, // PROMISE_KEPT
        KindPolicy { default_minutes: 0.0, day_weight: 0.0, help_weight: 0.0 },  // PROMISE_BROKEN
        KindPolicy { default_minutes: 0.0, day_weight: 0.0, help_weight: 0.0 },  // PROMISE_RELEASED
        KindPolicy { default_minutes: 0.0, day_weight: 0.5, help_weight: 0.0 },  // ASK
        KindPolicy { default_minutes: 15.0, day_weight: 1.0, help_weight: 1.0 }, // ASK_GRANTED
        KindPolicy { default_minutes: 0.0, day_weight: 0.0, help_weight: 0.0 },  // ASK_DECLINED
        KindPolicy { default_minutes: 0.0, day_weight: 0.0, help_weight: 0.0 },  // PROMOTION
        KindPolicy { default_minutes: 0.0, day_weight: 0.0, help_weight: 0.0 },  // VIOLATION
    ],
    effort_scale_minutes: 15.0,
    unprompted_bonus: 0.5,
    goal_bonus: 0.5,
    ask_due_days: 14,
    base: -6.226,
    weights: [
        0.002_596, // own_share_365
        0.6012,    // other_share_365
        0.6319,    // own_365
        0.1,       // help_365
        0.3534,    // last
        0.0,       // around_7
        0.2189,    // around_30
        0.026_98,  // around_365
        0.1614,    // helping_30
        0.0,       // helping_365
        0.051,     // other_sent_30
        0.3941,    // other_received_30
    ],
    prior: 0.001_366,
    prior_trials: 3.0,
    kept: 1.0,
    granted: 1.0,
    broken: 2.0,
    declined: 0.7,
    left_open: 0.3,
    promotion: 0.25,
    violation: 500.0,
    interval_quantile: 1.281_551_565_544_6,
    real_from: 0.11,
    budding_from: 0.03,
    broken_from: 1.0,
};

/// More acts than this are no likelier; it keeps numbers finite.
const MAX_INTENSITY: f64 = 25.0;

impl Policy {
    /// What a kind is worth.
    pub fn kind(&self, kind: Kind) -> &KindPolicy {
        &self.kinds[kind.index()]
    }

    /// The intensity toward a stranger, `λ0`.
    pub(super) fn prior_intensity(&self) -> f64 {
        -(1.0 - self.prior).ln()
    }

    /// The expected number of effortful acts within the horizon, `λ`.
    pub fn intensity(&self, terms: &Terms) -> f64 {
        let logarithm: f64 = self.weights.iter().zip(&terms.values).map(|(weight, term)| weight * term).sum();
        (self.prior_intensity() + terms.ramp * (self.base + logarithm).exp()).min(MAX_INTENSITY)
    }

    /// The failures that the prior stands for, `b0`.
    pub(super) fn prior_failures(&self) -> f64 {
        self.prior_trials * (1.0 - self.prior)
    }
}
