//! Minimising a smooth function within bounds: the spectral projected gradient method (Birgin, Martínez and Raydan, SIAM
//! J. Optim. 2000), which is deterministic and needs nothing but gradients.

/// How many earlier values a step may rise to.
const MEMORY: usize = 10;
/// How much of the expected decrease is enough.
const SUFFICIENT: f64 = 1e-4;
/// How many steps may pass without the best value falling by more than this part of itself.
const PATIENCE: usize = 40;
const PROGRESS: f64 = 1e-5;
const STEP_RANGE: [f64; 2] = [1e-10, 1e10];

/// Where `function`, which tells its value and its gradient, is least within `bounds`, as far as `most` steps lead from
/// `start`.
pub(super) fn minimize(
    mut function: impl FnMut(&[f64]) -> (f64, Vec<f64>),
    start: &[f64],
    bounds: &[(f64, f64)],
    most: usize,
) -> Vec<f64> {
    let project = |point: &[f64]| -> Vec<f64> {
        point.iter().zip(bounds).map(|(value, (least, largest))| value.clamp(*least, *largest)).collect()
    };
    let mut point = project(start);
    let (mut value, mut gradient) = function(&point);
    let (mut best, mut recent) = ((value, point.clone()), vec![value]);
    let mut step = 1.0 / largest(&gradient).max(1.0);
    let (mut mark, mut since) = (value, 0);
    for _ in 0..most {
        let target: Vec<f64> = point.iter().zip(&gradient).map(|(at, slope)| at - step * slope).collect();
        let direction: Vec<f64> = project(&target).iter().zip(&point).map(|(to, at)| to - at).collect();
        if largest(&direction) < 1e-9 {
            break;
        }
        let ceiling = recent.iter().rev().take(MEMORY).copied().fold(f64::NEG_INFINITY, f64::max);
        let slope = dot(&gradient, &direction);
        let mut part = 1.0;
        let (next, next_value, next_gradient) = loop {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(at, by)| at + part * by).collect();
            let (next_value, next_gradient) = function(&next);
            if next_value <= ceiling + SUFFICIENT * part * slope || part < 1e-12 {
                break (next, next_value, next_gradient);
            }
            part *= 0.5;
        };
        let moved: Vec<f64> = next.iter().zip(&point).map(|(to, from)| to - from).collect();
        let turned: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(to, from)| to - from).collect();
        let curvature = dot(&moved, &turned);
        let [least_step, largest_step] = STEP_RANGE;
        step = if curvature > 0.0 { dot(&moved, &moved) / curvature } else { largest_step };
        step = step.clamp(least_step, largest_step);
        (point, value, gradient) = (next, next_value, next_gradient);
        recent.push(value);
        if value < best.0 {
            best = (value, point.clone());
        }
        since += 1;
        if best.0 < mark - PROGRESS * mark.abs() {
            (mark, since) = (best.0, 0);
        } else if since > PATIENCE {
            break;
        }
    }
    best.1
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_least_point_within_bounds() {
        // (x − 3)² + 10·(y + 1)² + xy, whose least point without bounds has y < 0.
        let function = |at: &[f64]| {
            let (x, y) = (at[0], at[1]);
            let value = (x - 3.0).powi(2) + 10.0 * (y + 1.0).powi(2) + x * y;
            (value, vec![2.0 * (x - 3.0) + y, 20.0 * (y + 1.0) + x])
        };
        let free = minimize(function, &[0.0, 0.0], &[(-9.0, 9.0); 2], 200);
        assert!((2.0 * (free[0] - 3.0) + free[1]).abs() < 1e-6 && (20.0 * (free[1] + 1.0) + free[0]).abs() < 1e-6);
        let bounded = minimize(function, &[9.0, 9.0], &[(0.0, 9.0); 2], 200);
        assert!((bounded[0] - 3.0).abs() < 1e-6 && bounded[1].abs() < 1e-12);
    }
}
