//! Fitting a policy: weights by which those who acted rank above those who did not, and the numbers that make the scores
//! probabilities of it.
//!
//! Two losses are added up. That of the **ranking** is, for each person, the one of a softmax over their connections,
//! `−ln softmax(ln λ)` averaged over those who acted (ListNet's top-one loss: Cao et al., ICML 2007), then averaged over
//! persons, cuts and histories: in a Poisson world, the likelihood of who acts next. That of the **probabilities** is the
//! surprise `−ln P` of what happened, averaged over connections, with `P = 1 − exp(−λ)`; most connections surprise nobody, so
//! it counts [`SURPRISE_WEIGHT`]-fold; and since how much people do changes with time, a fit for what comes next has the
//! surprise of each cut count [`LATER_CUTS`] times that of the cut before it. Weights are at least 0, and are drawn toward
//! those of the policy that the fit starts from with a strength of [`SHRINKAGE`] persons, so that little data does no harm.
//!
//! **Intervals.** At last the trials that the prior is worth: as many as leave at least four persons of five with a share of
//! connections that acted between the means of their lower and upper ends.

use std::ops::Range;

use crate::scoring::{HELP, Policy, TERMS};

use super::{Candidate, Snapshot, coverage, minimize::minimize, number};

/// How many persons' worth of evidence it takes to move the weights half of the way.
pub const SHRINKAGE: f64 = 1.0;
/// How many times the surprise of the cut before it that of a cut counts, in a fit for what comes next in a history.
const LATER_CUTS: f64 = 16.0;
/// The least persons, with some who acted and some who did not, that a fit takes.
pub const MIN_PERSONS: usize = 10;
/// The least connections that acted.
pub const MIN_EVENTS: usize = 30;
/// The most persons of one cut that are fitted on: more of them only take longer.
const MOST_PERSONS: usize = 400;
/// How many times over the surprise at what happened counts.
const SURPRISE_WEIGHT: f64 = 10.0;
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
    /// The weight of its probabilities among those of others: 0 when how much its people do says nothing about others.
    pub chance_weight: f64,
    /// How many times the surprise of the cut before it that of a cut counts: 1 when all cuts are alike, more when the fit is
    /// for what comes next.
    pub later_cuts: f64,
}

