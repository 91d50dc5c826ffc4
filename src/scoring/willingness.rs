//! From evidence to belief: how likely one person is to go out of their way for another. The formulas are in the module
//! above; each function here is one line of them.

use super::{Evidence, Policy, Terms};

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
    /// Commitments left open past the day they were due.
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
    /// What is known of the pair.
    pub terms: Terms,
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
    fn from_terms(terms: &Terms, policy: &Policy) -> Self {
        let failures = policy.prior_failures();
        Self { successes: failures * policy.intensity(terms).exp_m1(), failures }
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
        // Rounding aside, the interval holds the mean.
        let (lower, upper) = (within(centre - reach).min(mean), within(centre + reach).max(mean));
        Interval { probability: mean, lower, upper }
    }
}

impl Steps {
    fn belief(&self, policy: &Policy) -> Beta {
        let prior = Beta::from_terms(&self.terms, policy);
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

    /// The probability after each group of evidence: the prior, what was done, successes, failures, harm. The last is the
    /// willingness itself.
    pub(super) fn probabilities(&self, policy: &Policy) -> [f64; 5] {
        let gained = Beta::from_terms(&self.terms, policy);
        let kept = Beta { successes: gained.successes + self.tally.kept + self.tally.granted, ..gained };
        let failed = kept.failures + self.tally.broken + self.tally.declined + self.tally.left_open;
        let failed = Beta { failures: failed, ..kept };
        [policy.prior, gained.mean(), kept.mean(), failed.mean(), self.belief(policy).mean()]
    }
}
