//! Laws of the metrics that rankings and probabilities are judged by.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use rapport::evaluation::metrics::{RELIABILITY_BINS, Ranking, brier, calibration_error, reliability};

/// Candidates with few different scores, so that many are equal, in tenths.
fn candidates() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((0..=10_u8, any::<bool>()), 2..40)
}

fn unzip(candidates: &[(u8, bool)], score: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<bool>) {
    candidates.iter().map(|(tenths, relevant)| (score(f64::from(*tenths) / 10.0), *relevant)).unzip()
}

fn ranking(candidates: &[(u8, bool)], score: impl Fn(f64) -> f64) -> Option<Ranking> {
    let (scores, relevant) = unzip(candidates, score);
    Ranking::new(&scores, &relevant)
}

proptest! {
    #[test]
    fn only_the_order_of_scores_matters(given in candidates(), shuffled in candidates().prop_shuffle()) {
        prop_assert_eq!(ranking(&given, |score| score), ranking(&given, |score| score.exp() - 3.0));
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        prop_assert_eq!(ranking(&sorted, |score| score), ranking(&shuffled, |score| score));
    }

    #[test]
    fn ranking_metrics_stay_within_their_ranges(given in candidates()) {
        let Some(ranking) = ranking(&given, |score| score) else { return Ok(()) };
        let scores = ranking.scores();
        for value in [scores.ndcg10, scores.average_precision, scores.auc] {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&value), "{scores:?}");
        }
    }

    #[test]
    fn turning_a_ranking_over_turns_its_area_over(given in candidates()) {
        let Some(upright) = ranking(&given, |score| score) else { return Ok(()) };
        let over = ranking(&given, |score| -score).unwrap();
        prop_assert!((upright.auc() + over.auc() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_score_for_all_ranks_as_chance_does(given in candidates()) {
        let Some(flat) = ranking(&given, |_| 0.5) else { return Ok(()) };
        prop_assert!((flat.auc() - 0.5).abs() < 1e-12);
        prop_assert!(flat.average_precision() <= 1.0 && flat.ndcg(10) <= 1.0);
    }

    #[test]
    fn knowing_the_outcome_is_perfect(given in candidates()) {
        let (scores, relevant): (Vec<f64>, Vec<bool>) =
            given.iter().map(|(_, relevant)| (f64::from(u8::from(*relevant)), *relevant)).unzip();
        let Some(ranking) = Ranking::new(&scores, &relevant) else { return Ok(()) };
        let best = ranking.scores();
        for value in [best.ndcg10, best.average_precision, best.auc] {
            prop_assert!((value - 1.0).abs() < 1e-12, "{best:?}");
        }
    }

    #[test]
    fn bins_hold_every_prediction_once_whatever_their_order(given in candidates()) {
        let (probabilities, happened) = unzip(&given, |score| score);
        let bins = reliability(&probabilities, &happened);
        prop_assert!(bins.len() <= RELIABILITY_BINS);
        prop_assert_eq!(bins.iter().map(|bin| bin.count).sum::<usize>(), given.len());
        prop_assert!(bins.is_sorted_by(|a, b| a.mean_predicted < b.mean_predicted));
        let error = calibration_error(&bins).unwrap();
        prop_assert!((0.0..=1.0).contains(&error));

        let (mut backwards, mut outcomes) = (probabilities.clone(), happened.clone());
        backwards.reverse();
        outcomes.reverse();
        prop_assert_eq!(reliability(&backwards, &outcomes), bins);
        prop_assert_eq!(brier(&backwards, &outcomes), brier(&probabilities, &happened));
    }
}