impl<'a> FitSet<'a> {
    /// One history by itself, fitted on for what comes next in it.
    pub fn alone(snapshots: &'a [Snapshot], horizon_days: f64) -> Self {
        Self { snapshots, horizon_days, weight: 1.0, chance_weight: 1.0, later_cuts: LATER_CUTS }
    }
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

/// One history as fitted on: its cuts, earliest first.
struct Rows {
    cuts: Vec<CutRows>,
    weight: f64,
    chance_weight: f64,
    later_cuts: f64,
}

/// The connections of those who are fitted on at one cut, side by side: what every step of the fit goes over.
#[derive(Default)]
struct CutRows {
    rows: Vec<Row>,
    /// Where the connections are of persons of whose connections some acted and some did not.
    persons: Vec<Range<usize>>,
}

/// One connection.
struct Row {
    terms: [f64; TERMS],
    ramp: f64,
    /// What the ramp is worth in a ranking, as a logarithm.
    standing: f64,
    /// Whether it acted within the days that rankings look at.
    acted: bool,
    /// Whether it acted within the horizon of the policy.
    happened: bool,
}

/// The policy that fits these histories best, drawn toward `start`. Its version and thresholds are those of `start`.
pub fn fit(sets: &[FitSet<'_>], start: &Policy, shrink: f64) -> Result<Policy, TooLittleData> {
    let mut rows: Vec<Rows> = sets.iter().map(|set| Rows::new(set, start.horizon_days)).collect();
    let [weights, chance_weights] =
        [|set: &Rows| set.weight, |set: &Rows| set.chance_weight].map(|of| rows.iter().map(of).sum::<f64>());
    for set in &mut rows {
        set.weight /= weights;
        set.chance_weight /= chance_weights.max(f64::MIN_POSITIVE);
    }
    let all = || rows.iter().flat_map(|set| &set.cuts);
    let (persons, events) = (all().map(|cut| cut.persons.len()).sum(), all().map(CutRows::events).sum());
    if persons < MIN_PERSONS || events < MIN_EVENTS {
        return Err(TooLittleData { persons, events });
    }
    let mut policy = learned(&rows, start, shrink / number(persons));
    policy.prior_trials = trials(sets, &policy);
    Ok(policy)
}

/// The persons of a cut, or as many of them as are fitted on, spread evenly.
fn sampled(cut: &Snapshot) -> impl Iterator<Item = &[Candidate]> {
    cut.persons().step_by(cut.persons().count().div_ceil(MOST_PERSONS).max(1))
}

impl Rows {
    fn new(set: &FitSet<'_>, horizon_days: f64) -> Self {
        let cuts = set.snapshots.iter().map(|cut| CutRows::new(cut, set.horizon_days, horizon_days)).collect();
        Self { cuts, weight: set.weight, chance_weight: set.chance_weight, later_cuts: set.later_cuts }
    }

    /// What parts of the history's loss are due to the rankings of each cut and to its surprises.
    fn parts(&self) -> impl Iterator<Item = (&CutRows, f64, f64)> {
        let ranked = self.cuts.iter().filter(|cut| !cut.persons.is_empty()).count();
        let lateness = (0..self.cuts.len()).map(|place| self.later_cuts.powf(number(place)));
        let all: f64 = lateness.clone().sum();
        self.cuts.iter().zip(lateness).map(move |(cut, late)| {
            (cut, self.weight / number(ranked.max(1)), SURPRISE_WEIGHT * self.chance_weight * late / all)
        })
    }
}

impl CutRows {
    fn new(cut: &Snapshot, ranking_days: f64, horizon_days: f64) -> Self {
        let mut cut_rows = Self::default();
        for candidates in sampled(cut) {
            let from = cut_rows.rows.len();
            cut_rows.rows.extend(candidates.iter().map(|one| Row::new(one, ranking_days, horizon_days)));
            let acted = cut_rows.rows[from..].iter().filter(|row| row.acted).count();
            if 0 < acted && acted < candidates.len() {
                cut_rows.persons.push(from..cut_rows.rows.len());
            }
        }
        cut_rows
    }

    /// How many of the connections that are ranked acted.
    fn events(&self) -> usize {
        self.persons.iter().cloned().map(|place| self.rows[place].iter().filter(|row| row.acted).count()).sum()
    }
}

impl Row {
    fn new(candidate: &Candidate, ranking_days: f64, horizon_days: f64) -> Self {
        let terms = &candidate.steps.terms;
        Self {
            terms: terms.values,
            ramp: terms.ramp,
            standing: (terms.ramp + RAMP_FLOOR).ln(),
            acted: candidate.happened(ranking_days),
            happened: candidate.happened(horizon_days),
        }
    }
}

/// Where the parameters stand: the weights, then the base and the logarithm of the prior intensity.
const BASE: usize = TERMS;
const PRIOR: usize = TERMS + 1;
const PARAMETERS: usize = TERMS + 2;

/// The policy with the weights, the base and the prior for which the loss is least.
fn learned(sets: &[Rows], start: &Policy, shrink: f64) -> Policy {
    let loss = |at: &[f64]| {
        let mut sum = Sum { value: 0.0, slopes: vec![0.0; PARAMETERS] };
        for (cut, ranking, surprise) in sets.iter().flat_map(Rows::parts) {
            cut.add_loss(ranking, surprise, at, &mut sum);
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

impl CutRows {
    /// Adds the loss of the rankings, and the surprise at what happened, with these weights.
    fn add_loss(&self, ranking: f64, surprise: f64, at: &[f64], sum: &mut Sum) {
        let weighed: Vec<f64> = self.rows.iter().map(|row| row.weighed(at)).collect();
        // What each row adds to the slopes of the weights for each unit of a term.
        let mut by = vec![0.0; weighed.len()];
        for person in &self.persons {
            let part = ranking / number(self.persons.len());
            sum.value +=
                add_ranking(&self.rows[person.clone()], &weighed[person.clone()], part, &mut by[person.clone()]);
        }
        let part = surprise / number(self.rows.len().max(1));
        for ((row, weighed), by) in self.rows.iter().zip(weighed).zip(&mut by) {
            *by += row.add_surprise(weighed, part, at, sum);
            sum.slopes.iter_mut().zip(&row.terms).for_each(|(slope, term)| *slope += *by * term);
        }
    }
}

/// The loss of one person's ranking; its slopes are added to `by`.
fn add_ranking(rows: &[Row], weighed: &[f64], part: f64, by: &mut [f64]) -> f64 {
    let scores: Vec<f64> = rows.iter().zip(weighed).map(|(row, weighed)| row.standing + weighed).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let each = 1.0 / number(rows.iter().filter(|row| row.acted).count());
    let mut loss = 0.0;
    for (place, row) in rows.iter().enumerate() {
        let wanted = if row.acted { each } else { 0.0 };
        loss -= part * wanted * (scores[place] - largest - total.ln());
        by[place] += part * (exponentials[place] / total - wanted);
    }
    loss
}

impl Row {
    fn weighed(&self, at: &[f64]) -> f64 {
        at.iter().zip(&self.terms).map(|(weight, term)| weight * term).sum()
    }

    /// Adds the surprise at what happened, and answers with its slope for each unit of a term.
    fn add_surprise(&self, weighed: f64, part: f64, at: &[f64], sum: &mut Sum) -> f64 {
        let (stranger, gained) = (at[PRIOR].exp(), self.ramp * (at[BASE] + weighed).min(20.0).exp());
        let intensity = (stranger + gained).min(25.0);
        // With P = 1 − exp(−λ): the slope of −ln P is −exp(−λ)/P, that of −ln(1 − P) is 1.
        let likely = -(-intensity).exp_m1();
        let (value, slope) = if self.happened { (-likely.ln(), -(1.0 - likely) / likely) } else { (intensity, 1.0) };
        sum.value += part * value;
        sum.slopes[BASE] += part * slope * gained;
        sum.slopes[PRIOR] += part * slope * stranger;
        part * slope * gained
    }
}

/// The most trials that the prior can be worth so that intervals hold what they claim.
fn trials(sets: &[FitSet<'_>], policy: &Policy) -> f64 {
    let total: f64 = sets.iter().map(|set| set.chance_weight).sum();
    let covered = |prior_trials: f64| {
        let tried = Policy { prior_trials, ..policy.clone() };
        let of_set = |set: &FitSet<'_>| {
            coverage(set.snapshots, policy.horizon_days, &tried).map(|covered| set.chance_weight / total * covered)
        };
        sets.iter().filter_map(of_set).sum::<f64>() >= COVERAGE
    };
    let least = TRIALS.into_iter().last().unwrap_or(1.0);
    TRIALS.into_iter().find(|trials| covered(*trials)).unwrap_or(least)
}
