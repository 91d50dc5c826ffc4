//! A backtest: a policy and the published rules on the same history, cut after cut.

use crate::{domain::Timestamp, scoring::Policy};

use super::{
    Candidate, Event, History, Snapshot,
    baselines::{InteractionsRank, PairHistory, count, dotalign, last_contact, pingcrm},
    logistic::Logistic,
    mean,
    metrics::{Forecast, Ranking, RankingScores, brier, calibration_error, interval_coverage, reliability},
    real_graph_features,
    report::{Cut, CutUse, HistorySummary, ModelReliability, ModelScores, Report},
};

/// The name of the rule that all are compared with.
const REFERENCE: &str = "Interactions Rank, tuned";
/// How strongly logistic regressions are held back, in squared weights.
const PENALTY: f64 = 1.0;

/// How a history is cut, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many cuts.
    pub cuts: usize,
    /// How many of them, from the earliest on, may be fitted on; the others are reported.
    pub fit_cuts: usize,
    /// The days within which something has to happen.
    pub horizon_days: f64,
    /// What has to happen.
    pub event: Event,
}

/// A history at its cuts, ready to be scored by anything.
pub struct Trial<'a> {
    history: &'a History,
    plan: Plan,
    cuts: Vec<CutData>,
}

/// What is known at one cut, and what happened.
struct CutData {
    snapshot: Snapshot,
    ages: Vec<[Vec<f64>; 2]>,
    happened: Vec<bool>,
    used_for: CutUse,
}

/// What a rule says of one cut: a score for each connection, and a probability where it has one.
struct Scored {
    scores: Vec<f64>,
    probabilities: Option<Vec<f64>>,
}

impl<'a> Trial<'a> {
    /// Cuts a history, and tells after each cut how many are done.
    pub fn new(history: &'a History, plan: Plan, policy: &Policy, mut on_cut: impl FnMut(usize)) -> Self {
        let times = history.cuts(plan.cuts, plan.horizon_days);
        let mut cuts = Vec::with_capacity(times.len());
        for (place, time) in times.into_iter().enumerate() {
            cuts.push(CutData::new(history, &plan, time, place, policy));
            on_cut(place + 1);
        }
        Self { history, plan, cuts }
    }

    /// The snapshots that may be fitted on.
    pub fn fit_snapshots(&self) -> Vec<Snapshot> {
        self.cuts.iter().filter(|cut| cut.used_for == CutUse::Fit).map(|cut| cut.snapshot.clone()).collect()
    }

