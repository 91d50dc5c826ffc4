//! `rapport fit`: fit a policy to histories, and tell how it does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::{
    evaluation::{FitSet, Plan, SHRINKAGE, Snapshot, Trial, fit, report::Report},
    scoring::{DEFAULT, Policy},
};

use super::{
    Failure, Finished,
    history::{HistoryArguments, PlanArguments, Progress},
    import::{self, ReadingArguments},
    print, report,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    history: HistoryArguments,
    #[command(flatten)]
    plan: PlanArguments,
    /// Fit one policy to several histories, listed in a JSON file: {"sets": [{"name": …, "file": …, "columns": {…},
    /// "kinds": {…}, "horizon_days": …, "weight": …}, …]}; files are looked for beside it, or below --sets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "tenant"])]
    recipe: Option<PathBuf>,
    /// Where the files of a recipe are
    #[arg(long, value_name = "FOLDER", requires = "recipe")]
    sets: Option<PathBuf>,
    /// With a recipe, leave out one family of histories at a time, and tell how the rest does on it
    #[arg(long, requires = "recipe")]
    leave_one_out: bool,
    /// The policy to start from, which little data stays close to [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// The name of the policy that is fitted
    #[arg(long, value_name = "NAME", default_value = "fitted-1")]
    version: String,
    /// Where the policy goes
    #[arg(long, value_name = "FILE", default_value = "policy.json")]
    output: PathBuf,
    /// How many persons' worth of evidence it takes to move the weights away from where they start
    #[arg(long, value_name = "PERSONS", default_value_t = SHRINKAGE)]
    shrink: f64,
}

/// One history of a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    file: PathBuf,
    columns: std::collections::BTreeMap<String, String>,
    kinds: std::collections::BTreeMap<String, String>,
    horizon_days: f64,
    #[serde(default = "one")]
    weight: f64,
    /// Sets of one family are left out together.
    family: Option<String>,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    sets: Vec<Set>,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let start = read_policy(arguments.start.as_deref())?;
    let start = Policy { version: arguments.version.clone().into(), ..start };
    match arguments.recipe.clone() {
        Some(recipe) => fit_recipe(&arguments, &recipe, &start),
        None => fit_one(arguments, &start).await,
    }
}

/// The policy in a file, or the built-in one.
pub(super) fn read_policy(file: Option<&Path>) -> Result<Policy, Failure> {
    let Some(file) = file else { return Ok(DEFAULT.clone()) };
    let document = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Policy::parse(&document).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        format!("{} is no policy: {}", file.display(), faults.join("; ")).into()
    })
}

async fn fit_one(arguments: Arguments, start: &Policy) -> Result<Finished, Failure> {
    let (title, history) = arguments.history.read().await?;
    let plan = arguments.plan.plan(&history)?;
    let start = &Policy { horizon_days: plan.horizon_days, ..start.clone() };
    let progress = Progress::start("cutting the history", plan.cuts);
    let trial = Trial::new(&history, plan, start, |done| progress.show(done));
    progress.finish();
    let snapshots = trial.fit_snapshots();
    let set = FitSet { snapshots: &snapshots, horizon_days: plan.horizon_days, weight: 1.0 };
    let fitted = fit(&[set], start, arguments.shrink)?;
    let before = Policy { version: format!("{} before", DEFAULT.version).into(), ..start.clone() };
    let found = trial.report(&format!("{} on {title}", fitted.version), &[&fitted, &before]);
    write_policy(&arguments.output, &fitted, &found)?;
    report::print_table(&found);
    print::line(format_args!("The policy is in {}.", arguments.output.display()));
    Ok(Finished::Well)
}

fn write_policy(output: &Path, fitted: &Policy, report: &Report) -> Result<(), Failure> {
    let how = json!({
        "history": report.history,
        "horizon_days": report.horizon_days,
        "cuts": report.cuts.iter().map(|cut| json!({"time": cut.cut_time, "used_for": cut.used_for})).collect::<Vec<_>>(),
        "overall": report.overall,
        "interval_coverage": report.interval_coverage,
    });
    write(output, &fitted.document_with(Some(how)))
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, format!("{text}\n")).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

/// A history of a recipe, cut.
struct Prepared {
    set: Set,
    snapshots: Vec<Snapshot>,
    history: crate::evaluation::History,
    plan: Plan,
}

