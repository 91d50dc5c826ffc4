//! `rapport doctor`: look at a deployment's database, and say what is to be done about it. Nothing is changed.

mod checks;

use clap::Args;
use serde_json::{Value, json};

use crate::service::Clock;

use super::{Failure, Finished, database, print};

use checks::{Check, Outcome};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: database::DatabaseArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let opened = arguments.database.open().await?;
    let clock = Clock::system();
    let checks = match opened.store.condition(|| clock.now()).await {
        Ok(condition) => {
            let schema = opened.store.check_schema().await;
            [checks::reached(), checks::schema(&schema)].into_iter().chain(checks::of(&condition)).collect()
        }
        Err(error) => vec![checks::unreached(&error.with_causes())],
    };
    opened.close().await;
    report(&checks, arguments.json);
    let is_well = checks.iter().all(|check| matches!(check.outcome, Outcome::Fine));
    Ok(if is_well { Finished::Well } else { Finished::WithFindings })
}

fn report(checks: &[Check], as_json: bool) {
    let findings = checks.iter().filter(|check| !matches!(check.outcome, Outcome::Fine)).count();
    if as_json {
        print::json(&json!({ "checks": checks.iter().map(to_json).collect::<Vec<_>>(), "findings": findings }));
        return;
    }
    let row = |check: &Check| {
        let (word, advice) = match &check.outcome {
            Outcome::Fine => ("fine", ""),
            Outcome::Finding(advice) => ("LOOK", advice.as_str()),
        };
        vec![word.to_owned(), check.name.to_owned(), check.found.clone(), advice.to_owned()]
    };
    print::table(&["", "what", "found", "to do"], 0..0, checks.iter().map(row).collect());
    print::line(match findings {
        0 => "All is well.".to_owned(),
        1 => "1 finding.".to_owned(),
        _ => format!("{findings} findings."),
    });
}

fn to_json(check: &Check) -> Value {
    match &check.outcome {
        Outcome::Fine => json!({ "name": check.name, "found": check.found, "fine": true }),
        Outcome::Finding(advice) => {
            json!({ "name": check.name, "found": check.found, "fine": false, "advice": advice })
        }
    }
}
