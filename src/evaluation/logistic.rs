//! A small logistic regression: it turns the score of a rule into a probability, and is the model over Real Graph's
//! features. Deterministic: the same rows in the same order give the same bits.

use super::{mean, number};

/// The chance of an outcome, by a weighted sum of features: `1 / (1 + e^−(b + Σ wᵢ xᵢ))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    intercept: f64,
    weights: Vec<f64>,
}

/// A fit ends after this many steps of Newton, or earlier once it no longer moves.
const STEPS: usize = 50;
/// A step that gains less than this, relative to what is lost, is the last.
const TOLERANCE: f64 = 1e-10;
/// How often a step that overshoots is halved.
const HALVINGS: usize = 30;

impl Logistic {
    /// Fits to rows of features and their outcomes by penalised maximum likelihood: iteratively reweighted least squares
    /// (Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", §4.4.1) with steps halved until they gain.
    ///
    /// `penalty` ≥ 0 is half the factor of the squared weights, each weight taken per standard deviation of its feature, so
    /// that units do not matter; the intercept is free. Above 0 it keeps weights finite where features tell the outcomes
    /// apart without error.
    ///
    /// `None` when there is nothing to learn from: no rows, rows of several lengths or not of one outcome each, a feature
    /// that is not finite, or outcomes that are all the same.
    pub fn fit<Row: AsRef<[f64]>>(rows: &[Row], outcomes: &[bool], penalty: f64) -> Option<Self> {
        let width = rows.first()?.as_ref().len();
        let usable = |row: &Row| row.as_ref().len() == width && row.as_ref().iter().all(|value| value.is_finite());
        let both = outcomes.contains(&true) && outcomes.contains(&false);
        (rows.len() == outcomes.len() && both && rows.iter().all(usable)).then_some(())?;
        let scales: Vec<Scale> = (0..width).filter_map(|column| Scale::of(rows, column)).collect();
        let problem = Problem { design: design(rows, &scales), outcomes, width: width + 1, penalty };
        Some(Self::unscaled(&problem.solve()?, &scales))
    }

    /// Fits the probability of an outcome to the score of a rule, through `ln(1 + score)`; scores are at least 0.
    pub fn fit_score(scores: &[f64], outcomes: &[bool], penalty: f64) -> Option<Self> {
        let rows: Vec<[f64; 1]> = scores.iter().map(|score| [score.ln_1p()]).collect();
        Self::fit(&rows, outcomes, penalty)
    }

    /// The probability, in [0, 1], by as many features as it was fitted to.
    pub fn probability(&self, features: &[f64]) -> f64 {
        logistic(self.intercept + dot(&self.weights, features))
    }

    /// The probability, in [0, 1], by the score that [`fit_score`](Self::fit_score) was given.
    pub fn probability_of_score(&self, score: f64) -> f64 {
        self.probability(&[score.ln_1p()])
    }

    /// What all features at 0 give, in log-odds.
    pub fn intercept(&self) -> f64 {
        self.intercept
    }

    /// What each feature adds per unit of it, in log-odds.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn unscaled(solution: &[f64], scales: &[Scale]) -> Self {
        let per_deviation = solution.get(1..).unwrap_or_default();
        let weights: Vec<f64> =
            per_deviation.iter().zip(scales).map(|(weight, scale)| weight / scale.deviation).collect();
        let shift: f64 = weights.iter().zip(scales).map(|(weight, scale)| weight * scale.mean).sum();
        Self { intercept: solution.first().unwrap_or(&0.0) - shift, weights }
    }
}

/// Where a feature lies and how far it spreads; a feature that does not spread gets a deviation of 1.
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Scale {
    fn of<Row: AsRef<[f64]>>(rows: &[Row], column: usize) -> Option<Self> {
        let values = || rows.iter().filter_map(|row| row.as_ref().get(column).copied());
        let middle = mean(values())?;
        let deviation = mean(values().map(|value| (value - middle).powi(2)))?.sqrt();
        Some(Self { mean: middle, deviation: if deviation > 0.0 { deviation } else { 1.0 } })
    }
}

