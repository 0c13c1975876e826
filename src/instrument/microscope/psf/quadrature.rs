//! Gauss-Legendre quadrature.

use std::f64::consts::PI;

/// Nodes and weights of the Gauss-Legendre rule with `count` nodes on [-1, 1], exact for polynomials of degree
/// 2 `count` - 1. Newton's iteration on the Legendre polynomial from the asymptotic guess of its roots.
pub(super) fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    const ITERATIONS: usize = 8;
    let n = count as f64;
    let node = |i: usize| {
        let mut x = (PI * (i as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..ITERATIONS {
            let (mut previous, mut value) = (1.0, x);
            for k in 2..=count {
                let k = k as f64;
                (previous, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * previous) / k);
            }
            slope = n * (x * value - previous) / (x * x - 1.0);
            x -= value / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_degree_below_twice_the_nodes_are_exact() {
        for count in [1, 2, 3, 8, 33, 400] {
            let rule = gauss_legendre(count);
            for degree in [0, 1, 2, 5, 14, 2 * count - 1] {
                if degree >= 2 * count {
                    continue;
                }
                let sum: f64 = rule.iter().map(|(x, w)| w * x.powi(degree as i32)).sum();
                let exact = if degree % 2 == 0 { 2.0 / (degree as f64 + 1.0) } else { 0.0 };
                assert!((sum - exact).abs() < 1e-12, "{count} nodes, degree {degree}: {sum} {exact}");
            }
        }
    }
}
