//! The rules that others have published for how close two people are, to compare with. Each gives a score for what a peer
//! is to a person (the owner), at least 0 and higher for closer, that means nothing beside the scores of the same rule.
//!
//! The rules see when acts happened and by whom, and nothing else. What they weigh beyond that, such as meetings or the
//! number of platforms, is left out and said so.

use super::number;

/// When two people acted towards each other, as ages in days before the time that is looked back from; each at least 0, in
/// any order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairHistory<'a> {
    /// Acts of the peer towards the owner.
    pub theirs: &'a [f64],
    /// Acts of the owner towards the peer.
    pub yours: &'a [f64],
}

impl PairHistory<'_> {
    /// All ages, theirs first.
    fn ages(&self) -> impl Iterator<Item = f64> {
        self.theirs.iter().chain(self.yours).copied()
    }
}

/// The number of acts in both directions.
pub fn count(history: PairHistory<'_>) -> f64 {
    number(history.theirs.len()) + number(history.yours.len())
}

/// Who was in touch last: `1 / (1 + days)` since the last act in either direction, in (0, 1], and 0 without one.
pub fn last_contact(history: PairHistory<'_>) -> f64 {
    latest(history.ages()).map_or(0.0, |age| 1.0 / (1.0 + age))
}

fn latest(ages: impl IntoIterator<Item = f64>) -> Option<f64> {
    ages.into_iter().reduce(f64::min)
}

/// Interactions Rank, Gmail's measure of affinity: `Σ_theirs 2^(−age/λ) + ω · Σ_yours 2^(−age/λ)` (Roth et al.,
/// "Suggesting friends using the implicit social graph", KDD 2010, §4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InteractionsRank {
    /// λ, in days, above 0.
    pub half_life_days: f64,
    /// ω, at least 0: what an outgoing act, by the owner, counts beside an incoming one.
    pub outgoing_weight: f64,
}

impl Default for InteractionsRank {
    fn default() -> Self {
        Self { half_life_days: 35.0, outgoing_weight: 2.0 }
    }
}

impl InteractionsRank {
    /// The half-lives to tune among, in days.
    pub const HALF_LIVES: [f64; 9] = [1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0];
    /// The outgoing weights to tune among.
    pub const OUTGOING_WEIGHTS: [f64; 8] = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

    /// All settings to tune among, half-life by half-life.
    pub fn grid() -> impl Iterator<Item = Self> {
        Self::HALF_LIVES.into_iter().flat_map(|half_life_days| {
            Self::OUTGOING_WEIGHTS.into_iter().map(move |outgoing_weight| Self { half_life_days, outgoing_weight })
        })
    }

    /// The score of a history.
    pub fn score(&self, history: PairHistory<'_>) -> f64 {
        let faded = |ages: &[f64]| ages.iter().map(|age| (-age / self.half_life_days).exp2()).sum::<f64>();
        faded(history.theirs) + self.outgoing_weight * faded(history.yours)
    }
}

/// DotAlign's person-to-person score as its help pages give it ("Scoring Mechanics",
/// <https://help.dotalign.com/article/to0zveticd-scoring-mechanics>), in 1 to 100, and 0 without an act:
/// `max(1, min(100, 1 + reciprocated acts) · (1 − 0.75 · min(1, d/2y) − 0.25 · min(1, d/6y)))`, where acts are reciprocated
/// as far as both sides did as many, and `d` is the age of the earlier of the last act of theirs and the last of yours.
/// Its three points for a meeting are left out, as no act counts as a meeting here.
pub fn dotalign(history: PairHistory<'_>) -> f64 {
    const YEAR: f64 = 365.0;
    let last = |ages: &[f64]| latest(ages.iter().copied());
    let (Some(theirs), Some(yours)) = (last(history.theirs), last(history.yours)) else {
        return if count(history) > 0.0 { 1.0 } else { 0.0 };
    };
    let points = 1.0 + number(history.theirs.len().min(history.yours.len()));
    let days = theirs.max(yours);
    let faded = 0.75 * (days / (2.0 * YEAR)).min(1.0) + 0.25 * (days / (6.0 * YEAR)).min(1.0);
    (points.min(100.0) * (1.0 - faded)).max(1.0)
}

/// The relationship score of the personal CRM PingCRM, a whole number in 0 to 10: points for reciprocity (0–4), recency
/// (0–3), frequency (0–2) and tenure (0–2), as `backend/app/services/scoring.py` of <https://github.com/sneg55/pingcrm> has
/// them at commit 6725cbad. Its point for a second platform is left out, as platforms are unknown here.
pub fn pingcrm(history: PairHistory<'_>) -> f64 {
    (reciprocity(history) + recency(history) + frequency(history) + tenure(history)).min(10.0)
}

/// Four points for as much from one side as from the other, over five years, what is older than a year counting little.
fn reciprocity(history: PairHistory<'_>) -> f64 {
    let weigh = |ages: &[f64]| stepped(ages.iter().copied(), &[(365.0, 1.0), (730.0, 0.05), (1825.0, 0.02)]);
    let (theirs, yours) = (weigh(history.theirs), weigh(history.yours));
    if theirs > 0.0 { (theirs.min(yours) / theirs.max(yours) * 4.0).round_ties_even() } else { 0.0 }
}