    /// All snapshots.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.cuts.iter().map(|cut| cut.snapshot.clone()).collect()
    }

    /// How these policies and the published rules did; the first policy is the one that the report is about.
    pub fn report(&self, title: &str, policies: &[&Policy]) -> Report {
        let mut models: Vec<(String, Vec<Scored>)> = policies
            .iter()
            .map(|policy| {
                (format!("Rapport {}", policy.version), self.cuts.iter().map(|cut| cut.by_policy(policy)).collect())
            })
            .collect();
        models.extend(self.rules());
        let of_cut = |place: usize, cut: &CutData| -> Vec<ModelScores> {
            models.iter().filter_map(|(name, scored)| cut.judged(name, scored.get(place)?)).collect()
        };
        let cuts: Vec<Cut> =
            self.cuts.iter().enumerate().map(|(place, cut)| cut.described(compared(of_cut(place, cut)))).collect();
        let subject = policies.first();
        Report {
            title: title.to_owned(),
            history: self.summary(),
            horizon_days: self.plan.horizon_days,
            relevance: self.plan.event.name().to_owned(),
            seed: 0,
            subject: models.first().map(|(name, _)| name.clone()).unwrap_or_default(),
            reference: REFERENCE.to_owned(),
            overall: compared(self.overall(&cuts, &models)),
            reliability: self.reliability(&models),
            interval_coverage: subject.and_then(|policy| self.coverage(policy)),
            policy_version: subject.map(|policy| policy.version.to_string()).unwrap_or_default(),
            notes: Vec::new(),
            cuts,
        }
    }

    /// The published rules, with those that need it tuned or fitted on the cuts for that.
    fn rules(&self) -> Vec<(String, Vec<Scored>)> {
        let tuned = InteractionsRank::grid()
            .map(|rule| (self.fit_ndcg(|pair| rule.score(pair)), rule))
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map_or_else(InteractionsRank::default, |(_, rule)| rule);
        let default = InteractionsRank::default();
        let mut rules = vec![
            (REFERENCE.to_owned(), self.with_logistic(|pair| tuned.score(pair))),
            ("Interactions Rank, 35 d, 2".to_owned(), self.with_logistic(|pair| default.score(pair))),
            ("Count".to_owned(), self.with_logistic(count)),
            ("Last contact".to_owned(), self.with_logistic(last_contact)),
            ("DotAlign".to_owned(), self.with_logistic(dotalign)),
            ("PingCRM".to_owned(), self.with_logistic(pingcrm)),
        ];
        rules.extend(self.real_graph().map(|scored| ("Real Graph, logistic".to_owned(), scored)));
        rules
    }

    fn fit_cuts(&self) -> impl Iterator<Item = &CutData> {
        self.cuts.iter().filter(|cut| cut.used_for == CutUse::Fit)
    }

    /// The mean NDCG of a rule over the cuts for fitting.
    fn fit_ndcg(&self, rule: impl Fn(PairHistory<'_>) -> f64) -> f64 {
        let of_cut = |cut: &CutData| mean(cut.rankings(&cut.by_rule(&rule)).map(|ranking| ranking.ndcg(10)));
        mean(self.fit_cuts().filter_map(of_cut)).unwrap_or(0.0)
    }

    fn with_logistic(&self, rule: impl Fn(PairHistory<'_>) -> f64) -> Vec<Scored> {
        let scores: Vec<Vec<f64>> = self.cuts.iter().map(|cut| cut.by_rule(&rule)).collect();
        let (mut learnt, mut outcomes) = (Vec::new(), Vec::new());
        for (cut, scores) in self.cuts.iter().zip(&scores).filter(|(cut, _)| cut.used_for == CutUse::Fit) {
            learnt.extend(scores);
            outcomes.extend(&cut.happened);
        }
        let logistic = Logistic::fit_score(&learnt, &outcomes, PENALTY);
        scores
            .into_iter()
            .map(|scores| {
                let of =
                    |logistic: &Logistic| scores.iter().map(|score| logistic.probability_of_score(*score)).collect();
                Scored { probabilities: logistic.as_ref().map(of), scores }
            })
            .collect()
    }

    fn real_graph(&self) -> Option<Vec<Scored>> {
        let rows: Vec<_> = self.fit_cuts().flat_map(CutData::pairs).map(real_graph_features).collect();
        let outcomes: Vec<bool> = self.fit_cuts().flat_map(|cut| cut.happened.iter().copied()).collect();
        let logistic = Logistic::fit(&rows, &outcomes, PENALTY)?;
        let of_cut = |cut: &CutData| {
            let scores: Vec<f64> = cut.pairs().map(|pair| logistic.probability(&real_graph_features(pair))).collect();
            Scored { probabilities: Some(scores.clone()), scores }
        };
        Some(self.cuts.iter().map(of_cut).collect())
    }

    fn overall(&self, cuts: &[Cut], models: &[(String, Vec<Scored>)]) -> Vec<ModelScores> {
        let reported: Vec<&Cut> = cuts.iter().filter(|cut| cut.used_for == CutUse::Report).collect();
        let of_model = |name: &String| {
            let found: Vec<&ModelScores> =
                reported.iter().filter_map(|cut| cut.models.iter().find(|model| model.name == *name)).collect();
            let mean_of = |of: &dyn Fn(&ModelScores) -> f64| mean(found.iter().map(|model| of(model)));
            let ranking = RankingScores {
                ndcg10: mean_of(&|model| model.ndcg10)?,
                average_precision: mean_of(&|model| model.map)?,
                auc: mean_of(&|model| model.auc)?,
            };
            let (probabilities, happened) = self.reported(models, name)?;
            Some(ModelScores {
                brier: brier(&probabilities, &happened),
                calibration_error: calibration_error(&reliability(&probabilities, &happened)),
                ..ModelScores::new(name, ranking)
            })
        };
        models.iter().filter_map(|(name, _)| of_model(name)).collect()
    }

    /// All probabilities of a model at the cuts that are reported, and what happened; empty when it has none.
    fn reported(&self, models: &[(String, Vec<Scored>)], name: &str) -> Option<(Vec<f64>, Vec<bool>)> {
        let (_, scored) = models.iter().find(|(known, _)| known == name)?;
        let (mut probabilities, mut happened) = (Vec::new(), Vec::new());
        for (cut, scored) in self.cuts.iter().zip(scored).filter(|(cut, _)| cut.used_for == CutUse::Report) {
            if let Some(of_cut) = &scored.probabilities {
                probabilities.extend(of_cut);
                happened.extend(&cut.happened);
            }
        }
        Some((probabilities, happened))
    }

    fn reliability(&self, models: &[(String, Vec<Scored>)]) -> Vec<ModelReliability> {
        let of_model = |(name, _): &(String, Vec<Scored>)| {
            let (probabilities, happened) = self.reported(models, name)?;
            let bins = reliability(&probabilities, &happened);
            (!bins.is_empty()).then(|| ModelReliability { name: name.clone(), bins })
        };
        models.iter().filter_map(of_model).collect()
    }

    fn coverage(&self, policy: &Policy) -> Option<f64> {
        let reported = self.cuts.iter().filter(|cut| cut.used_for == CutUse::Report).map(|cut| &cut.snapshot);
        coverage(reported, self.plan.horizon_days, policy)
    }

    fn summary(&self) -> HistorySummary {
        let (persons, acts, pairs) = self.history.len();
        let days = self.history.span().map_or(0.0, |(first, last)| first.day().age_at(last));
        HistorySummary { persons, acts, pairs, span_days: days }
    }
}

/// For what part of persons the intervals of a policy hold what came out; `None` without persons.
pub(super) fn coverage<'a>(
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
    horizon_days: f64,
    policy: &Policy,
) -> Option<f64> {
    let of_person = |candidates: &[Candidate]| -> Vec<Forecast> {
        let forecast = |candidate: &Candidate| {
            let interval = candidate.steps.interval(policy);
            Forecast { lower: interval.lower, upper: interval.upper, relevant: candidate.happened(horizon_days) }
        };
        candidates.iter().map(forecast).collect()
    };
    let forecasts: Vec<_> = snapshots.into_iter().flat_map(Snapshot::persons).map(of_person).collect();
    interval_coverage(forecasts.iter().map(Vec::as_slice))
}

