//! Fitting a policy: weights by which those who acted rank above those who did not, and the numbers that make the scores
//! probabilities of it.
//!
//! Two losses are added up. That of the **ranking** is, for each person, the one of a softmax over their connections,
//! `−ln softmax(ln λ)` averaged over those who acted (ListNet's top-one loss: Cao et al., ICML 2007), then averaged over
//! persons, cuts and histories: in a Poisson world, the likelihood of who acts next. That of the **probabilities** is the
//! surprise `−ln P` of what happened after the latest cut, averaged over connections, with `P = 1 − exp(−λ)`: how often people
//! act changes over the years, whom they act toward does not. Most connections surprise nobody, so it counts
//! [`SURPRISE_WEIGHT`]-fold. Weights are at least 0, and are drawn toward those of the policy that the fit starts
//! from with a strength of [`SHRINKAGE`] persons, so that little data does no harm.
//!
//! **Intervals.** At last the trials that the prior is worth: as many as leave at least four persons of five with a share of
//! connections that acted between the means of their lower and upper ends.

use std::ops::Range;

use crate::scoring::{HELP, Policy, TERMS};

use super::{Candidate, Snapshot, coverage, minimize::minimize, number};

/// How many persons' worth of evidence it takes to move the weights half of the way.
pub const SHRINKAGE: f64 = 1.0;
/// The least persons, with some who acted and some who did not, that a fit takes.
pub const MIN_PERSONS: usize = 10;
/// The least connections that acted.
pub const MIN_EVENTS: usize = 30;
/// The most persons of one cut that are fitted on: more of them only take longer.
const MOST_PERSONS: usize = 400;
/// How many times over the surprise at what happened counts.
const SURPRISE_WEIGHT: f64 = 30.0;
const BASE_RANGE: (f64, f64) = (-20.0, 10.0);
/// Between which bounds the intensity toward a stranger is looked for.
const PRIOR_RANGE: (f64, f64) = (1e-4, 0.05);
/// The least weight of help by itself: whatever a history holds, help says more than attention.
const LEAST_HELP_WEIGHT: f64 = 0.1;
/// The largest weight.
const MAX_WEIGHT: f64 = 5.0;
/// What evidence near nothing is still worth while fitting, so that no single surprise outweighs all else.
const RAMP_FLOOR: f64 = 0.02;
const STEPS: usize = 500;
/// The trials of the prior that are tried, most first: few, so that a promise or an answer to an ask still weighs.
const TRIALS: [f64; 3] = [3.0, 2.0, 1.0];
/// What part of persons the interval is to hold for.
const COVERAGE: f64 = 0.8;

/// What is fitted on: one history at its cuts.
#[derive(Clone, Copy, Debug)]
pub struct FitSet<'a> {
    /// What is known at each cut, and what happened.
    pub snapshots: &'a [Snapshot],
    /// The days within which ranking looks for events.
    pub horizon_days: f64,
    /// The weight of this history among others.
    pub weight: f64,
}

/// Why a fit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is too little data to fit on: {persons} persons with some connections that acted and some that did not, and \
     {events} connections that acted; {MIN_PERSONS} persons and {MIN_EVENTS} such connections are needed, so {} and {} are \
     missing",
    MIN_PERSONS.saturating_sub(*persons),
    MIN_EVENTS.saturating_sub(*events)
)]
pub struct TooLittleData {
    /// Persons with at least one connection that acted and one that did not.
    pub persons: usize,
    /// Connections that acted.
    pub events: usize,
}

/// What is known of the connections of one cut, and whether they acted, laid out for many passes.
#[derive(Default)]
struct Table {
    terms: Vec<[f64; TERMS]>,
    ramps: Vec<f64>,
    /// Which acted within the days that rankings look ahead.
    acted: Vec<bool>,
    /// Which acted within the days that probabilities are of.
    happened: Vec<bool>,
    /// Where the connections are of each person with some that acted and some that did not.
    choices: Vec<Range<usize>>,
}

