//! Metrics of rankings and of probabilities. Luck has no part in them: where scores are equal, a ranking metric is its
//! expected value over all orders of the equals (McSherry & Najork, "Computing information retrieval performance measures
//! efficiently in the presence of tied scores", ECIR 2008), and equal predictions always share a bin. No metric depends on
//! the order of its input.

use std::cmp::Ordering;

use serde::Serialize;

use super::{mean, number};

/// Candidates whose scores are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Equals {
    count: usize,
    relevant: usize,
}

/// One person's candidates in the order of their scores, highest first, with at least one relevant and one irrelevant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    groups: Vec<Equals>,
    all: Equals,
}

/// What the metrics say of one ranking, or of many on average; each lies within [0, 1] and more is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankingScores {
    /// Normalised discounted cumulative gain of the first ten.
    pub ndcg10: f64,
    /// Average precision; on average over persons this is MAP.
    pub average_precision: f64,
    /// The area under the receiver operating characteristic.
    pub auc: f64,
}

impl Ranking {
    /// The ranking of candidates by their scores, each relevant or not; the slices are paired by position. A score that is
    /// no number counts as the lowest. `None` when all are relevant or none is: every order is then as good as any other.
    pub fn new(scores: &[f64], relevant: &[bool]) -> Option<Self> {
        let groups: Vec<Equals> =
            sorted(scores, relevant, f64::NEG_INFINITY).chunk_by(equal).rev().map(Equals::of).collect();
        let all = groups.iter().fold(Equals::default(), Equals::and);
        (0 < all.relevant && all.relevant < all.count).then_some(Self { groups, all })
    }

    /// All metrics of this ranking.
    pub fn scores(&self) -> RankingScores {
        RankingScores { ndcg10: self.ndcg(10), average_precision: self.average_precision(), auc: self.auc() }
    }

    /// Normalised discounted cumulative gain of the first `depth`, in [0, 1], with a gain of 1 for the relevant and a
    /// discount of `1 / log2(1 + rank)` (Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM
    /// TOIS 20(4), 2002).
    pub fn ndcg(&self, depth: usize) -> f64 {
        let mut before = 0;
        let mut gain = 0.0;
        for group in &self.groups {
            gain += group.share() * discounts(before, (before + group.count).min(depth));
            before += group.count;
        }
        let best = discounts(0, self.all.relevant.min(depth));
        if best > 0.0 { gain / best } else { 0.0 }
    }

    /// Average precision, in (0, 1]: the mean over the relevant of the share of relevant ones among those ranked no lower.
    /// Exact in expectation: within equals, the relevant one at place `i` of `n` has `(i − 1)(r − 1) / (n − 1)` of the
    /// other `r − 1` before it on average.
    pub fn average_precision(&self) -> f64 {
        let mut before = Equals::default();
        let mut sum = 0.0;
        for group in &self.groups {
            let others = number(group.relevant.saturating_sub(1)) / number(group.count.saturating_sub(1).max(1));
            let precisions = (0..group.count).map(|place| {
                let found = number(before.relevant + 1) + number(place) * others;
                found / number(before.count + place + 1)
            });
            sum += group.share() * precisions.sum::<f64>();
            before = before.and(group);
        }
        sum / number(self.all.relevant)
    }

    /// The probability, in [0, 1], that a relevant candidate scores higher than an irrelevant one, equal scores counting
    /// half (Hanley & McNeil, Radiology 143(1), 1982).
    pub fn auc(&self) -> f64 {
        let mut above = 0.0;
        let mut won = 0.0;
        for group in &self.groups {
            let relevant = number(group.relevant);
            won += number(group.count - group.relevant) * (above + relevant / 2.0);
            above += relevant;
        }
        won / (number(self.all.relevant) * number(self.all.count - self.all.relevant))
    }
}

