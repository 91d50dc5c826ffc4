//! `rapport backtest`: how a policy and the published rules did on a history.

use std::path::PathBuf;

use clap::Args;

use crate::evaluation::Trial;

use super::{
    Failure, Finished, fit,
    history::{HistoryArguments, PlanArguments, Progress},
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
    let mut policies =
        arguments.policy.iter().map(|file| fit::read_policy(Some(file))).collect::<Result<Vec<_>, _>>()?;
    policies.push(fit::read_policy(None)?);
    let (title, history) = arguments.history.read().await?;
    let plan = arguments.plan.plan(&history)?;
    let progress = Progress::start("cutting the history", plan.cuts);
    let trial = Trial::new(&history, plan, &policies[0], |done| progress.show(done));
    progress.finish();
    let found = trial.report(&title, &policies.iter().collect::<Vec<_>>());
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
