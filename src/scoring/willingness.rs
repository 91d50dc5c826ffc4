//! From evidence to belief: how likely one person is to go out of their way for another. The formulas are in the module
//! above; each function here is one line of them.

use super::{CLOCKS, Evidence, Policy, policy::Weights, rhythm::Left};

/// A probability with its interval, all within [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// The best estimate.
    pub probability: f64,
    /// The lower end: what can be counted on.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
}

impl Interval {
    /// The harmonic mean of each of the three numbers: high only when both are.
    #[must_use]
    pub fn mutual(self, other: Self) -> Self {
        let mean = |x: f64, y: f64| if x + y > 0.0 { 2.0 * x * y / (x + y) } else { 0.0 };
        Self {
            probability: mean(self.probability, other.probability),
            lower: mean(self.lower, other.lower),
            upper: mean(self.upper, other.upper),
        }
    }
}

/// What speaks for one willingness, as parts of the sum `S`. All are at least 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gains {
    /// Days of help toward the other.
    pub help_days: f64,
    /// Effort of help toward the other.
    pub help: f64,
    /// Ideas and thanks toward the other.
    pub ideas: f64,
    /// Attention that was returned.
    pub exchange: f64,
    /// Goodwill earned by what the other did before.
    pub goodwill: f64,
}

impl Gains {
    /// The gains of the one with evidence `own` toward the one with evidence `other`, dimmed by how quiet the former is.
    pub(super) fn new(own: &Evidence, other: &Evidence, left: Left, policy: &Policy) -> Self {
        let returned =
            |own: [f64; CLOCKS], other: [f64; CLOCKS]| std::array::from_fn(|clock| own[clock].min(other[clock]));
        Self {
            help_days: left.help * weigh(policy.help_days, own.helped),
            help: left.help * weigh(policy.help, own.help),
            ideas: left.help * weigh(policy.ideas, own.ideas),
            exchange: left.all
                * (weigh(policy.exchange_days, returned(own.active, other.active))
                    + weigh(policy.exchange_presence, returned(own.presence, other.presence))),
            goodwill: weigh(policy.goodwill_days, other.helped)
                + weigh(policy.goodwill_help, other.help)
                + weigh(policy.goodwill_ideas, other.ideas),
        }
    }

    pub(super) fn sum(&self) -> f64 {
        self.help_days + self.help + self.ideas + self.exchange + self.goodwill
    }
}

fn weigh(weights: Weights, evidence: [f64; CLOCKS]) -> f64 {
    weights.iter().zip(evidence).map(|(weight, sum)| weight * sum).sum()
}

/// Successes and failures that were seen, in trials. All are at least 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Promises kept.
    pub kept: f64,
    /// Asks granted.
    pub granted: f64,
    /// Promises broken.
    pub broken: f64,
    /// Asks declined.
    pub declined: f64,
    /// Commitments left open past their due time.
    pub left_open: f64,
    /// Promotions by the one whose willingness it is, and by the other.
    pub promotions: [f64; 2],
    /// Violations reported by the one whose willingness it is, and by the other.
    pub violations: [f64; 2],
}

impl Tally {
    /// The tally of the one with evidence `own`, who left commitments open with a total of `left_open`.
    pub(super) fn new(own: &Evidence, other: &Evidence, left_open: f64, policy: &Policy) -> Self {
        Self {
            kept: policy.kept * own.kept,
            granted: policy.granted * own.granted,
            broken: policy.broken * own.broken,
            declined: policy.declined * own.declined,
            left_open: policy.left_open * left_open,
            promotions: [own.promotions, other.promotions].map(|sum| policy.promotion * sum),
            violations: [own.violations, other.violations].map(|sum| policy.violation * sum),
        }
    }

    /// Failures from harm. Broken promises, the rest of broken trust, are counted apart.
    pub(super) fn harm(&self) -> f64 {
        self.promotions.iter().chain(&self.violations).sum()
    }
}

/// One willingness, step by step: each step adds one group of evidence to those before it.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// What speaks for it, dimmed by quiet.
    pub gains: Gains,
    /// What speaks for it, as if the person were around all the time.
    pub full_gains: Gains,
    /// Successes and failures.
    pub tally: Tally,
}

/// A Beta distribution by its two parameters.
#[derive(Clone, Copy, Debug)]
struct Beta {
    successes: f64,
    failures: f64,
}

impl Beta {
    fn from_gains(gains: &Gains, policy: &Policy) -> Self {
        let intensity = policy.prior_intensity() + policy.saturation * (gains.sum() / policy.saturation).ln_1p();
        Self { successes: policy.prior_failures() * intensity.exp_m1(), failures: policy.prior_failures() }
    }

    fn mean(self) -> f64 {
        self.successes / (self.successes + self.failures)
    }

    /// The score interval for that many successes among that many trials (Wilson, JASA 1927).
    fn interval(self, quantile: f64) -> Interval {
        let trials = self.successes + self.failures;
        let (mean, square) = (self.mean(), quantile * quantile / trials);
        let centre = mean + square / 2.0;
        let reach = (square * (mean * (1.0 - mean) + square / 4.0)).sqrt();
        let within = |value: f64| (value / (1.0 + square)).clamp(0.0, 1.0);
        let interval = Interval { probability: mean, lower: within(centre - reach), upper: within(centre + reach) };
        debug_assert!(interval.lower <= mean && mean <= interval.upper, "the interval holds the mean");
        interval
    }
}

impl Steps {
    fn belief(&self, policy: &Policy) -> Beta {
        let prior = Beta::from_gains(&self.gains, policy);
        let tally = &self.tally;
        Beta {
            successes: prior.successes + tally.kept + tally.granted,
            failures: prior.failures + tally.broken + tally.declined + tally.left_open + tally.harm(),
        }
    }

    /// The willingness that they amount to.
    pub fn interval(&self, policy: &Policy) -> Interval {
        self.belief(policy).interval(policy.interval_quantile)
    }

    /// Whether broken trust has pushed it below that toward a stranger.
    pub(super) fn is_broken(&self, probability: f64, policy: &Policy) -> bool {
        probability < policy.prior && self.tally.broken + self.tally.harm() >= policy.broken_from
    }

    /// The probability after each group of evidence: the prior, gains as if always around, quiet, successes, failures,
    /// harm. The last is the willingness itself.
    pub(super) fn probabilities(&self, policy: &Policy) -> [f64; 6] {
        let full = Beta::from_gains(&self.full_gains, policy);
        let dimmed = Beta::from_gains(&self.gains, policy);
        let kept = Beta { successes: dimmed.successes + self.tally.kept + self.tally.granted, ..dimmed };
        let failed = kept.failures + self.tally.broken + self.tally.declined + self.tally.left_open;
        let failed = Beta { failures: failed, ..kept };
        [policy.prior, full.mean(), dimmed.mean(), kept.mean(), failed.mean(), self.belief(policy).mean()]
    }
}