/// The policy that fits these histories best, drawn toward `start`. Its version and thresholds are those of `start`.
pub fn fit(sets: &[FitSet<'_>], start: &Policy, shrink: f64) -> Result<Policy, TooLittleData> {
    let tables: Vec<Vec<Table>> = sets.iter().map(|set| set.tables(start.horizon_days)).collect();
    let choices =
        || tables.iter().flatten().flat_map(|table| table.choices.iter().map(|range| &table.acted[range.clone()]));
    let persons = choices().count();
    let events = choices().flatten().filter(|acted| **acted).count();
    if persons < MIN_PERSONS || events < MIN_EVENTS {
        return Err(TooLittleData { persons, events });
    }
    let mut policy = learned(sets, &tables, start, shrink / number(persons));
    policy.prior_trials = trials(sets, &policy);
    Ok(policy)
}

/// The persons of a cut, or as many of them as are fitted on, spread evenly.
fn sampled(cut: &Snapshot) -> impl Iterator<Item = &[Candidate]> {
    cut.persons().step_by(cut.persons().count().div_ceil(MOST_PERSONS).max(1))
}

impl FitSet<'_> {
    fn tables(&self, chance_days: f64) -> Vec<Table> {
        self.snapshots.iter().map(|cut| Table::new(cut, self.horizon_days, chance_days)).collect()
    }
}

impl Table {
    fn new(cut: &Snapshot, ranking_days: f64, chance_days: f64) -> Self {
        let mut table = Self::default();
        for candidates in sampled(cut) {
            let begin = table.acted.len();
            for candidate in candidates {
                table.terms.push(candidate.steps.terms.values);
                table.ramps.push(candidate.steps.terms.ramp);
                table.acted.push(candidate.happened(ranking_days));
                table.happened.push(candidate.happened(chance_days));
            }
            let own = &table.acted[begin..];
            if own.contains(&true) && own.contains(&false) {
                table.choices.push(begin..table.acted.len());
            }
        }
        table
    }
}

/// Where the parameters stand: the weights, then the base and the logarithm of the prior intensity.
const BASE: usize = TERMS;
const PRIOR: usize = TERMS + 1;
const PARAMETERS: usize = TERMS + 2;

