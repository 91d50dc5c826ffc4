//! What Real Graph, Twitter's model of who will interact with whom, looks at.

use std::collections::BTreeMap;

use super::{baselines::PairHistory, number};

/// The names of [`real_graph_features`], in their order.
pub const REAL_GRAPH_FEATURES: [&str; 12] = [
    "their mean per active day",
    "their variance per active day",
    "their decayed sum",
    "their elapsed days",
    "their active days",
    "their days since last",
    "your mean per active day",
    "your variance per active day",
    "your decayed sum",
    "your elapsed days",
    "your active days",
    "your days since last",
];

/// What is left of a day's acts a day later: `InteractionGraphUtils.scala` lets a feature go once it is down to 0.955^60.
const DAILY_DECAY: f64 = 0.955;

/// The features of a pair for a [`Logistic`](super::logistic::Logistic): per direction the time series statistics that Real
/// Graph keeps (`TimeSeriesStatistics` in `interaction_graph.thrift` of <https://github.com/twitter/the-algorithm>): mean
/// and variance over the days with an act, exponentially decayed sum, days since the first act, number of days with one,
/// and days since the last; each as `ln(1 + x)`.
///
/// What departs from it: one kind of act instead of some forty, no cut after sixty quiet days, and the logarithm, since a
/// linear model stands where Real Graph has boosted trees. A direction without an act has been quiet for as long as the
/// pair has known the other.
pub fn real_graph_features(history: PairHistory<'_>) -> [f64; 12] {
    let known = history.theirs.iter().chain(history.yours).copied().fold(0.0, f64::max).floor();
    let both = [direction(history.theirs, known), direction(history.yours, known)];
    std::array::from_fn(|place| both[place / 6][place % 6].ln_1p())
}

/// The features of one direction between people who have known each other for that many days.
fn direction(ages: &[f64], known: f64) -> [f64; 6] {
    let days = per_day(ages);
    let active = number(days.len());
    let mean = number(ages.len()) / active.max(1.0);
    let variance = days.values().map(|acts| (number(*acts) - mean).powi(2)).sum::<f64>() / active.max(1.0);
    let decayed = days.iter().map(|(day, acts)| number(*acts) * DAILY_DECAY.powf(f64::from(*day))).sum();
    let first = days.keys().next_back().map_or(0.0, |day| f64::from(*day));
    let last = days.keys().next().map_or(known, |day| f64::from(*day));
    [mean, variance, decayed, first, active, last]
}

/// How many acts there were on each day, by whole days before the time that is looked back from.
fn per_day(ages: &[f64]) -> BTreeMap<u32, usize> {
    let mut days = BTreeMap::new();
    for age in ages {
        *days.entry(whole_days(*age)).or_default() += 1;
    }
    days
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ages are at least 0, and the conversion saturates"
)]
fn whole_days(age: f64) -> u32 {
    age as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_summed_up_by_days() {
        // Three acts on the day before last and one on the tenth day back; nothing in return.
        let features = real_graph_features(PairHistory { theirs: &[1.2, 10.5, 1.9, 1.0], yours: &[] });
        let decayed = 3.0 * 0.955 + 0.955_f64.powi(10);
        let expected = [2.0, 1.0, decayed, 10.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0];
        for ((feature, expected), name) in features.iter().zip(expected).zip(REAL_GRAPH_FEATURES) {
            assert!((feature - expected.ln_1p()).abs() < 1e-12, "{name}: {feature}");
        }
    }

    #[test]
    fn strangers_have_nothing() {
        assert!(real_graph_features(PairHistory::default()).iter().all(|feature| *feature == 0.0));
    }
}
