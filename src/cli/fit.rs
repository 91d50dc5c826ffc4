//! `rapport fit`: fit a policy to a history, and tell how it does. Fitting one policy to several histories lives beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use crate::{
    domain::PolicyVersion,
    evaluation::{FitSet, SHRINKAGE, fit, report::Report},
    scoring::{DEFAULT, Policy},
};

use super::{
    Failure, Finished,
    history::{self, HistoryArguments, PlanArguments},
    print,
    recipe::{self, RecipeArguments},
    report,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    history: HistoryArguments,
    #[command(flatten)]
    plan: PlanArguments,
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    fitting: FittingArguments,
}

/// What a fit starts from, and where it goes.
#[derive(Args, Debug)]
pub(super) struct FittingArguments {
    /// The policy to start from, which little data stays close to [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// The name of the policy that is fitted
    #[arg(long, value_name = "NAME", default_value = "fitted-1", value_parser = parse_version)]
    version: String,
    /// Where the policy goes
    #[arg(long, value_name = "FILE", default_value = "policy.json")]
    output: PathBuf,
    /// How many persons' worth of evidence it takes to move the weights away from where they start
    #[arg(long, value_name = "PERSONS", default_value_t = SHRINKAGE, value_parser = parse_persons)]
    pub(super) shrink: f64,
}

fn parse_version(text: &str) -> Result<String, String> {
    PolicyVersion::parse(text).map(|version| version.as_str().to_owned()).map_err(|error| error.to_string())
}

fn parse_persons(text: &str) -> Result<f64, &'static str> {
    let persons = text.parse().ok().filter(|persons| (0.0..=1e9).contains(persons));
    persons.ok_or("must be a number from 0 to 1000000000")
}

impl FittingArguments {
    /// The name of the policy to start from, and that policy under the name of the one that is fitted.
    fn start(&self) -> Result<(String, Policy), Failure> {
        let start = read_policy(self.start.as_deref())?;
        Ok((start.version.to_string(), Policy { version: self.version.clone().into(), ..start }))
    }

    /// Writes a policy to where it goes, with a word on how it was fitted, and says so.
    pub(super) fn write(&self, fitted: &Policy, how: Option<serde_json::Value>) -> Result<(), Failure> {
        let written = write(&self.output, &fitted.document_with(how));
        written.map_err(|error| format!("{error}; --output names another file"))?;
        print::line(format_args!("The policy is in {}.", self.output.display()));
        Ok(())
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let (name, start) = arguments.fitting.start()?;
    if arguments.recipe.is_given() {
        return recipe::run(&arguments.recipe, &arguments.plan, &arguments.fitting, &start);
    }
    let (title, history) = arguments.history.read().await?;
    let plan = arguments.plan.plan(&history)?;
    let start = Policy { horizon_days: plan.horizon_days, ..start };
    let trial = history::cut(&history, plan, &start);
    let snapshots = trial.fit_snapshots();
    let set = FitSet::alone(&snapshots, plan.horizon_days);
    let fitted = history::at_work("fitting the policy", || fit(&[set], &start, arguments.fitting.shrink))?;
    let before = Policy { version: format!("{name} before").into(), ..start };
    let found = history::at_work("comparing with the published rules", || {
        trial.report(&format!("{} on {title}", fitted.version), &[&fitted, &before])
    });
    report::print_table(&found);
    arguments.fitting.write(&fitted, Some(how(&found)))?;
    Ok(Finished::Well)
}

/// How a policy was fitted and did, for those who read its document.
fn how(report: &Report) -> serde_json::Value {
    let cuts = report.cuts.iter().map(|cut| json!({ "time": cut.cut_time, "used_for": cut.used_for }));
    json!({
        "history": report.history,
        "horizon_days": report.horizon_days,
        "cuts": cuts.collect::<Vec<_>>(),
        "overall": report.overall,
        "interval_coverage": report.interval_coverage,
    })
}

/// The policy in a file, or the built-in one.
pub(super) fn read_policy(file: Option<&Path>) -> Result<Policy, Failure> {
    let Some(file) = file else { return Ok(DEFAULT.clone()) };
    let name = file.display().to_string();
    let document = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    parse_policy(&document, &name)
}

/// The policy in a document; `name` is what the document is called when it is none.
pub(super) fn parse_policy(document: &str, name: &str) -> Result<Policy, Failure> {
    Policy::parse(document).map_err(|faults| {
        // A fault of the document as a whole names no field.
        let faults: Vec<String> = faults.iter().map(|fault| fault.to_string().trim_start().to_owned()).collect();
        format!("{name} is no policy: {}", faults.join("; ")).into()
    })
}

/// Writes a text file that ends with a line.
pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, format!("{text}\n")).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}
