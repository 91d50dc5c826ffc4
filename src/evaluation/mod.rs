//! How good a ranking of people by willingness is: metrics over rankings and probabilities, the rules that others have
//! published to compare with, and the report that a backtest ends in. Pure: histories and outcomes are arguments; reading
//! histories, choosing cuts and printing happen elsewhere.

mod backtest;
pub mod baselines;
mod fit;
mod history;
pub mod logistic;
pub mod metrics;
mod minimize;
mod real_graph;
pub mod report;

use backtest::coverage;
pub use backtest::{Plan, Trial};
pub use fit::{FitSet, MIN_EVENTS, MIN_PERSONS, SHRINKAGE, TooLittleData, fit};
pub use history::{Candidate, Event, History, MIN_CONNECTIONS, Person, Snapshot};
pub use real_graph::{REAL_GRAPH_FEATURES, real_graph_features};

/// A count as a number to calculate with; exact up to 2³² − 1, which is also where it ends.
pub(crate) fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The mean; `None` of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / number(count))
}
