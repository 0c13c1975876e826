//! Draws of z given x of an affine instrument: data and coupling are perturbed, and a linear system is solved.
//!
//! With data y of precision W and the coupling N(x, r^2 I), z is Gaussian with the precision H = A^T W A + 1/r^2 I, and the solution of
//!
//! H (z - z0) = A^T W (y - A z0) + (x - z0) / r^2 + A^T W^1/2 e + e' / r,   e, e' white,
//!
//! is a draw of it, from any z0 (Papandreou & Yuille 2010, "Gaussian sampling by local perturbations"; Gilavert, Moussaoui & Idier
//! 2015, arXiv 1409.0606, section 2.1). Of noise that grows with the light, W is the Fisher information of what z0, the last z,
//! predicts, as in iteratively reweighted least squares: for Poisson noise one step of Fisher's scoring.

use candle_core::{D, Tensor};

use super::cycle::Moved;
use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        covariance::Covariance,
        hmc::{per_chain, product},
    },
    rng::Rng,
    tensor::{by_parts, compute_of, to_host, value_and_gradient},
};

/// Squared error of a solution, in units of its scatter and per datum, at which conjugate gradients stop.
const ERROR: f64 = 0.003;
/// Most iterations, which bright volumes ask for while r is large: what is known a thousand times better than the coupling then
/// scatters less than it should, and does as it should once r has fallen.
const LONGEST: usize = 32;
/// Numbers that a thread of the CPU works on at a time.
const PART: usize = 1 << 15;

/// Draws z given `x` `[B, Z, Y, X]`, network unit, with a coupling of width `level`, from the `last` z on. `covariance` is what H^-1
/// is taken for.
///
/// # Errors
/// Noise without known information, or that of the forward model.
pub(super) fn draw(
    problem: &Problem,
    covariance: &Covariance,
    last: Tensor,
    x: &Tensor,
    level: f64,
    rng: &mut Rng,
) -> Result<Moved> {
    let compute = compute_of(x);
    let [_, planes, rows, columns] = <[usize; 4]>::from(x.dims4()?);
    let voxels = planes * rows * columns;
    let dark = problem.predict(&x.narrow(0, 0, 1)?.zeros_like()?)?;
    let data = dark.elem_count();
    let pull = (((x - &last)? / (level * level))? + (rng.normals(x.dims(), &compute)? / level)?)?;
    let white = rng.normals(&[x.dim(0)?, data], &compute)?;
    let joint = joined([last.flatten_from(1)?, pull.flatten_from(1)?, white])?;
    let [z, log_density, iterations] = by_parts(&joint, PART, |part| {
        let image = |start: usize| Ok(part.narrow(1, start, voxels)?.reshape(((), planes, rows, columns))?);
        let [from, pull]: [Result<Tensor>; 2] = [image(0), image(voxels)];
        let (from, pull) = (from?, pull?);
        let [weights, misfit] = problem.weighted(&problem.predict(&from)?)?.ok_or_else(|| {
            Error::config("solver", "needs data of known information, measured one by one; choose another")
        })?;
        let noise = (part.narrow(1, 2 * voxels, data)? * weights.sqrt()?)?;
        let known = (pull + problem.adjoint(&(misfit + noise)?, &from)?)?;
        let precision = |v: &Tensor| -> Result<Tensor> {
            let light = |v: &Tensor| {
                let square = problem.predict(v)?.broadcast_sub(&dark)?.sqr()?;
                Ok(((square * &weights)?.sum(D::Minus1)? * 0.5)?)
            };
            Ok((value_and_gradient(v, light)?.1 + (v / (level * level))?)?)
        };
        let (change, iterations) = solve(precision, |v| covariance.times(v), known, ERROR * data as f64)?;
        let end = (from + change)?;
        let log_density = problem.log_likelihood(&end)?;
        let iterations = compute_of(x).tensor(vec![iterations as f64; part.dim(0)?], &[part.dim(0)?])?;
        Ok([end, log_density, iterations])
    })?;
    let metrics = vec![("iterations", to_host(&iterations.mean_all()?)?[0])];
    Ok(Moved { z, clean: None, log_density, metrics })
}

