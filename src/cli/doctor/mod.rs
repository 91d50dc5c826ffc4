//! `rapport doctor`: look at a deployment's settings, the files they name, its database and its replica, and say what is to be
//! done about them. Nothing is changed.

mod checks;
mod files;
mod replica;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    config::{Config, ConfigError, process_environment, read_databases},
    service::Clock,
};

use super::{
    Failure, Finished, called, database, print,
    settings::{OfServer, SettingArguments},
};

use checks::{Check, Outcome};

#[derive(Args, Debug)]
#[command(
    after_help = "It takes the settings of `rapport serve`: flags, environment and settings file. DATABASE_URL names the \
                  database to look at; without it that is the private one, running or not."
)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingArguments<OfServer>,
}

impl Arguments {
    /// What a server would be told, or why it would not start.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        Config::read(self.settings.flags.clone(), &process_environment)
    }
}

pub(super) async fn run(arguments: Arguments, config: Result<Config, ConfigError>) -> Result<Finished, Failure> {
    let clock = Clock::system();
    let mut checks = files::settings(&config);
    // A bad setting keeps nobody from looking at the database, as long as it is clear which one is meant.
    let target = match config {
        Ok(config) => {
            checks.extend(config.tls.map(|tls| files::tls(tls, clock.now())));
            if let Some(file) = &config.access_file {
                checks.extend(files::access(file).await);
            }
            Some(config.databases)
        }
        Err(_) => read_databases(arguments.settings.flags, &process_environment).ok(),
    };
    if let Some(target) = target {
        checks.extend(database_checks(database::open(target, false).await, &clock).await);
    }
    report(&checks, arguments.json);
    let is_well = !checks.iter().any(Check::is_finding);
    Ok(if is_well { Finished::Well } else { Finished::WithFindings })
}

async fn database_checks(opened: Result<database::Opened, Failure>, clock: &Clock) -> Vec<Check> {
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => return vec![checks::unopened(failure.to_string())],
    };
    if let Err(unreached) = opened.store.reach(database::REACH_LIMIT).await {
        opened.close().await;
        return vec![checks::unreached(&unreached)];
    }
    let mut checks: Vec<Check> = match opened.store.condition(|| clock.now()).await {
        Ok(condition) => {
            let schema = opened.store.check_schema().await;
            [checks::reached(&opened.store.place()), checks::schema(&schema)]
                .into_iter()
                .chain(checks::of(&condition))
                .collect()
        }
        Err(error) => vec![checks::unlooked(&error)],
    };
    if let Some(replica) = &opened.replica {
        checks.extend(replica::checks(replica, &opened.store).await);
    }
    opened.close().await;
    checks
}

fn report(checks: &[Check], as_json: bool) {
    let findings = checks.iter().filter(|check| check.is_finding()).count();
    if as_json {
        print::json(&json!({ "checks": checks.iter().map(to_json).collect::<Vec<_>>(), "findings": findings }));
        return;
    }
    let row = |check: &Check| {
        let (word, advice) = match &check.outcome {
            Outcome::Fine => ("fine", ""),
            Outcome::Finding(advice) => ("LOOK", advice.as_str()),
        };
        vec![word.to_owned(), check.name.to_owned(), called::hinted(&check.found), called::hinted(advice)]
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
