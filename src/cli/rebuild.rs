//! `rapport rebuild`: derive the ties from the ledger again, and report differences.

use std::time::{Duration, Instant};

use clap::Args;

use crate::store::Progress;

use super::{Failure, Finished, database, print};

/// How often progress is reported.
const REPORT: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: database::DatabaseArguments,
    /// Only compare; put nothing right
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let opened = arguments.database.open().await?;
    let mut reported = Instant::now();
    let on_step = |progress: &Progress| {
        if reported.elapsed() >= REPORT {
            print::progress(format_args!("{} ties and {} rhythms so far", progress.ties, progress.rhythms));
            reported = Instant::now();
        }
    };
    let rebuilt = match opened.store.check_schema().await {
        Ok(_) => opened.store.rebuild(!arguments.check, on_step).await,
        Err(error) => Err(error),
    };
    opened.close().await;
    Ok(report(&rebuilt?, arguments.check))
}

fn report(progress: &Progress, check: bool) -> Finished {
    print::line(format_args!("{} ties and {} rhythms derived from the ledger.", progress.ties, progress.rhythms));
    if progress.differences.is_empty() {
        print::line("No difference.");
        return Finished::Well;
    }
    for ((table, difference), count) in &progress.differences {
        let (table, difference) = (format!("{table:?}").to_lowercase(), format!("{difference:?}").to_lowercase());
        print::line(format_args!("{count} in table {table}: {difference}"));
    }
    print::line(if check { "Nothing was changed." } else { "All put right." });
    Finished::WithFindings
}
