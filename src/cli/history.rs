//! Where commands that judge policies get their history from: a file, or a tenant's ledger in the database.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    domain::TenantId,
    evaluation::{History, Plan},
};

use super::{
    Failure,
    database::DatabaseArguments,
    import::{self, ReadingArguments},
    print,
};

#[derive(Args, Debug)]
pub(super) struct HistoryArguments {
    /// A file of interactions as `rapport import` takes it, gzip or not; - reads standard input. Lines that could not be
    /// recorded are passed over and counted
    #[arg(conflicts_with = "tenant")]
    file: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArguments,
    /// Take the ledger of this tenant in the database instead of a file
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PlanArguments {
    /// Within how many days something has to happen after a cut
    #[arg(long, value_name = "DAYS", default_value_t = 30.0, value_parser = parse_days)]
    horizon: f64,
    /// At how many times the history is cut, between the 30th and the 97th percentile of its interactions
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    cuts: u8,
    /// How many of the cuts, from the earliest on, may be fitted on; the others are reported
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    fit_cuts: u8,
}

fn parse_days(text: &str) -> Result<f64, &'static str> {
    let days = text.trim_end_matches('d').parse().ok().filter(|days| (1.0..=3650.0).contains(days));
    days.ok_or("must be a number of days from 1 to 3650")
}

impl HistoryArguments {
    /// What the history is called, and the history.
    pub(super) async fn read(self) -> Result<(String, History), Failure> {
        if let Some(file) = self.file {
            let (name, reading) = (file.display().to_string(), self.reading);
            let (history, passed_over) =
                tokio::task::spawn_blocking(move || import::read_history(&file, reading)).await??;
            if passed_over > 0 {
                print::progress(format_args!("{passed_over} lines of {name} passed over"));
            }
            return Ok((name, history));
        }
        let tenant = self.tenant.ok_or("a history is needed: a file, or --tenant with a database")?;
        let opened = self.database.open().await?;
        let mut history = History::default();
        let id = TenantId::parse_metadata(&tenant).map_err(|error| format!("--tenant {error}"))?;
        let read = opened.store.each_act(&id, |key, act| history.add(&key.actor, &key.recipient, act)).await;
        opened.close().await;
        read?;
        Ok((format!("tenant {tenant}"), history.in_order()))
    }
}

impl PlanArguments {
    /// How to cut this history; fails when it is too short for that.
    pub(super) fn plan(&self, history: &History) -> Result<Plan, Failure> {
        if self.fit_cuts >= self.cuts {
            return Err("--fit-cuts must be less than --cuts: some have to be reported".into());
        }
        let (cuts, fit_cuts) = (self.cuts.into(), self.fit_cuts.into());
        let found = history.cuts(cuts, self.horizon).len();
        if found < cuts {
            let days = self.horizon;
            return Err(
                format!("the history is too short to be cut {cuts} times with {days} days behind each cut").into()
            );
        }
        Ok(Plan { cuts, fit_cuts, horizon_days: self.horizon, event: history.event() })
    }
}

/// A bar for work in a known number of steps.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(what: &'static str, steps: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(steps).unwrap_or_default()).with_message(what);
        let style = ProgressStyle::with_template("{msg} {bar:20} {pos}/{len}, {eta} left");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    pub(super) fn show(&self, done: usize) {
        self.0.set_position(u64::try_from(done).unwrap_or_default());
    }

    pub(super) fn finish(self) {
        self.0.finish_and_clear();
    }
}
