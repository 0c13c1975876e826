//! The Gaussian N(z; x, r^2 I) exp(-(z - a)' H (z - a) / 2) of an image given its neighbour x and a parabola of the data,
//! as reference of Hamiltonian steps.
//!
//! Its precision P = I / r^2 + H is never formed: systems are solved by conjugate gradients (Hestenes and Stiefel 1952), and
//! velocities of covariance P^-1 are solutions for a right-hand side of covariance P ("perturb and optimise", Papandreou
//! and Yuille 2010). Positions turn about the mode with one frequency in all directions, and what the parabola does not say
//! of the log density acts as a kick. With Gaussian noise nothing is left for kicks, and a quarter turn is an exact draw.

use candle_core::Tensor;

use super::hmc::{Point, per_chain, squared_norm};
use crate::{
    Result,
    instrument::{Problem, Quadratic},
    rng::Rng,
    tensor::{compute_of, to_host},
};

/// Residual over right-hand side at which a system counts as solved.
const SOLVED: f64 = 1e-3;
/// Largest number of iterations of conjugate gradients.
const MOST: usize = 300;

/// The reference of all chains.
#[derive(Clone)]
pub struct Conditional<'a> {
    problem: &'a Problem,
    parabola: &'a Quadratic,
    /// x, `[B, Z, Y, X]`.
    centre: Tensor,
    /// r.
    width: f64,
    /// Where the parabola about x is highest.
    mode: Tensor,
}

impl<'a> Conditional<'a> {
    /// The reference about `centre` with coupling `width`.
    ///
    /// # Errors
    /// Those of the problem.
    pub fn new(problem: &'a Problem, parabola: &'a Quadratic, centre: Tensor, width: f64) -> Result<Self> {
        let slope = parabola.slope(problem, &centre)?;
        let mut reference = Self { problem, parabola, mode: centre.clone(), centre, width };
        let step = reference.solve(&slope, &slope.zeros_like()?)?;
        reference.mode = (&reference.centre + step)?;
        Ok(reference)
    }

    /// Where positions turn about.
    pub(super) fn mode(&self) -> &Tensor {
        &self.mode
    }

    /// Velocities of covariance P^-1.
    pub(super) fn velocity(&self, rng: &mut Rng) -> Result<Tensor> {
        let near = (rng.normals(self.centre.dims(), &compute_of(&self.centre))? / self.width)?;
        let right = (near + self.parabola.noise(self.problem, &self.centre, rng)?)?;
        self.solve(&right, &right.zeros_like()?)
    }

    /// Change of velocity a unit of time, `[B, Z, Y, X]`: from a position to where its own parabola is highest, less the way
    /// to the mode. Zero where the log density is a parabola.
    pub(super) fn kick(&self, point: &Point) -> Result<Tensor> {
        let slope = (&point.gradient - ((&point.position - &self.centre)? / self.width.powi(2))?)?;
        let turn = (&self.mode - &point.position)?;
        Ok((self.solve(&slope, &turn)? - turn)?)
    }

    /// |z - x|^2 / 2 r^2 + v' P v / 2 of each chain.
    pub(super) fn energy(&self, position: &Tensor, velocity: &Tensor) -> Result<Vec<f64>> {
        let (motion, _) = self.product(velocity)?;
        let place = squared_norm(&(position - &self.centre)?)?;
        let scale = self.width.powi(-2);
        Ok(motion.iter().zip(place).map(|(motion, place)| 0.5 * (motion + scale * place)).collect())
    }

    /// v' P v of each chain, and P v.
    fn product(&self, v: &Tensor) -> Result<(Vec<f64>, Tensor)> {
        let scale = self.width.powi(-2);
        let (curved, product) = self.parabola.product(self.problem, v)?;
        let values =
            squared_norm(v)?.iter().zip(to_host(&curved)?).map(|(near, far)| scale * near + far).collect();
        Ok((values, (product + (v * scale)?)?))
    }

