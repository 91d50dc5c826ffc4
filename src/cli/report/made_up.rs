//! A made-up report to test the printing of reports with.

use crate::evaluation::{
    metrics::{RankingScores, ReliabilityBin},
    number,
    report::{Cut, CutUse, HistorySummary, ModelReliability, ModelScores, Report},
};

/// A model's name and NDCG, and of one with probabilities its Brier score and calibration error.
type Model = (&'static str, f64, Option<(f64, f64)>);

const MODELS: [Model; 8] = [
    ("Rapport", 0.512, Some((0.061, 0.012))),
    ("Interactions Rank, tuned", 0.441, Some((0.066, 0.019))),
    ("Interactions Rank", 0.422, None),
    ("Real Graph, logistic", 0.436, Some((0.065, 0.015))),
    ("count", 0.371, Some((0.072, 0.034))),
    ("last contact", 0.398, None),
    ("DotAlign", 0.352, None),
    ("<odd> model", 0.321, None),
];

/// The report.
pub(super) fn report() -> Report {
    let days = ["2002-07-01", "2002-10-01", "2003-01-01", "2003-04-01", "2003-07-01", "2003-10-01"];
    let wobble = [-0.03, -0.012, 0.014, -0.021, 0.019, 0.004];
    let reference = "Interactions Rank, tuned".to_owned();
    Report {
        title: "Who answers the call? Eighteen months of a mailing list".to_owned(),
        history: HistorySummary { persons: 1_284, acts: 218_430, pairs: 40_912, span_days: 1_096.0 },
        horizon_days: 90.0,
        relevance: "does something that counts as help for the person within the horizon".to_owned(),
        seed: 7,
        subject: "Rapport".to_owned(),
        reference: reference.clone(),
        cuts: days.iter().zip(wobble).enumerate().map(|(place, (day, shift))| cut(place, day, shift)).collect(),
        overall: models(0.0, &reference),
        reliability: MODELS.iter().filter_map(reliability).collect(),
        interval_coverage: Some(0.873),
        policy_version: "2026-11".to_owned(),
        notes: vec!["Candidates are those who shared at least one thread with the person before the cut.".to_owned()],
    }
}

fn cut(place: usize, day: &str, shift: f64) -> Cut {
    Cut {
        cut_time: format!("{day}T00:00:00Z"),
        used_for: if place < 2 { CutUse::Fit } else { CutUse::Report },
        persons: 240 + 31 * place,
        pairs: 9_800 + 1_270 * place,
        base_rate: 0.081 + shift / 10.0,
        models: models(shift, "Interactions Rank, tuned"),
    }
}

fn models(shift: f64, reference: &str) -> Vec<ModelScores> {
    let scores = MODELS.iter().enumerate().map(|(place, (name, ndcg10, chances))| {
        let ndcg10 = ndcg10 + shift * (1.0 + 0.2 * number(place));
        let ranking = RankingScores { ndcg10, average_precision: ndcg10 * 0.86, auc: 0.5 + ndcg10 * 0.7 };
        let (brier, calibration_error) = chances.unzip();
        ModelScores { brier, calibration_error, ..ModelScores::new(*name, ranking) }
    });
    let mut scores: Vec<ModelScores> = scores.collect();
    ModelScores::compare(&mut scores, reference);
    scores
}

fn reliability((name, _, chances): &Model) -> Option<ModelReliability> {
    let (_, error) = chances.as_ref()?;
    let bin = |place: usize| {
        let mean_predicted = 0.005 + 0.0045 * number(place * place);
        let observed_rate = (mean_predicted + error * if place.is_multiple_of(2) { 1.0 } else { -0.8 }).max(0.0);
        ReliabilityBin { mean_predicted, observed_rate, count: if place == 1 { 2_400 } else { 900 + 40 * place } }
    };
    Some(ModelReliability { name: (*name).to_owned(), bins: (0..10).map(bin).collect() })
}
