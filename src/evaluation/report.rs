//! What a backtest says in the end, as plain values whose fields serialise in the order they are written here. How a report
//! is printed is not decided here.

use serde::Serialize;

use super::metrics::{RankingScores, ReliabilityBin};

/// How models did on a history: fitted at some cuts, reported at others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was tested on what, for a heading.
    pub title: String,
    /// The history behind it.
    pub history: HistorySummary,
    /// How many days after a cut count as its outcome.
    pub horizon_days: f64,
    /// When a candidate is relevant, as the end of "a candidate is relevant who …".
    pub relevance: String,
    /// What chance was drawn from.
    pub seed: u64,
    /// The name of the model that the report is about.
    pub subject: String,
    /// The name of the model that others are compared with: the tuned Interactions Rank.
    pub reference: String,
    /// The cuts, earliest first.
    pub cuts: Vec<Cut>,
    /// The models over all cuts used for reporting.
    pub overall: Vec<ModelScores>,
    /// For each model with probabilities, its calibration over all cuts used for reporting.
    pub reliability: Vec<ModelReliability>,
    /// The share of persons, in [0, 1], whose share of relevant candidates the subject's intervals cover.
    pub interval_coverage: Option<f64>,
    /// The version of the policy that the subject scores by.
    pub policy_version: String,
    /// What else a reader must know, a sentence or more each.
    pub notes: Vec<String>,
}

/// The size of a history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HistorySummary {
    /// How many people acted or were acted towards.
    pub persons: usize,
    /// How many acts.
    pub acts: usize,
    /// How many ordered pairs of people with an act between them.
    pub pairs: usize,
    /// Days from the first act to the last.
    pub span_days: f64,
}

/// A point in time: what is before it is known, what follows within the horizon is to be foretold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// The time, in RFC 3339.
    pub cut_time: String,
    /// What the cut is for.
    pub used_for: CutUse,
    /// How many persons have relevant and irrelevant candidates, and so count in the ranking metrics.
    pub persons: usize,
    /// How many pairs of a person and a candidate.
    pub pairs: usize,
    /// The share of pairs that are relevant, in [0, 1].
    pub base_rate: f64,
    /// The models at this cut.
    pub models: Vec<ModelScores>,
}

/// What a cut is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CutUse {
    /// Choosing parameters.
    Fit,
    /// Measuring.
    Report,
}

/// How one model did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelScores {
    /// Its name, unique within a report.
    pub name: String,
    /// The mean NDCG of the first ten over persons, in [0, 1].
    pub ndcg10: f64,
    /// The mean average precision over persons, in [0, 1].
    pub map: f64,
    /// The mean area under the ROC curve over persons, in [0, 1].
    pub auc: f64,
    /// The Brier score over pairs, in [0, 1], of models with probabilities; less is better.
    pub brier: Option<f64>,
    /// The calibration error over pairs, in [0, 1], of models with probabilities; less is better.
    pub calibration_error: Option<f64>,
    /// Its NDCG of the first ten divided by that of the tuned Interactions Rank.
    pub ratio_to_tuned_interactions_rank: Option<f64>,
}

/// The calibration of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReliability {
    /// The model's name.
    pub name: String,
    /// Its bins, lowest predictions first.
    pub bins: Vec<ReliabilityBin>,
}

impl ModelScores {
    /// The scores of a model that only ranks, not yet compared.
    pub fn new(name: impl Into<String>, ranking: RankingScores) -> Self {
        Self {
            name: name.into(),
            ndcg10: ranking.ndcg10,
            map: ranking.average_precision,
            auc: ranking.auc,
            brier: None,
            calibration_error: None,
            ratio_to_tuned_interactions_rank: None,
        }
    }

    /// Compares all models with the one of that name, if it is among them and ranks anything well at all.
    pub fn compare(models: &mut [Self], reference: &str) {
        let of = models.iter().find(|model| model.name == reference).map(|model| model.ndcg10);
        let of = of.filter(|ndcg10| *ndcg10 > 0.0);
        for model in models {
            model.ratio_to_tuned_interactions_rank = of.map(|of| model.ndcg10 / of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(name: &str, ndcg10: f64) -> ModelScores {
        ModelScores::new(name, RankingScores { ndcg10, average_precision: 0.5, auc: 0.5 })
    }

    #[test]
    fn models_are_compared_with_the_reference() {
        let mut models = [scores("a", 0.6), scores("b", 0.4)];
        ModelScores::compare(&mut models, "b");
        assert!((models[0].ratio_to_tuned_interactions_rank.unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(models[1].ratio_to_tuned_interactions_rank, Some(1.0));
        ModelScores::compare(&mut models, "c");
        assert_eq!(models[0].ratio_to_tuned_interactions_rank, None);
        let mut hopeless = [scores("a", 0.6), scores("b", 0.0)];
        ModelScores::compare(&mut hopeless, "b");
        assert_eq!(hopeless[0].ratio_to_tuned_interactions_rank, None);
    }

    #[test]
    fn fields_keep_their_order() {
        let json = serde_json::to_string(&scores("a", 0.5)).unwrap();
        let expected = r#"{"name":"a","ndcg10":0.5,"map":0.5,"auc":0.5,"brier":null,"calibration_error":null,"#;
        assert!(json.starts_with(expected), "{json}");
    }
}
