//! `rapport backtest`: how a policy and the published rules did on a history.

use std::path::PathBuf;

use clap::Args;

use crate::scoring::{DEFAULT, Policy};

use super::{
    Failure, Finished, fit,
    history::{self, HistoryArguments, PlanArguments},
    print, report,
};

#[derive(Args, Debug)]
#[command(
    after_help = "The history is replayed up to each cut, connections are ranked by what was known then, and what \
                        really happened within the horizon is compared: help where the history has any, else any act \
                        toward the person. Figures are means over persons, then over the cuts that are reported."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    history: HistoryArguments,
    #[command(flatten)]
    plan: PlanArguments,
    /// A policy to judge beside the built-in one; may be given several times
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page to look at, complete in one file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let policies = policies(&arguments.policy)?;
    let (title, history) = arguments.history.read().await?;
    let plan = arguments.plan.plan(&history)?;
    // What ties keep is the same in all policies, so one of them can replay for all.
    let trial = history::cut(&history, plan, &DEFAULT);
    let found = history::at_work("comparing with the published rules", || {
        trial.report(&title, &policies.iter().collect::<Vec<_>>())
    });
    if let Some(file) = &arguments.html {
        fit::write(file, &report::to_html(&found))?;
        print::progress(format_args!("The page is in {}.", file.display()));
    }
    if arguments.json {
        print::line(report::to_json(&found)?);
    } else {
        report::print_table(&found);
    }
    Ok(Finished::Well)
}

/// The policies in these files and the built-in one, last, each with a name of its own.
fn policies(files: &[PathBuf]) -> Result<Vec<Policy>, Failure> {
    let mut policies: Vec<Policy> = Vec::new();
    for file in files.iter().map(|file| Some(file.as_path())).chain([None]) {
        let mut policy = fit::read_policy(file)?;
        let others = policies.iter().filter(|other| other.version == policy.version).count();
        if others > 0 {
            // A report tells models apart by their names.
            let place = file.map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
            policy.version = format!("{}, {place}", policy.version).into();
        }
        policies.push(policy);
    }
    Ok(policies)
}