/// Rows one after the other: a 1 for the intercept, then the features in standard deviations from their means.
fn design<Row: AsRef<[f64]>>(rows: &[Row], scales: &[Scale]) -> Vec<f64> {
    let mut design = Vec::with_capacity(rows.len() * (scales.len() + 1));
    for row in rows {
        design.push(1.0);
        design.extend(row.as_ref().iter().zip(scales).map(|(value, scale)| (value - scale.mean) / scale.deviation));
    }
    design
}

struct Problem<'a> {
    design: Vec<f64>,
    outcomes: &'a [bool],
    width: usize,
    penalty: f64,
}

impl Problem<'_> {
    fn solve(&self) -> Option<Vec<f64>> {
        let mut solution = vec![0.0; self.width];
        let mut loss = self.loss(&solution);
        for _ in 0..STEPS {
            let step = self.step(&solution)?;
            let Some((better, lowered)) = self.gain(&solution, &step, loss) else { break };
            let gained = loss - lowered;
            (solution, loss) = (better, lowered);
            if gained <= TOLERANCE * loss.max(1.0) {
                break;
            }
        }
        Some(solution)
    }

    /// Where the largest halving of the step that gains leads, and what is lost there.
    fn gain(&self, from: &[f64], step: &[f64], loss: f64) -> Option<(Vec<f64>, f64)> {
        let mut factor = 1.0;
        for _ in 0..HALVINGS {
            let there: Vec<f64> = from.iter().zip(step).map(|(value, step)| value + factor * step).collect();
            let lowered = self.loss(&there);
            if lowered < loss {
                return Some((there, lowered));
            }
            factor /= 2.0;
        }
        None
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], f64)> {
        let outcomes = self.outcomes.iter().map(|outcome| f64::from(u8::from(*outcome)));
        self.design.chunks_exact(self.width).zip(outcomes)
    }

    /// The negative log-likelihood and the penalty.
    fn loss(&self, solution: &[f64]) -> f64 {
        let lost = self.rows().map(|(row, outcome)| {
            let odds = dot(row, solution);
            softplus(odds) - outcome * odds
        });
        let squares: f64 = solution.iter().skip(1).map(|weight| weight * weight).sum();
        lost.sum::<f64>() + self.penalty * squares / 2.0
    }

    /// Newton's step: the solution of `H s = −g` for the loss's gradient `g` and Hessian `H`.
    fn step(&self, solution: &[f64]) -> Option<Vec<f64>> {
        let mut uphill = vec![0.0; self.width];
        let mut hessian = vec![0.0; self.width * self.width];
        for (row, outcome) in self.rows() {
            let chance = logistic(dot(row, solution));
            let weight = chance * (1.0 - chance);
            for ((uphill, line), value) in uphill.iter_mut().zip(hessian.chunks_exact_mut(self.width)).zip(row) {
                *uphill += (outcome - chance) * value;
                line.iter_mut().zip(row).for_each(|(cell, other)| *cell += weight * value * other);
            }
        }
        for (place, line) in hessian.chunks_exact_mut(self.width).enumerate() {
            let penalty = if place == 0 { 0.0 } else { self.penalty };
            uphill[place] -= penalty * solution[place];
            // A feature that never varies has no curvature; the trifle keeps it where it is.
            line[place] += penalty + number(self.outcomes.len()) * 1e-12;
        }
        cholesky_solve(hessian, uphill)
    }
}

