//! How an import goes: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::Totals;
use crate::cli::print;

/// How often a plain line is printed.
const PLAIN: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    bar: ProgressBar,
    consumed: Arc<AtomicU64>,
    /// How many lines an earlier attempt had dealt with.
    earlier: u64,
    started: Instant,
    said: Instant,
}

impl Progress {
    /// For an input of that many bytes, if known, of which `consumed` tells how many were read; `totals` are those of earlier
    /// attempts.
    pub(super) fn start((size, consumed): (Option<u64>, Arc<AtomicU64>), totals: &Totals) -> Self {
        let bar = match size {
            Some(size) => ProgressBar::new(size).with_style(style("{bar:20} {percent:>3}%, {eta} left, {msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        let now = Instant::now();
        Self { bar, consumed, earlier: totals.lines(), started: now, said: now }
    }

    /// Shows how it goes.
    pub(super) fn show(&mut self, totals: &Totals) {
        let rate = self.rate(totals);
        if self.bar.is_hidden() {
            if self.said.elapsed() >= PLAIN {
                print::progress(format_args!("{totals}; {rate} a second"));
                self.said = Instant::now();
            }
        } else {
            self.bar.set_position(self.consumed.load(Ordering::Relaxed));
            // Short, because a narrow terminal cuts it off.
            self.bar.set_message(format!("{rate} a second, {} lines, {} rejected", totals.lines(), totals.rejected));
        }
    }

    /// Says something that stays on the terminal.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        self.bar.suspend(|| print::progress(line));
    }

    /// Clears the bar, and tells how long it took.
    pub(super) fn finish(self, totals: &Totals) -> (Duration, u64) {
        let rate = self.rate(totals);
        self.bar.finish_and_clear();
        (self.started.elapsed(), rate)
    }

    fn rate(&self, totals: &Totals) -> u64 {
        let millis = self.started.elapsed().as_millis().max(1);
        u64::try_from(u128::from(totals.lines() - self.earlier) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