/// Matrices side by side, which are dropped: large images leave no memory for both.
fn joined(parts: [Tensor; 3]) -> Result<Tensor> {
    Ok(Tensor::cat(&parts, 1)?)
}

/// Solves H x = `known` for each element of a batch by conjugate gradients, preconditioned by what H^-1 is about (Hestenes & Stiefel
/// 1952), until (x - x*) H (x - x*) is below `error` for all, as the preconditioner tells it. Returns x and the iterations.
fn solve(
    precision: impl Fn(&Tensor) -> Result<Tensor>,
    covariance: impl Fn(&Tensor) -> Result<Tensor>,
    known: Tensor,
    error: f64,
) -> Result<(Tensor, usize)> {
    let mut x = known.zeros_like()?;
    let mut residual = known;
    let mut way = covariance(&residual)?;
    let mut left = product(&residual, &way)?;
    for iteration in 0..LONGEST {
        if left.iter().all(|left| *left < error) {
            return Ok((x, iteration));
        }
        let bent = precision(&way)?;
        let ratios = |above: &[f64], below: &[f64]| {
            let ratio = |(above, below): (&f64, &f64)| if *below > 0.0 { above / below } else { 0.0 };
            per_chain(above.iter().zip(below).map(ratio).collect(), &way)
        };
        let length = ratios(&left, &product(&way, &bent)?)?;
        x = (x + way.broadcast_mul(&length)?)?;
        residual = (residual - bent.broadcast_mul(&length)?)?;
        drop(bent);
        let raised = covariance(&residual)?;
        let now = product(&residual, &raised)?;
        way = (raised + way.broadcast_mul(&ratios(&now, &left)?)?)?;
        left = now;
    }
    Ok((x, LONGEST))
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};

    use super::*;
    use crate::{
        compute::Compute,
        instrument::{
            Seen,
            microscope::example::{assert_gaussian, gradient_and_precision, unlike_noise},
        },
    };

    /// Mean and covariance of many draws against those of the Gaussian, whose matrices are written out.
    #[test]
    fn draws_follow_the_gaussian() {
        let (problem, compute, count, level) = (unlike_noise(1.0), Compute::cpu_f64(), 4000, 0.7);
        let [_, rows, columns] = problem.forward.grid().shape;
        let voxels = rows * columns;
        let images =
            |values: Vec<f64>, count: usize| compute.tensor(values, &[count, 1, rows, columns]).unwrap();
        let x: Vec<f64> = (0..voxels).map(|voxel| 0.1 * (voxel % 7) as f64).collect();
        let (dark, bent) = gradient_and_precision(&problem);
        let precision = bent + DMatrix::identity(voxels, voxels) / (level * level);
        let covariance = precision.try_inverse().unwrap();
        let mean = &covariance * (dark + DVector::from_vec(x.clone()) / (level * level));

        let seen = problem.seen(&images(vec![0.0; voxels], 1)).unwrap();
        let Seen::Informed(information) = seen else { panic!("{seen:?}") };
        let known = Covariance::new(&information, level, &compute).unwrap();
        let mut rng = Rng::new(3);
        let many = images(x, 1).repeat((count, 1, 1, 1)).unwrap();
        let from = (&many + rng.normals(many.dims(), &compute).unwrap()).unwrap();
        let Moved { z, metrics, .. } = draw(&problem, &known, from, &many, level, &mut rng).unwrap();
        let [("iterations", iterations)] = metrics[..] else { panic!("{metrics:?}") };
        assert!((2.0..20.0).contains(&iterations), "{iterations}");
        let draws = DMatrix::from_vec(voxels, count, to_host(&z).unwrap());
        assert_gaussian(&draws, &mean, &covariance, 0.0);
    }
}