/// Up to three points for how lately they acted; half of it for how lately you did if they never have.
fn recency(history: PairHistory<'_>) -> f64 {
    let points = |age: f64| stepped([age.floor()], &[(7.0, 3.0), (30.0, 2.0), (90.0, 1.0)]);
    let theirs = latest(history.theirs.iter().copied()).map(points);
    let yours = latest(history.yours.iter().copied()).map(|age| (points(age) / 2.0).round_ties_even());
    theirs.or(yours).unwrap_or(0.0)
}

fn frequency(history: PairHistory<'_>) -> f64 {
    let weights = [(30.0, 1.0), (90.0, 0.3), (365.0, 0.1), (730.0, 0.05), (1825.0, 0.02)];
    let weighted = stepped(history.ages(), &weights);
    f64::from(u8::from(weighted >= 3.0)) + f64::from(u8::from(weighted >= 8.0))
}

fn tenure(history: PairHistory<'_>) -> f64 {
    let years = history.ages().fold(0.0, f64::max).floor() / 365.25;
    let reached = |acts: f64, least: f64| f64::from(u8::from(count(history) >= acts && years >= least));
    reached(20.0, 1.0) + reached(50.0, 2.0)
}

/// The sum over ages of the value of the first step, each `(last age in days, value)`, that the age is on; 0 beyond all.
fn stepped(ages: impl IntoIterator<Item = f64>, steps: &[(f64, f64)]) -> f64 {
    let value = |age: f64| steps.iter().find(|(last, _)| age <= *last).map_or(0.0, |(_, value)| *value);
    ages.into_iter().map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history<'a>(theirs: &'a [f64], yours: &'a [f64]) -> PairHistory<'a> {
        PairHistory { theirs, yours }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn plain_rules_count_and_look_at_the_last() {
        close(count(history(&[1.0, 2.0], &[3.0])), 3.0);
        close(last_contact(history(&[9.0, 4.0], &[3.0, 7.0])), 0.25);
        close(last_contact(history(&[0.0], &[])), 1.0);
        close(last_contact(history(&[], &[])), 0.0);
    }

    #[test]
    fn interactions_rank_halves_and_weighs_what_goes_out() {
        let rank = InteractionsRank { half_life_days: 10.0, outgoing_weight: 3.0 };
        // 1/2 + 1/4 coming in, three times 1 + 1/8 going out.
        close(rank.score(history(&[10.0, 20.0], &[0.0, 30.0])), 0.75 + 3.0 * 1.125);
        close(rank.score(history(&[], &[])), 0.0);
        assert_eq!(InteractionsRank::grid().count(), 72);
        close(InteractionsRank::default().score(history(&[35.0], &[70.0])), 1.0);
    }

    #[test]
    fn dotalign_counts_what_is_returned_and_fades_in_two_ways() {
        close(dotalign(history(&[], &[])), 0.0);
        // Never answered: one point, however much.
        close(dotalign(history(&[0.0, 1.0, 2.0], &[])), 1.0);
        // Three points, a year old on the older side: 1 − 0.75/2 − 0.25/6.
        let three = history(&[0.0, 500.0], &[365.0, 400.0, 500.0]);
        close(dotalign(three), 3.0 * (1.0 - 0.375 - 0.25 / 6.0));
        // At most a hundred points; after six years nothing but the one is left.
        let many = [0.0; 200];
        close(dotalign(history(&many, &many)), 100.0);
        let old = [2190.0; 200];
        close(dotalign(history(&old, &old)), 1.0);
    }

    #[test]
    fn pingcrm_adds_its_points() {
        close(pingcrm(history(&[], &[])), 0.0);
        // Three against four: round(4 · 3/4) = 3; last heard of within a week: 3; seven within a month: 1.
        close(pingcrm(history(&[1.0; 3], &[2.0; 4])), 7.0);
        // Never an answer: half of 3, rounded to even, for recency, and 2 for eight within a month.
        close(pingcrm(history(&[], &[7.5; 8])), 4.0);
        close(pingcrm(history(&[731.0], &[])), 0.0);
        // Long known, equal, hardly any more: 4 for reciprocity, 2 for tenure, and 0.05 · 58 + 0.02 · 2 falls short of 3.
        let long = [[730.0; 29].as_slice(), &[731.0]].concat();
        close(pingcrm(history(&long, &long)), 4.0 + 2.0);
        // All there is comes to 11 without breadth, and stops at ten.
        let best = [[1.0; 25].as_slice(), &[800.0; 5]].concat();
        close(pingcrm(history(&best, &best)), 10.0);
    }

    #[test]
    fn pingcrm_steps_down_with_the_days() {
        for (age, points) in [(7.9, 3.0), (8.0, 2.0), (30.0, 2.0), (31.0, 1.0), (90.0, 1.0), (91.0, 0.0)] {
            close(recency(history(&[age], &[0.0])), points);
        }
        close(frequency(history(&[30.0; 2], &[90.0; 4])), 1.0);
        close(frequency(history(&[30.0; 2], &[90.0; 3])), 0.0);
    }
}