impl RankingScores {
    /// The mean of each metric over rankings, every person counting the same; `None` of nothing.
    pub fn mean(of: &[Self]) -> Option<Self> {
        Some(Self {
            ndcg10: mean(of.iter().map(|scores| scores.ndcg10))?,
            average_precision: mean(of.iter().map(|scores| scores.average_precision))?,
            auc: mean(of.iter().map(|scores| scores.auc))?,
        })
    }
}

impl Equals {
    fn of(group: &[(f64, bool)]) -> Self {
        Self { count: group.len(), relevant: group.iter().filter(|(_, relevant)| *relevant).count() }
    }

    fn and(self, other: &Self) -> Self {
        Self { count: self.count + other.count, relevant: self.relevant + other.relevant }
    }

    /// The share of relevant ones, in [0, 1].
    fn share(&self) -> f64 {
        number(self.relevant) / number(self.count.max(1))
    }
}

/// The sum of the discounts of the places from `from` to before `to`, counted from 0.
fn discounts(from: usize, to: usize) -> f64 {
    (from..to).map(|place| 1.0 / number(place + 2).log2()).sum()
}

/// The pairs of a value and an outcome, lowest value first, with `missing` for what is no number.
fn sorted(values: &[f64], outcomes: &[bool], missing: f64) -> Vec<(f64, bool)> {
    let known = |value: f64| if value.is_nan() { missing } else { value };
    let mut pairs: Vec<(f64, bool)> =
        values.iter().zip(outcomes).map(|(value, outcome)| (known(*value), *outcome)).collect();
    pairs.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1)));
    pairs
}

fn equal(a: &(f64, bool), b: &(f64, bool)) -> bool {
    a.0.partial_cmp(&b.0) == Some(Ordering::Equal)
}

/// The mean squared difference between probabilities and what happened, in [0, 1]; less is better (Brier, "Verification of
/// forecasts expressed in terms of probability", Monthly Weather Review 78(1), 1950). `None` of nothing.
pub fn brier(probabilities: &[f64], happened: &[bool]) -> Option<f64> {
    let squares = sorted(probabilities, happened, 0.5).into_iter().map(|(probability, happened)| {
        let outcome = f64::from(u8::from(happened));
        (probability - outcome).powi(2)
    });
    mean(squares)
}

/// Predictions of about the same height, and how often what they predict happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// The mean of the predicted probabilities, in [0, 1].
    pub mean_predicted: f64,
    /// The share of those that happened, in [0, 1].
    pub observed_rate: f64,
    /// How many predictions; at least 1.
    pub count: usize,
}

impl ReliabilityBin {
    fn of(bin: &[(f64, bool)]) -> Option<Self> {
        Some(Self {
            mean_predicted: mean(bin.iter().map(|(prediction, _)| *prediction))?,
            observed_rate: mean(bin.iter().map(|(_, happened)| f64::from(u8::from(*happened))))?,
            count: bin.len(),
        })
    }
}

/// Into how many bins calibration is cut.
pub const RELIABILITY_BINS: usize = 10;

/// The predictions, lowest first, in at most [`RELIABILITY_BINS`] bins of equal mass. Equal predictions are never torn
/// apart: they go where the middle of them belongs, so bins differ in size, and are fewer, where many are equal. A
/// prediction that is no number counts as one half.
pub fn reliability(probabilities: &[f64], happened: &[bool]) -> Vec<ReliabilityBin> {
    let pairs = sorted(probabilities, happened, 0.5);
    let mut bins = vec![Vec::new(); RELIABILITY_BINS];
    let mut before = 0;
    for group in pairs.chunk_by(equal) {
        let middle = 2 * before + group.len();
        bins[RELIABILITY_BINS * middle / (2 * pairs.len())].extend_from_slice(group);
        before += group.len();
    }
    bins.iter().filter_map(|bin| ReliabilityBin::of(bin)).collect()
}

/// The calibration error of bins, in [0, 1]: how far the mean prediction lies from the observed rate, on average over
/// predictions; less is better (Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
/// binning", AAAI 2015; over bins of equal mass as in Nguyen & O'Connor, EMNLP 2015). `None` of nothing.
pub fn calibration_error(bins: &[ReliabilityBin]) -> Option<f64> {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let sum: f64 = bins.iter().map(|bin| number(bin.count) * (bin.mean_predicted - bin.observed_rate).abs()).sum();
    (total > 0).then(|| sum / number(total))
}