    /// P^-1 of `right`, from a first guess.
    fn solve(&self, right: &Tensor, guess: &Tensor) -> Result<Tensor> {
        let limits: Vec<f64> = squared_norm(right)?.iter().map(|norm| SOLVED * SOLVED * norm).collect();
        let mut solution = guess.clone();
        let mut residual = (right - self.product(guess)?.1)?;
        let mut direction = residual.clone();
        let mut left = squared_norm(&residual)?;
        for _ in 0..MOST {
            if left.iter().zip(&limits).all(|(left, limit)| left <= limit) {
                break;
            }
            let (curvature, product) = self.product(&direction)?;
            let ratio = |above: &[f64], below: &[f64]| {
                let ratios = above.iter().zip(below).map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 });
                per_chain(ratios.collect(), right)
            };
            let length = ratio(&left, &curvature)?;
            solution = (solution + direction.broadcast_mul(&length)?)?;
            residual = (residual - product.broadcast_mul(&length)?)?;
            let next = squared_norm(&residual)?;
            direction = (&residual + direction.broadcast_mul(&ratio(&next, &left)?)?)?;
            left = next;
        }
        Ok(solution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        grid::Grid,
        instrument::{
            density::Data,
            exact::{Projection, projection},
            microscope::likelihood::{Pixels, ShiftedPoisson},
        },
        posterior::hmc::{QUARTER_TURN, Reference, StepSizes, draw},
        prior::Scaling,
    };

    const CHAINS: usize = 20_000;

    /// Draws of z `[CHAINS]` of two pixels given x = (0.5, -1) and r = 0.8, in turns of at most `step`, with the mean
    /// acceptance.
    fn drawn(problem: &Problem, step: f64, rounds: usize) -> (Vec<[f64; 2]>, f64) {
        let compute = Compute::cpu_f64();
        let parabola = problem.quadratic(&compute).unwrap().unwrap();
        let x = compute.tensor([0.5, -1.0].repeat(CHAINS), &[CHAINS, 1, 1, 2]).unwrap();
        let reference = Reference::Curved(Conditional::new(problem, &parabola, x.clone(), 0.8).unwrap());
        let mut target = |z: &Tensor| problem.log_likelihood_and_gradient(z);
        let mut point = Point::new(x, &mut target).unwrap();
        let steps = StepSizes::new(CHAINS, step, step, 0.8);
        let (mut rng, mut acceptance) = (Rng::new(5), 0.0);
        for _ in 0..rounds {
            let outcome = draw(&mut target, &reference, &point, &steps, 20, &mut rng).unwrap();
            acceptance = outcome.acceptance.iter().sum::<f64>() / CHAINS as f64;
            point = outcome.point;
        }
        let values = to_host(&point.position).unwrap();
        (values.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect(), acceptance)
    }

    /// Mean and covariance (11, 12, 22).
    fn moments(draws: &[[f64; 2]]) -> [f64; 5] {
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| draws.iter().map(of).sum::<f64>() / draws.len() as f64;
        let [a, b] = [0, 1].map(|i| mean(&|z| z[i]));
        let [aa, ab, bb] = [[0, 0], [0, 1], [1, 1]].map(|[i, j]| mean(&|z| z[i] * z[j]));
        [a, b, aa - a * a, ab - a * b, bb - b * b]
    }

    /// F = [[1, 2], [0, 1]], sigma 0.5, y = (0.3, -1): P = I / 0.64 + [[4, 8], [8, 20]], and the mean is
    /// P^-1 (x / 0.64 + F' y / 0.25).
    #[test]
    fn draws_with_gaussian_noise_are_exact_after_one_turn() {
        let compute = Compute::cpu_f64();
        let rows = [vec![1.0, 2.0], vec![0.0, 1.0]];
        let problem = projection(&rows, &[0.3, -1.0], 0.5, &compute).unwrap();
        // A few turns: each is shortened at random, so that the first leaves a trace of the start.
        let (draws, acceptance) = drawn(&problem, QUARTER_TURN, 3);
        let [a, b, c] = [4.0 + 1.5625, 8.0, 20.0 + 1.5625];
        let determinant = a * c - b * b;
        let right = [0.5 / 0.64 + 1.2, -1.0 / 0.64 + 2.4 - 4.0];
        let exact = [
            (c * right[0] - b * right[1]) / determinant,
            (a * right[1] - b * right[0]) / determinant,
            c / determinant,
            -b / determinant,
            a / determinant,
        ];
        assert!(acceptance > 0.999, "{acceptance}");
        for (found, exact) in moments(&draws).into_iter().zip(exact) {
            assert!((found - exact).abs() < 0.012, "{found} {exact}");
        }
    }

    /// Two counts of few photo-electrons, against sums over a fine grid of z.
    #[test]
    fn what_is_no_parabola_is_corrected() {
        let compute = Compute::cpu_f64();
        let noise = ShiftedPoisson { data: vec![3.0, 1.0], read_variance: vec![0.5] };
        let matrix = compute.tensor(vec![2.0, 0.5, 0.3, 1.5], &[2, 2]).unwrap();
        let problem = Problem {
            forward: Box::new(Projection { grid: Grid { shape: [1, 1, 2], pitch: [1.0; 3] }, matrix }),
            likelihoods: vec![Box::new(Data::new(Pixels::new(noise, &[]).unwrap()))],
            scaling: Scaling { unit: 1.5, dark: -1.5 },
        };
        let (draws, acceptance) = drawn(&problem, 0.4, 12);
        assert!((0.7..0.999).contains(&acceptance), "{acceptance}");
        let place = |i: usize| -4.0 + 0.05 * i as f64;
        let grid: Vec<[f64; 2]> = (0..160 * 160).map(|i| [place(i / 160), place(i % 160)]).collect();
        let all = compute.tensor(grid.concat(), &[grid.len(), 1, 1, 2]).unwrap();
        let log = to_host(&problem.log_likelihood(&all).unwrap()).unwrap();
        let distance = |z: &[f64; 2]| ((z[0] - 0.5).powi(2) + (z[1] + 1.0).powi(2)) / 1.28;
        let weights: Vec<f64> = log.iter().zip(&grid).map(|(log, z)| (log - distance(z)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| {
            grid.iter().zip(&weights).map(|(z, weight)| weight * of(z)).sum::<f64>() / total
        };
        let [a, b] = [0, 1].map(|i| mean(&|z| z[i]));
        let exact = [
            a,
            b,
            mean(&|z| (z[0] - a).powi(2)),
            mean(&|z| (z[0] - a) * (z[1] - b)),
            mean(&|z| (z[1] - b).powi(2)),
        ];
        for (found, exact) in moments(&draws).into_iter().zip(exact) {
            assert!((found - exact).abs() < 0.02, "{found} {exact}");
        }
    }
}
