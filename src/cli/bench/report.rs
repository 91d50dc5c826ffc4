//! What was measured, as a table or as JSON. Of several runs, each number is the median.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::print;

use super::run::Measured;

/// The quantiles that are told.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// All runs of one scenario, by what was under load.
#[derive(Clone, Debug)]
pub(super) struct Played {
    name: String,
    rate: Option<f64>,
    runs: BTreeMap<&'static str, Vec<Measured>>,
}

impl Played {
    pub(super) fn new(name: String, rate: Option<f64>) -> Self {
        Self { name, rate, runs: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, target: &'static str, measured: Measured) {
        self.runs.entry(target).or_default().push(measured);
    }

    /// What Rapport did in a second.
    pub(super) fn rate(&self) -> f64 {
        self.runs.values().next().map_or(0.0, |runs| median(runs, Measured::rate))
    }

    pub(super) fn has_errors(&self) -> bool {
        self.runs.values().flatten().any(|measured| !measured.errors.is_empty())
    }

    /// How many times as much Rapport does as what it is compared with.
    fn ratio(&self) -> Option<f64> {
        let mut rates = self.runs.values().map(|runs| median(runs, Measured::rate));
        let (own, other) = (rates.next()?, rates.next()?);
        Some(own / other)
    }
}

fn median(runs: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(f64::NAN);
    if values.len().is_multiple_of(2) {
        values.get(middle.wrapping_sub(1)).map_or(upper, |lower| (lower + upper) / 2.0)
    } else {
        upper
    }
}

fn errors(runs: &[Measured]) -> BTreeMap<&str, u64> {
    let mut all = BTreeMap::new();
    for (wrong, count) in runs.iter().flat_map(|measured| &measured.errors) {
        *all.entry(wrong.as_str()).or_default() += count;
    }
    all
}

pub(super) fn table(played: &[Played]) {
    let heading: Vec<&str> = ["work", "by", "a second"]
        .into_iter()
        .chain(QUANTILES.map(|(name, _)| name))
        .chain(["ratio", "errors"])
        .collect();
    let rows = played.iter().flat_map(|played| {
        played.runs.iter().enumerate().map(|(place, (target, runs))| {
            let quantiles = QUANTILES.map(|(_, quantile)| median(runs, |measured| measured.milliseconds(quantile)));
            let ratio = played.ratio().filter(|_| place == 0).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let errors = errors(runs).into_iter().map(|(wrong, count)| format!("{count} {wrong}"));
            [if place == 0 { played.name.clone() } else { String::new() }, (*target).to_owned()]
                .into_iter()
                .chain([format!("{:.0}", median(runs, Measured::rate))])
                .chain(quantiles.map(|took| if took.is_nan() { "–".to_owned() } else { format!("{took:.2}") }))
                .chain([ratio, errors.collect::<Vec<_>>().join(", ")])
                .collect()
        })
    });
    print::table(&heading, 2..heading.len() - 1, rows.collect());
}

pub(super) fn json(played: &[Played]) {
    let of_runs = |target: &str, runs: &[Measured]| {
        let milliseconds: BTreeMap<&str, f64> = QUANTILES
            .iter()
            .map(|(name, quantile)| (*name, median(runs, |measured| measured.milliseconds(*quantile))))
            .collect();
        json!({
            "by": target,
            "per_second": median(runs, Measured::rate),
            "runs_per_second": runs.iter().map(Measured::rate).collect::<Vec<_>>(),
            "milliseconds": milliseconds,
            "done": runs.iter().map(|measured| measured.latencies.len()).sum::<u64>(),
            "errors": errors(runs),
        })
    };
    let all: Vec<Value> = played
        .iter()
        .map(|played| {
            let measured: Vec<Value> = played.runs.iter().map(|(target, runs)| of_runs(target, runs)).collect();
            json!({ "work": played.name, "rate": played.rate, "measured": measured, "ratio": played.ratio() })
        })
        .collect();
    print::json(&Value::Array(all));
}
