//! Where commands that judge policies get their history from, a file or a tenant's ledger in the database; how they cut
//! it, and how they show that they are at it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    domain::TenantId,
    evaluation::{History, Plan, Trial},
    scoring::Policy,
};

use super::{
    Failure,
    database::DatabaseArguments,
    import::{self, ReadingArguments},
    print,
};

/// How often a plain line tells how work goes.
const PLAIN: Duration = Duration::from_secs(2);
/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(100);

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
            return read_file(file, self.reading).await;
        }
        let tenant = self.tenant.ok_or("a history is needed: a file, or --tenant with a database")?;
        let id = TenantId::parse_metadata(&tenant).map_err(|error| format!("--tenant {error}"))?;
        let opened = self.database.open().await?;
        let mut history = History::default();
        let progress = Progress::waiting(format!("reading the ledger of {tenant}"));
        let read = opened.store.each_act(&id, |key, act| history.add(&key.actor, &key.recipient, act)).await;
        progress.finish();
        opened.close().await;
        read?;
        filled(format!("tenant {tenant}"), history.in_order())
    }
}

/// What the history in a file is called, and the history. Lines that could not be recorded are counted aloud.
pub(super) async fn read_file(file: PathBuf, reading: ReadingArguments) -> Result<(String, History), Failure> {
    let name = file.display().to_string();
    let progress = Progress::waiting(format!("reading {name}"));
    let read = tokio::task::spawn_blocking(move || import::read_history(&file, reading)).await;
    progress.finish();
    let (history, passed_over) = read??;
    if passed_over > 0 {
        print::progress(format_args!("{passed_over} lines of {name} passed over"));
    }
    filled(name, history)
}

/// What a history is called, and the history, unless there is nothing in it.
fn filled(name: String, history: History) -> Result<(String, History), Failure> {
    if history.is_empty() {
        return Err(format!("{name} holds no interactions").into());
    }
    Ok((name, history))
}

/// Cuts a history, and shows how that goes.
pub(super) fn cut<'a>(history: &'a History, plan: Plan, policy: &Policy) -> Trial<'a> {
    let mut progress = Progress::start("cutting the history", plan.cuts);
    let trial = Trial::new(history, plan, policy, |done| progress.show(done));
    progress.finish();
    trial
}

impl PlanArguments {
    /// How to cut this history; fails when it is too short for that.
    pub(super) fn plan(&self, history: &History) -> Result<Plan, Failure> {
        self.plan_within(history, self.horizon)
    }

    /// Likewise, for a horizon of the history's own.
    pub(super) fn plan_within(&self, history: &History, horizon_days: f64) -> Result<Plan, Failure> {
        if self.fit_cuts >= self.cuts {
            return Err("--fit-cuts must be less than --cuts: some have to be reported".into());
        }
        let (cuts, fit_cuts) = (self.cuts.into(), self.fit_cuts.into());
        if history.cuts(cuts, horizon_days).len() < cuts {
            return Err(too_short(history, cuts, horizon_days).into());
        }
        Ok(Plan { cuts, fit_cuts, horizon_days, event: history.event() })
    }
}

/// That a history cannot be cut so often, so far before its end.
fn too_short(history: &History, cuts: usize, horizon_days: f64) -> String {
    let (_, acts, _) = history.len();
    let acts = if acts == 1 { "1 act".to_owned() } else { format!("{acts} acts") };
    let days = history.span().map_or(0.0, |(first, last)| last.day().days_since(first.day()));
    format!(
        "the history, {acts} over {days} days, is too short to be cut {cuts} times with {horizon_days} days behind each \
         cut; --cuts and --horizon ask for less"
    )
}

/// How work goes: a bar or a spinner on a terminal, plain lines elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    what: String,
    said: Instant,
}

impl Progress {
    /// For work in a known number of steps. Elsewhere than on a terminal there is a line every few seconds.
    pub(super) fn start(what: &str, steps: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(steps).unwrap_or_default());
        Self::with(bar, what.to_owned(), "{msg} {bar:20} {pos}/{len}, {eta} left")
    }

    /// For work that tells nothing until it is done. Elsewhere than on a terminal there is one line.
    pub(super) fn waiting(what: String) -> Self {
        let progress = Self::with(ProgressBar::new_spinner(), what, "{spinner} {msg}, {elapsed}");
        if progress.bar.is_hidden() {
            print::progress(&progress.what);
        } else {
            progress.bar.enable_steady_tick(TURN);
        }
        progress
    }

    fn with(bar: ProgressBar, what: String, template: &str) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: bar.with_style(style).with_message(what.clone()), what, said: Instant::now() }
    }

    /// Shows how many steps are done.
    pub(super) fn show(&mut self, done: usize) {
        self.bar.set_position(u64::try_from(done).unwrap_or_default());
        if self.bar.is_hidden() && self.said.elapsed() >= PLAIN {
            print::progress(format_args!("{}: {done} of {}", self.what, self.bar.length().unwrap_or_default()));
            self.said = Instant::now();
        }
    }

    /// Leaves nothing on the terminal.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Does work that tells nothing until it is done, and shows that it is being done.
pub(super) fn at_work<T>(what: impl Into<String>, work: impl FnOnce() -> T) -> T {
    let progress = Progress::waiting(what.into());
    let done = work();
    progress.finish();
    done
}