/// The policy with the weights, the base and the prior for which the loss is least.
fn learned(sets: &[FitSet<'_>], tables: &[Vec<Table>], start: &Policy, shrink: f64) -> Policy {
    let total: f64 = sets.iter().map(|set| set.weight).sum();
    let loss = |at: &[f64]| {
        let mut sum = Sum { value: 0.0, slopes: vec![0.0; PARAMETERS] };
        for (set, cuts) in sets.iter().zip(tables) {
            add_rankings(cuts, set.weight / total, at, &mut sum);
            add_surprises(cuts, SURPRISE_WEIGHT * set.weight / total, at, &mut sum);
        }
        for ((slope, weight), from) in sum.slopes.iter_mut().zip(at).zip(&start.weights) {
            sum.value += shrink * (weight - from).powi(2);
            *slope += 2.0 * shrink * (weight - from);
        }
        (sum.value, sum.slopes)
    };
    let mut from = start.weights.to_vec();
    from.extend([start.base, (-(1.0 - start.prior).ln()).ln()]);
    let mut bounds = vec![(0.0, MAX_WEIGHT); TERMS];
    bounds[HELP].0 = LEAST_HELP_WEIGHT;
    bounds.extend([BASE_RANGE, (PRIOR_RANGE.0.ln(), PRIOR_RANGE.1.ln())]);
    let found = minimize(loss, &from, &bounds, STEPS);
    let mut weights = start.weights;
    weights.copy_from_slice(&found[..TERMS]);
    Policy { weights, base: found[BASE], prior: -(-found[PRIOR].exp()).exp_m1(), ..start.clone() }
}

/// A loss and its slopes.
struct Sum {
    value: f64,
    slopes: Vec<f64>,
}

impl Sum {
    /// Adds slopes of the weights: `by` for each unit of a term.
    fn add_terms(&mut self, terms: &[f64], by: f64) {
        self.slopes.iter_mut().zip(terms).for_each(|(slope, term)| *slope += by * term);
    }
}

fn add_rankings(cuts: &[Table], weight: f64, at: &[f64], sum: &mut Sum) {
    let used = || cuts.iter().filter(|table| !table.choices.is_empty());
    for table in used() {
        let part = weight / number(used().count()) / number(table.choices.len());
        for range in &table.choices {
            table.add_choice(range.clone(), part, at, sum);
        }
    }
}

impl Table {
    fn add_choice(&self, range: Range<usize>, part: f64, at: &[f64], sum: &mut Sum) {
        // The logarithm of what is above the prior, but for the base.
        let score = |place: usize| (self.ramps[place] + RAMP_FLOOR).ln() + weighed(&self.terms[place], at);
        let scores: Vec<f64> = range.clone().map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = exponentials.iter().sum();
        let each = 1.0 / number(self.acted[range.clone()].iter().filter(|acted| **acted).count());
        for (place, (score, exponential)) in range.zip(scores.into_iter().zip(exponentials)) {
            let wanted = if self.acted[place] { each } else { 0.0 };
            sum.value -= part * wanted * (score - largest - total.ln());
            sum.add_terms(&self.terms[place], part * (exponential / total - wanted));
        }
    }
}

fn weighed(terms: &[f64; TERMS], at: &[f64]) -> f64 {
    at.iter().zip(terms).map(|(weight, term)| weight * term).sum()
}

/// Of the latest cut alone.
fn add_surprises(cuts: &[Table], weight: f64, at: &[f64], sum: &mut Sum) {
    let cuts = &cuts[cuts.len().saturating_sub(1)..];
    for table in cuts.iter().filter(|table| !table.acted.is_empty()) {
        let part = weight / number(cuts.len()) / number(table.acted.len());
        for place in 0..table.acted.len() {
            table.add_surprise(place, part, at, sum);
        }
    }
}

impl Table {
    fn add_surprise(&self, place: usize, part: f64, at: &[f64], sum: &mut Sum) {
        let terms = &self.terms[place];
        let gained = self.ramps[place] * (at[BASE] + weighed(terms, at)).min(20.0).exp();
        let stranger = at[PRIOR].exp();
        let intensity = (stranger + gained).min(25.0);
        // With P = 1 − exp(−λ): the slope of −ln P is −exp(−λ)/P, that of −ln(1 − P) is 1.
        let likely = -(-intensity).exp_m1();
        let (value, slope) =
            if self.happened[place] { (-likely.ln(), -(1.0 - likely) / likely) } else { (intensity, 1.0) };
        sum.value += part * value;
        sum.add_terms(terms, part * slope * gained);
        sum.slopes[BASE] += part * slope * gained;
        sum.slopes[PRIOR] += part * slope * stranger;
    }
}

/// The most trials that the prior can be worth so that intervals hold what they claim.
fn trials(sets: &[FitSet<'_>], policy: &Policy) -> f64 {
    let total: f64 = sets.iter().map(|set| set.weight).sum();
    let covered = |prior_trials: f64| {
        let tried = Policy { prior_trials, ..policy.clone() };
        let of_set = |set: &FitSet<'_>| {
            coverage(set.snapshots, policy.horizon_days, &tried).map(|covered| set.weight / total * covered)
        };
        sets.iter().filter_map(of_set).sum::<f64>() >= COVERAGE
    };
    let least = TRIALS.into_iter().last().unwrap_or(1.0);
    TRIALS.into_iter().find(|trials| covered(*trials)).unwrap_or(least)
}