fn compared(mut models: Vec<ModelScores>) -> Vec<ModelScores> {
    ModelScores::compare(&mut models, REFERENCE);
    models
}

impl CutData {
    fn new(history: &History, plan: &Plan, time: Timestamp, place: usize, policy: &Policy) -> Self {
        let snapshot = history.snapshot(time, plan.event, policy);
        let ages = snapshot.candidates.iter().map(|one| history.ages(one.owner, one.peer, time)).collect();
        let happened = snapshot.candidates.iter().map(|one| one.happened(plan.horizon_days)).collect();
        let used_for = if place < plan.fit_cuts { CutUse::Fit } else { CutUse::Report };
        Self { snapshot, ages, happened, used_for }
    }

    fn pairs(&self) -> impl Iterator<Item = PairHistory<'_>> {
        self.ages.iter().map(|[theirs, yours]| PairHistory { theirs, yours })
    }

    fn by_rule(&self, rule: impl Fn(PairHistory<'_>) -> f64) -> Vec<f64> {
        self.pairs().map(rule).collect()
    }

    /// By the lower end of the willingness, as rankings go.
    fn by_policy(&self, policy: &Policy) -> Scored {
        let (mut scores, mut probabilities) = (Vec::new(), Vec::new());
        for candidate in &self.snapshot.candidates {
            let interval = candidate.steps.interval(policy);
            scores.push((interval.lower * 1e9).round());
            probabilities.push(interval.probability);
        }
        Scored { scores, probabilities: Some(probabilities) }
    }

    /// The rankings, by these scores, of persons of whose connections some acted and some did not.
    fn rankings(&self, scores: &[f64]) -> impl Iterator<Item = Ranking> {
        let mut from = 0;
        self.snapshot.persons().filter_map(move |candidates| {
            let place = from..from + candidates.len();
            from = place.end;
            Ranking::new(scores.get(place.clone())?, self.happened.get(place)?)
        })
    }

    fn judged(&self, name: &str, scored: &Scored) -> Option<ModelScores> {
        let rankings: Vec<RankingScores> = self.rankings(&scored.scores).map(|ranking| ranking.scores()).collect();
        let mut model = ModelScores::new(name, RankingScores::mean(&rankings)?);
        if let Some(probabilities) = &scored.probabilities {
            model.brier = brier(probabilities, &self.happened);
            model.calibration_error = calibration_error(&reliability(probabilities, &self.happened));
        }
        Some(model)
    }

    fn described(&self, models: Vec<ModelScores>) -> Cut {
        let flat = vec![0.0; self.happened.len()];
        let happened = self.happened.iter().map(|happened| f64::from(u8::from(*happened)));
        Cut {
            cut_time: rfc3339(self.snapshot.time),
            used_for: self.used_for,
            persons: self.rankings(&flat).count(),
            pairs: self.happened.len(),
            base_rate: mean(happened).unwrap_or(0.0),
            models,
        }
    }
}

fn rfc3339(time: Timestamp) -> String {
    let (seconds, _) = time.seconds_and_nanos();
    let format = time::format_description::well_known::Rfc3339;
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.format(&format).ok()).unwrap_or_default()
}
