//! `rapport fit --recipe`: fit one policy to several histories, or tell how it does on each when that is left out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;

use crate::{
    evaluation::{
        FitSet, History, Plan, SHRINKAGE, Snapshot, TooLittleData, Trial, fit,
        report::{ModelScores, Report},
    },
    scoring::Policy,
};

use super::{
    Failure, Finished,
    fit::FittingArguments,
    history::{self, PlanArguments},
    import::{self, ReadingArguments},
    print,
};

#[derive(Args, Debug)]
pub(super) struct RecipeArguments {
    /// Fit one policy to several histories, listed in a JSON file: {"sets": [{"name": …, "source": …, "file": …, "columns": {…},
    /// "kinds": {…}, "horizon_days": …, "weight": …, "chance_weight": …, "family": …}, …]}; files are looked for beside it, or below --sets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "tenant"])]
    recipe: Option<PathBuf>,
    /// Where the files of a recipe are
    #[arg(long, value_name = "FOLDER", requires = "recipe")]
    sets: Option<PathBuf>,
    /// With a recipe, leave out one family of histories at a time, and tell how the rest does on it
    #[arg(long, requires = "recipe")]
    leave_one_out: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    sets: Vec<Set>,
}

/// One history of a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    /// Where it is from, for people.
    #[serde(default, rename = "source")]
    _source: String,
    file: PathBuf,
    columns: BTreeMap<String, String>,
    kinds: BTreeMap<String, String>,
    horizon_days: f64,
    #[serde(default = "one")]
    weight: f64,
    /// The weight of its probabilities; that of all else when there is none.
    chance_weight: Option<f64>,
    /// Sets of one family are left out together.
    family: Option<String>,
}

fn one() -> f64 {
    1.0
}

/// A history of a recipe, cut.
struct Prepared {
    set: Set,
    snapshots: Vec<Snapshot>,
    history: History,
    plan: Plan,
}

impl RecipeArguments {
    /// Whether there is a recipe.
    pub(super) fn is_given(&self) -> bool {
        self.recipe.is_some()
    }

    /// The histories of the recipe, cut.
    fn prepare(&self, plan: &PlanArguments, policy: &Policy) -> Result<Vec<Prepared>, Failure> {
        let recipe = self.recipe.as_deref().ok_or("a recipe is needed")?;
        let text = fs::read_to_string(recipe).map_err(|error| format!("cannot read {}: {error}", recipe.display()))?;
        let read: Recipe = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", recipe.display()))?;
        let folder = self.sets.as_deref().or_else(|| recipe.parent()).unwrap_or(Path::new(""));
        let prepare = |set: Set| {
            let name = format!("reading and cutting {}", set.name);
            history::at_work(name, || Prepared::new(set, folder, plan, policy))
        };
        read.sets.into_iter().map(prepare).collect()
    }
}

pub(super) fn run(
    arguments: &RecipeArguments,
    plan: &PlanArguments,
    fitting: &FittingArguments,
    start: &Policy,
) -> Result<Finished, Failure> {
    let prepared = arguments.prepare(plan, start)?;
    if arguments.leave_one_out {
        return leave_one_out(&prepared, start, fitting.shrink);
    }
    let fitted = history::at_work("fitting the policy", || fit_all(&prepared, start, fitting.shrink))?;
    fitting.write(&fitted, None)?;
    Ok(Finished::Well)
}

impl Prepared {
    fn new(set: Set, folder: &Path, plan: &PlanArguments, policy: &Policy) -> Result<Self, Failure> {
        let named = |error: Failure| format!("{}: {error}", set.name);
        let reading = ReadingArguments::new(&set.columns, &set.kinds).map_err(|error| named(error.into()))?;
        let (history, _) = import::read_history(&folder.join(&set.file), reading).map_err(named)?;
        let plan = plan.plan_within(&history, set.horizon_days).map_err(named)?;
        let cuts = history.cuts(plan.cuts, plan.horizon_days);
        let snapshots = cuts.into_iter().map(|cut| history.snapshot(cut, plan.event, policy)).collect();
        Ok(Self { set, snapshots, history, plan })
    }

