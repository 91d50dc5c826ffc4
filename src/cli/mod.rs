//! The command line: one file for each command. What a command prints for its user goes to standard output; logs and
//! progress go to standard error.
#![expect(clippy::doc_markdown, reason = "comments on arguments are help texts, not Markdown")]
#![allow(rustdoc::bare_urls, reason = "likewise")]

mod backtest;
mod bench;
mod called;
mod client;
mod database;
mod descriptors;
mod doctor;
mod fit;
mod history;
mod import;
mod keys;
mod policy;
mod print;
mod rank;
mod reach;
mod rebuild;
mod recipe;
mod report;
mod sample;
mod serve;
mod settings;
mod show;
mod switches;
mod time;

use std::{pin::Pin, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    config::{LogConfig, process_arguments, process_environment},
    telemetry::{self, Export},
};

/// Why a command failed; its sentence is for the user.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finished {
    /// All is well.
    Well,
    /// It did what it could, and found something that the user should look at.
    WithFindings,
}

/// Keeps track of real relationships: who would go out of their way for whom.
#[derive(Parser)]
#[command(
    name = "rapport",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but something was found (rejected lines, \
                  differences, settings).\n\nEnvironment: RAPPORT_LOG (which log lines, such as info or rapport=debug; default info), \
                  RAPPORT_LOG_FORMAT (pretty or json; default pretty)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the gRPC API, with a private PostgreSQL unless DATABASE_URL names a database
    Serve(serve::Arguments),
    /// Bring the schema of the database in DATABASE_URL to the version of this program
    Migrate(database::MigrateArguments),
    /// Record the interactions in a file through a running server
    Import(import::Arguments),
    /// Rank a person's connections by who can be counted on
    Rank(rank::Arguments),
    /// Show one connection and why it scores as it does
    Show(show::Arguments),
    /// Judge a policy on a history, next to the published rules: what did they foretell of what really happened?
    Backtest(backtest::Arguments),
    /// Fit a policy to a history
    Fit(fit::Arguments),
    /// Publish scoring policies, look at them, and go back to one that was in use before
    Policy(policy::Arguments),
    /// Put a running server under load, and measure it next to the same work in SQL written by hand
    Bench(bench::Arguments),
    /// Check a deployment's settings, their files and its database, and say what to do
    Doctor(doctor::Arguments),
    /// Make keys for callers
    Keys(keys::Arguments),
    /// Write the descriptors of the API, for programs that read them from a file, such as Envoy
    Descriptors(descriptors::Arguments),
    /// Derive the ties from the ledger again, while serving goes on, and report differences
    Rebuild(rebuild::Arguments),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse_from(switches::spelled(&Cli::command(), process_arguments()));
    match start(cli.command) {
        Ok(_) if !print::all_written() => ExitCode::FAILURE,
        Ok(Finished::Well) => ExitCode::SUCCESS,
        Ok(Finished::WithFindings) => ExitCode::from(3),
        Err(failure) => {
            print::failure(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// A command that is ready to run, and what it tells its operators.
struct Ready {
    log: LogConfig,
    export: Export,
    work: Pin<Box<dyn Future<Output = Result<Finished, Failure>>>>,
}

impl Ready {
    /// A command that is a server's caller, or works beside it; only a server is worth tracing.
    fn plain(work: impl Future<Output = Result<Finished, Failure>> + 'static) -> Result<Self, Failure> {
        Ok(Self { log: LogConfig::read(&process_environment)?, export: Export::default(), work: Box::pin(work) })
    }
}

fn ready(command: Command) -> Result<Ready, Failure> {
    match command {
        Command::Serve(arguments) => {
            let (config, sample) = arguments.config()?;
            let (log, export) = (config.log.clone(), config.export.clone());
            Ok(Ready { log, export, work: Box::pin(serve::run(config, sample)) })
        }
        Command::Migrate(arguments) => Ready::plain(database::migrate(arguments)),
        Command::Import(arguments) => Ready::plain(import::run(arguments)),
        Command::Rank(arguments) => Ready::plain(rank::run(arguments)),
        Command::Show(arguments) => Ready::plain(show::run(arguments)),
        Command::Backtest(arguments) => Ready::plain(backtest::run(arguments)),
        Command::Fit(arguments) => Ready::plain(fit::run(arguments)),
        Command::Policy(arguments) => Ready::plain(policy::run(arguments)),
        Command::Bench(arguments) => Ready::plain(bench::run(arguments)),
        Command::Doctor(arguments) => {
            let config = arguments.config();
            let log = config.as_ref().map_or_else(|_| LogConfig::default(), |config| config.log.clone());
            Ok(Ready { log, export: Export::default(), work: Box::pin(doctor::run(arguments, config)) })
        }
        Command::Keys(arguments) => Ready::plain(async move { keys::run(&arguments) }),
        Command::Descriptors(arguments) => Ready::plain(async move { descriptors::run(&arguments) }),
        Command::Rebuild(arguments) => Ready::plain(rebuild::run(arguments)),
        Command::Completions { shell } => Ready::plain(async move {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rapport", &mut script);
            print::line(String::from_utf8_lossy(&script).trim_end());
            Ok(Finished::Well)
        }),
    }
}

fn start(command: Command) -> Result<Finished, Failure> {
    let Ready { log, export, work } = ready(command)?;
    let filter = log.filter.parse()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let within = runtime.enter();
    // Dropped before the runtime however the command ends, also by a panic: it carries the last spans.
    let telemetry = telemetry::Telemetry::start(filter, log.format, &export)?;
    drop(within);
    let finished = runtime.block_on(work);
    drop(telemetry);
    // Blocking reads of a terminal may never end; they do not hold the process back.
    runtime.shutdown_background();
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