/// One candidate's interval for the probability of being relevant, and what came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The lower bound, in [0, 1].
    pub lower: f64,
    /// The upper bound, in [`lower`](Self::lower) to 1.
    pub upper: f64,
    /// Whether the candidate was relevant.
    pub relevant: bool,
}

/// The share, in [0, 1], of persons of whose candidates as many were relevant as their intervals allow: from the sum of the
/// lower bounds to that of the upper ones, each rounded outward, since candidates are relevant as a whole. Persons without
/// candidates are left out; `None` when nobody is left.
///
/// One outcome cannot be compared with an interval for its probability; the number of a person's outcomes can.
pub fn interval_coverage<'a>(persons: impl IntoIterator<Item = &'a [Forecast]>) -> Option<f64> {
    mean(persons.into_iter().filter_map(covered).map(|covered| f64::from(u8::from(covered))))
}

fn covered(candidates: &[Forecast]) -> Option<bool> {
    let observed = number(candidates.iter().filter(|candidate| candidate.relevant).count());
    let lower: f64 = candidates.iter().map(|candidate| candidate.lower).sum();
    let upper: f64 = candidates.iter().map(|candidate| candidate.upper).sum();
    (!candidates.is_empty()).then_some((lower.floor()..=upper.ceil()).contains(&observed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    /// Candidates ranked in this order, `+` for the relevant; equal scores are in one group.
    fn ranking(groups: &[&str]) -> Ranking {
        let (mut scores, mut relevant) = (Vec::new(), Vec::new());
        for (place, group) in groups.iter().enumerate() {
            scores.extend(group.chars().map(|_| -number(place)));
            relevant.extend(group.chars().map(|sign| sign == '+'));
        }
        Ranking::new(&scores, &relevant).unwrap()
    }

    /// The mean of a metric over all orders of the equals in the middle of `before`, `+-+`, `after`.
    fn over_orders(before: &str, after: &str, metric: impl Fn(&Ranking) -> f64) -> f64 {
        let singles = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let orders = ["++-", "+-+", "-++"].map(|middle| {
            let order = singles(&format!("{before}{middle}{after}"));
            metric(&ranking(&order.iter().map(String::as_str).collect::<Vec<_>>()))
        });
        mean(orders).unwrap()
    }

    #[test]
    fn gain_is_discounted_by_the_logarithm_of_the_rank() {
        // Ranks 1 and 3 of two: (1 + 1/2) / (1 + 1/log2(3)).
        close(ranking(&["+", "-", "+"]).ndcg(10), 1.5 / (1.0 + 1.0 / 3.0_f64.log2()));
        close(ranking(&["+", "+", "-"]).ndcg(10), 1.0);
        close(ranking(&["-", "-", "-", "+"]).ndcg(3), 0.0);
        close(ranking(&["-", "+", "+", "+"]).ndcg(2), (1.0 / 3.0_f64.log2()) / (1.0 + 1.0 / 3.0_f64.log2()));
        // Ten irrelevant ones push all else out of the first ten.
        close(ranking(&["----------", "+"]).scores().ndcg10, 0.0);
    }

    #[test]
    fn precision_is_averaged_over_the_relevant() {
        // (1/1 + 2/3) / 2 and (1/2 + 2/4) / 2.
        close(ranking(&["+", "-", "+"]).average_precision(), 5.0 / 6.0);
        close(ranking(&["-", "+", "-", "+"]).average_precision(), 0.5);
    }

    #[test]
    fn auc_counts_pairs_and_halves_of_equal_ones() {
        // Of 2 × 2 pairs, three in order.
        close(ranking(&["+", "-", "+", "-"]).auc(), 0.75);
        // Of 3 × 3 pairs the first wins three, the second one and two halves, the last none.
        close(ranking(&["+", "+--", "-", "+"]).auc(), (3.0 + 2.0 + 0.0) / 9.0);
        close(ranking(&["++--"]).auc(), 0.5);
    }

    #[test]
    fn equals_count_as_their_orders_do_on_average() {
        for (before, after) in [("", "-"), ("-", "+-"), ("+", ""), ("-+", "+")] {
            let groups: Vec<String> = before.chars().map(String::from).chain(["+-+".to_owned()]).collect();
            let groups: Vec<String> = groups.into_iter().chain(after.chars().map(String::from)).collect();
            let tied = ranking(&groups.iter().map(String::as_str).collect::<Vec<_>>());
            close(tied.average_precision(), over_orders(before, after, Ranking::average_precision));
            close(tied.auc(), over_orders(before, after, Ranking::auc));
            for depth in 1..6 {
                close(tied.ndcg(depth), over_orders(before, after, |order| order.ndcg(depth)));
            }
        }
    }

    #[test]
    fn rankings_without_both_kinds_are_left_out_and_odd_scores_have_a_place() {
        assert_eq!(Ranking::new(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(Ranking::new(&[1.0], &[false]), None);
        assert_eq!(Ranking::new(&[], &[]), None);
        assert_eq!(Ranking::new(&[0.0, -0.0], &[true, false]), Some(ranking(&["+-"])));
        assert_eq!(Ranking::new(&[f64::NAN, -1.0], &[true, false]), Some(ranking(&["-", "+"])));
    }

    #[test]
    fn scores_are_averaged_over_persons() {
        let persons = [ranking(&["+", "-"]).scores(), ranking(&["-", "+"]).scores()];
        let average = RankingScores::mean(&persons).unwrap();
        close(average.auc, 0.5);
        close(average.average_precision, 0.75);
        close(average.ndcg10, f64::midpoint(1.0, 1.0 / 3.0_f64.log2()));
        assert_eq!(RankingScores::mean(&[]), None);
    }

    #[test]
    fn brier_is_the_mean_square() {
        close(brier(&[0.8, 0.4], &[true, false]).unwrap(), f64::midpoint(0.04, 0.16));
        assert_eq!(brier(&[], &[]), None);
    }

    #[test]
    fn bins_have_equal_mass_and_keep_equals_together() {
        let probabilities: Vec<f64> = (0..20).map(|place| number(place) / 20.0).collect();
        let happened: Vec<bool> = (0..20).map(|place| place >= 10).collect();
        let bins = reliability(&probabilities, &happened);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [2; RELIABILITY_BINS]);
        close(bins[3].mean_predicted, 0.325);
        // Twice (0.025 + 0.125 + 0.225 + 0.325 + 0.425) for the lower half, and likewise above it.
        close(calibration_error(&bins).unwrap(), f64::midpoint(1.125 / 5.0, 1.375 / 5.0));

        let bins = reliability(&[0.3, 0.1, 0.3, 0.3, 0.9, 0.3], &[true, false, false, false, true, true]);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [1, 4, 1]);
        close(bins[1].observed_rate, 0.5);
        close(calibration_error(&bins).unwrap(), (0.1 + 4.0 * 0.2 + 0.1) / 6.0);
        assert_eq!(calibration_error(&reliability(&[], &[])), None);
    }

    #[test]
    fn intervals_cover_as_many_as_came_out() {
        let forecast = |lower, upper, relevant| Forecast { lower, upper, relevant };
        // One of two lies within 0.6 to 1.2; two of two do not lie within 0.2 to 0.8, nor none within 1.2 to 1.6.
        let covered = [forecast(0.2, 0.5, true), forecast(0.4, 0.7, false)];
        let over = [forecast(0.1, 0.4, true), forecast(0.1, 0.4, true)];
        let under = [forecast(0.6, 0.8, false), forecast(0.6, 0.8, false)];
        close(interval_coverage([&covered[..], &over, &under, &[]]).unwrap(), 1.0 / 3.0);
        assert_eq!(interval_coverage([&[][..]]), None);
    }
}