/// Solves `a x = b` for a symmetric positive definite matrix `a`, given row by row; `None` when it is not.
fn cholesky_solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let width = b.len();
    // The lower triangle becomes L of a = L Lᵀ, and b becomes y of L y = b on the way.
    for row in 0..width {
        for column in 0..row {
            let known: f64 = (0..column).map(|place| a[row * width + place] * a[column * width + place]).sum();
            a[row * width + column] = (a[row * width + column] - known) / a[column * width + column];
        }
        let line = row * width..row * width + row;
        let rest = a[row * width + row] - a[line.clone()].iter().map(|value| value * value).sum::<f64>();
        (rest > 0.0 && rest.is_finite()).then_some(())?;
        a[row * width + row] = rest.sqrt();
        b[row] = (b[row] - dot(&a[line], &b)) / a[row * width + row];
    }
    for row in (0..width).rev() {
        let known: f64 = (row + 1..width).map(|below| a[below * width + row] * b[below]).sum();
        b[row] = (b[row] - known) / a[row * width + row];
    }
    Some(b)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one feature 0 or 1: of the zeros `none.0` of `none.1` happened, of the ones `one.0` of `one.1`.
    fn two_groups(none: (usize, usize), one: (usize, usize)) -> (Vec<[f64; 1]>, Vec<bool>) {
        let group = |value: f64, (happened, of): (usize, usize)| (0..of).map(move |place| ([value], place < happened));
        group(0.0, none).chain(group(1.0, one)).unzip()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-7, "{a} is not {b}");
    }

    #[test]
    fn without_penalty_two_groups_get_their_rates() {
        let (rows, outcomes) = two_groups((1, 4), (6, 8));
        let fitted = Logistic::fit(&rows, &outcomes, 0.0).unwrap();
        close(fitted.probability(&[0.0]), 0.25);
        close(fitted.probability(&[1.0]), 0.75);
        close(fitted.intercept(), -(3.0_f64.ln()));
        close(fitted.weights()[0], 2.0 * 3.0_f64.ln());
    }

    #[test]
    fn the_penalised_gradient_vanishes_at_the_solution() {
        let (rows, outcomes) = two_groups((1, 4), (3, 4));
        // In deviations the features are −1 and 1 and a weight is half as large. By symmetry the intercept is then 0, and
        // with p for the ones, 4 (3/4 − p) − 4 (1/4 − (1 − p)) is to equal the penalty's pull.
        let fitted = Logistic::fit(&rows, &outcomes, 2.0).unwrap();
        let half = fitted.weights()[0] / 2.0;
        close(8.0 * (0.75 - logistic(half)), 2.0 * half);
        close(fitted.probability(&[0.0]), 1.0 - fitted.probability(&[1.0]));
    }

    #[test]
    fn units_do_not_matter() {
        let rows: Vec<[f64; 2]> = (0..40_u8).map(|row| [f64::from(row % 7), f64::from(row % 5)]).collect();
        let outcomes: Vec<bool> = (0..40_u8).map(|row| (row * 3 % 7 + row % 5) > 4).collect();
        let grams: Vec<[f64; 2]> = rows.iter().map(|[first, second]| [first * 1000.0 + 5.0, *second]).collect();
        let (one, other) =
            (Logistic::fit(&rows, &outcomes, 1.0).unwrap(), Logistic::fit(&grams, &outcomes, 1.0).unwrap());
        for (row, gram) in rows.iter().zip(&grams) {
            close(one.probability(row), other.probability(gram));
        }
    }

    #[test]
    fn features_that_say_all_or_nothing_stay_finite() {
        let (rows, outcomes) = two_groups((0, 5), (5, 5));
        let certain = Logistic::fit(&rows, &outcomes, 1e-3).unwrap();
        assert!(certain.weights()[0].is_finite() && certain.probability(&[1.0]) > 0.99);
        let constant: Vec<[f64; 2]> = rows.iter().map(|[value]| [*value, 7.0]).collect();
        close(Logistic::fit(&constant, &outcomes, 1.0).unwrap().weights()[1], 0.0);
    }

    #[test]
    fn nothing_to_learn_from_is_none() {
        let fit = |rows: &[Vec<f64>], outcomes: &[bool]| Logistic::fit(rows, outcomes, 1.0);
        assert_eq!(fit(&[], &[]), None);
        assert_eq!(fit(&[vec![1.0], vec![2.0]], &[true, true]), None);
        assert_eq!(fit(&[vec![1.0], vec![2.0, 3.0]], &[true, false]), None);
        assert_eq!(fit(&[vec![1.0], vec![f64::NAN]], &[true, false]), None);
        assert_eq!(fit(&[vec![1.0], vec![2.0]], &[true, false, false]), None);
    }

    #[test]
    fn scores_go_through_their_logarithm() {
        let scores = [0.0, 1.0, 2.0, 5.0, 9.0, 20.0];
        let outcomes = [false, false, true, false, true, true];
        let fitted = Logistic::fit_score(&scores, &outcomes, 0.1).unwrap();
        close(fitted.probability_of_score(9.0), fitted.probability(&[10.0_f64.ln()]));
        assert!(fitted.weights()[0] > 0.0);
    }
}