fn fit_recipe(arguments: &Arguments, recipe: &Path, start: &Policy) -> Result<Finished, Failure> {
    let text = fs::read_to_string(recipe).map_err(|error| format!("cannot read {}: {error}", recipe.display()))?;
    let read: Recipe = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", recipe.display()))?;
    let folder = arguments.sets.clone().or_else(|| recipe.parent().map(Path::to_owned)).unwrap_or_default();
    let mut prepared = Vec::new();
    for set in read.sets {
        print::progress(format_args!("reading {}", set.name));
        prepared.push(prepare(arguments, &folder, set, start)?);
    }
    if arguments.leave_one_out {
        return leave_one_out(&prepared, start, arguments.shrink);
    }
    let all: Vec<&Prepared> = prepared.iter().collect();
    let fitted = fit_all(&all, start, arguments.shrink)?;
    write(&arguments.output, &fitted.document())?;
    print::line(format_args!("The policy is in {}.", arguments.output.display()));
    Ok(Finished::Well)
}

fn prepare(arguments: &Arguments, folder: &Path, set: Set, policy: &Policy) -> Result<Prepared, Failure> {
    let reading = ReadingArguments::new(&set.columns, &set.kinds)?;
    let (history, _) = import::read_history(&folder.join(&set.file), reading)?;
    let plan = Plan { horizon_days: set.horizon_days, ..arguments.plan.plan(&history)? };
    let cuts = history.cuts(plan.cuts, plan.horizon_days);
    let snapshots = cuts.into_iter().map(|cut| history.snapshot(cut, plan.event, policy)).collect();
    Ok(Prepared { set, snapshots, history, plan })
}

fn fit_all(prepared: &[&Prepared], start: &Policy, shrink: f64) -> Result<Policy, Failure> {
    let sets: Vec<FitSet<'_>> = prepared
        .iter()
        .map(|one| FitSet { snapshots: &one.snapshots, horizon_days: one.plan.horizon_days, weight: one.set.weight })
        .collect();
    Ok(fit(&sets, start, shrink)?)
}

/// How the policy fitted to the other families does on each history, before and after a fit to its own earlier cuts.
fn leave_one_out(prepared: &[Prepared], start: &Policy, shrink: f64) -> Result<Finished, Failure> {
    let family = |one: &Prepared| one.set.family.clone().unwrap_or_else(|| one.set.name.clone());
    let mut rows = Vec::new();
    for left_out in prepared {
        let others: Vec<&Prepared> = prepared.iter().filter(|one| family(one) != family(left_out)).collect();
        let unseen = Policy { version: "unseen".into(), ..fit_all(&others, start, shrink)? };
        let trial = Trial::new(&left_out.history, left_out.plan, &unseen, |_| {});
        let snapshots = trial.fit_snapshots();
        let set = FitSet { snapshots: &snapshots, horizon_days: left_out.plan.horizon_days, weight: 1.0 };
        let from = Policy { horizon_days: left_out.plan.horizon_days, ..unseen.clone() };
        let fitted = Policy { version: "fitted".into(), ..fit(&[set], &from, SHRINKAGE).unwrap_or(from) };
        let found = trial.report(&left_out.set.name, &[&unseen, &fitted]);
        let of = |name: &str| found.overall.iter().find(|model| model.name == name);
        let number = |name: &str, of_model: &dyn Fn(&crate::evaluation::report::ModelScores) -> Option<f64>| {
            of(name).and_then(of_model).map(|value| format!("{value:.3}")).unwrap_or_default()
        };
        let ratio = |model: &crate::evaluation::report::ModelScores| model.ratio_to_tuned_interactions_rank;
        rows.push(vec![
            left_out.set.name.clone(),
            number(&found.reference, &|model| Some(model.ndcg10)),
            number("Interactions Rank, 35 d, 2", &ratio),
            number("Real Graph, logistic", &ratio),
            number("Rapport unseen", &ratio),
            number("Rapport fitted", &ratio),
            number("Rapport fitted", &|model| model.calibration_error),
            number("Rapport fitted", &|model| model.brier.map(|brier| brier * 100.0)),
            number(&found.reference, &|model| model.brier.map(|brier| brier * 100.0)),
            format!("{:.2}", found.interval_coverage.unwrap_or_default()),
        ]);
        print::progress(format_args!("{:?}", rows.last()));
    }
    let heading = [
        "history",
        "tuned IR",
        "IR 35 d",
        "Real Graph",
        "unseen",
        "fitted",
        "ECE",
        "Brier·100",
        "IR Brier·100",
        "cover",
    ];
    print::table(&heading, 1..10, rows);
    Ok(Finished::Well)
}