    fn family(&self) -> &str {
        self.set.family.as_deref().unwrap_or(&self.set.name)
    }
}

/// The policy that fits all cuts of these histories.
fn fit_all<'a>(
    prepared: impl IntoIterator<Item = &'a Prepared>,
    start: &Policy,
    shrink: f64,
) -> Result<Policy, TooLittleData> {
    let set = |one: &'a Prepared| FitSet {
        snapshots: &one.snapshots,
        horizon_days: one.plan.horizon_days,
        weight: one.set.weight,
        chance_weight: one.set.chance_weight.unwrap_or(one.set.weight),
        later_cuts: 1.0,
    };
    fit(&prepared.into_iter().map(set).collect::<Vec<_>>(), start, shrink)
}

/// What the policy fitted to the other families is called in a report.
const UNSEEN: &str = "unseen";
/// What that policy is called after a fit to the history's own earlier cuts.
const FITTED: &str = "fitted";

/// How the policy fitted to the other families does on each history, before and after a fit to its own earlier cuts.
fn leave_one_out(prepared: &[Prepared], start: &Policy, shrink: f64) -> Result<Finished, Failure> {
    let mut rows = Vec::new();
    for left_out in prepared {
        let others = prepared.iter().filter(|one| one.family() != left_out.family());
        let judged = || Ok::<_, TooLittleData>(judge(left_out, &fit_all(others, start, shrink)?));
        let found = history::at_work(format!("judging on {}", left_out.set.name), judged)?;
        rows.push(row(&found));
    }
    print::table(&HEADING, 1..HEADING.len(), rows);
    Ok(Finished::Well)
}

/// How a policy fitted to other histories does on this one.
fn judge(left_out: &Prepared, fitted_to_others: &Policy) -> Report {
    let Prepared { set, history, plan, .. } = left_out;
    let unseen = Policy { version: UNSEEN.into(), ..fitted_to_others.clone() };
    let trial = Trial::new(history, *plan, &unseen, |_| {});
    let snapshots = trial.fit_snapshots();
    let own = FitSet::alone(&snapshots, plan.horizon_days);
    let from = Policy { horizon_days: plan.horizon_days, ..unseen.clone() };
    // A history with too little before its later cuts is served by what the others say.
    let fitted = fit(&[own], &from, SHRINKAGE).unwrap_or(from);
    trial.report(&set.name, &[&unseen, &Policy { version: FITTED.into(), ..fitted }])
}

const HEADING: [&str; 10] =
    ["history", "tuned IR", "IR 35 d", "Real Graph", "unseen", "fitted", "ECE", "Brier·100", "IR Brier·100", "cover"];

fn row(report: &Report) -> Vec<String> {
    let number = |name: &str, of: fn(&ModelScores) -> Option<f64>| {
        let model = report.overall.iter().find(|model| model.name == name);
        model.and_then(of).map(|value| format!("{value:.3}")).unwrap_or_default()
    };
    let ratio = |model: &ModelScores| model.ratio_to_tuned_interactions_rank;
    let brier = |model: &ModelScores| model.brier.map(|brier| brier * 100.0);
    let [unseen, fitted] = [UNSEEN, FITTED].map(|version| format!("Rapport {version}"));
    vec![
        report.title.clone(),
        number(&report.reference, |model| Some(model.ndcg10)),
        number("Interactions Rank, 35 d, 2", ratio),
        number("Real Graph, logistic", ratio),
        number(&unseen, ratio),
        number(&fitted, ratio),
        number(&fitted, |model| model.calibration_error),
        number(&fitted, brier),
        number(&report.reference, brier),
        report.interval_coverage.map(|coverage| format!("{coverage:.2}")).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_of_the_built_in_policy_is_well_formed() {
        let recipe: Recipe = serde_json::from_str(include_str!("../evaluation/recipe.json")).unwrap();
        assert!(recipe.sets.len() >= 8);
        for set in recipe.sets {
            assert!(ReadingArguments::new(&set.columns, &set.kinds).is_ok(), "{}", set.name);
        }
    }
}
