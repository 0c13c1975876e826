//! Distances between two sets of draws.

use candle_core::{DType, Tensor};

use crate::{Result, compute::Compute, rng::Rng, transfer::Transfer};

/// Directions of the sliced distance.
const DIRECTIONS: usize = 1000;

/// Sliced 2-Wasserstein distance between equally many draws `[S, D]`: the root mean square, over random directions, of
/// the differences between sorted projections. The directions are the same in every call.
///
/// # Errors
/// Sets of different sizes.
pub fn sliced_w2(a: &Tensor, b: &Tensor) -> Result<f64> {
    let dim = a.dim(1)?;
    let compute = Compute { device: a.device().clone(), dtype: DType::F64 };
    let directions = Rng::new(0).stream("directions", 0).normals(&[dim, DIRECTIONS], &compute)?;
    let directions = directions.broadcast_div(&directions.sqr()?.sum_keepdim(0)?.sqrt()?)?;
    let sorted = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
        let mut rows = x.to_dtype(DType::F64)?.matmul(&directions)?.t()?.read_rows::<f64>()?;
        rows.iter_mut().for_each(|row| row.sort_by(f64::total_cmp));
        Ok(rows)
    };
    let (a, b) = (sorted(a)?, sorted(b)?);
    let squares = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
    };
    Ok((a.iter().zip(&b).map(squares).sum::<f64>() / DIRECTIONS as f64).sqrt())
}

/// Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) between draws `[S, D]` with the kernel
/// exp(-|x - y|^2 / 2 h^2), h^2 half the median squared distance within `b`.
///
/// # Errors
/// Sets of different dimensions.
pub fn mmd2(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let (count_a, count_b) = (a.dim(0)?, b.dim(0)?);
    let within = squared_distances(&b, &b)?;
    let mut pairs: Vec<f64> = (0..count_b).flat_map(|i| within[i][..i].to_vec()).collect();
    pairs.sort_by(f64::total_cmp);
    let median = pairs.get(pairs.len() / 2).copied().unwrap_or(1.0);
    let kernel = |square: f64| (-square / median).exp();
    // Pairs of a draw with itself are left out.
    let mean = |squares: &[Vec<f64>]| {
        let count = squares.len() as f64;
        let total: f64 = squares.iter().flatten().map(|&s| kernel(s)).sum();
        let own: f64 = squares.iter().enumerate().map(|(i, row)| kernel(row[i])).sum();
        (total - own) / (count * (count - 1.0))
    };
    let cross: f64 = squared_distances(&a, &b)?.iter().flatten().map(|&s| kernel(s)).sum();
    Ok(mean(&squared_distances(&a, &a)?) + mean(&within) - 2.0 * cross / (count_a * count_b) as f64)
}

/// Kernel Stein discrepancy of draws `[S, D]` from the density with the score `scores` `[S, D]` at them, by the inverse
/// multiquadric kernel (1 + |x - y|^2)^-1/2 (Gorham and Mackey 2017): (1 / S) sqrt(sum of the Stein kernel / D). It needs no
/// exact draws, and does not see that an isolated mode is missing.
///
/// # Errors
/// Draws and scores of different shapes.
pub fn score_ksd(draws: &Tensor, scores: &Tensor) -> Result<f64> {
    let (x, s) = (draws.to_dtype(DType::F64)?, scores.to_dtype(DType::F64)?);
    let (count, dim) = x.dims2()?;
    let own = (&x * &s)?.sum_keepdim(1)?;
    let cross = s.matmul(&x.t()?)?;
    let products = s.matmul(&s.t()?)?;
    // (s(x) - s(y)) . (x - y)
    let mixed = (own.broadcast_add(&own.t()?)? - (&cross + cross.t()?)?)?;
    let squares = squared_distances(&x, &x)?;
    let (mixed, products) = (mixed.read_rows::<f64>()?, products.read_rows::<f64>()?);
    let stein = |i: usize, j: usize| {
        let base = 1.0 + squares[i][j];
        let (first, third) = (base.sqrt().recip(), base.powf(-1.5));
        products[i][j] * first + (mixed[i][j] + dim as f64) * third - 3.0 * squares[i][j] * third / base
    };
    let total: f64 = (0..count).flat_map(|i| (0..count).map(move |j| (i, j))).map(|(i, j)| stein(i, j)).sum();
    Ok((total.max(0.0) / dim as f64).sqrt() / count as f64)
}

fn squared_distances(a: &Tensor, b: &Tensor) -> Result<Vec<Vec<f64>>> {
    let (left, right) = (a.sqr()?.sum_keepdim(1)?, b.sqr()?.sum_keepdim(1)?.t()?);
    let squares = (left.broadcast_add(&right)? - (a.matmul(&b.t()?)? * 2.0)?)?;
    Ok(squares.relu()?.read_rows::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(seed: u64, mean: f64, std: f64) -> Tensor {
        ((Rng::new(seed).normals(&[2000, 3], &Compute::cpu_f64()).unwrap() * std).unwrap() + mean).unwrap()
    }

    /// Between N(0, I) and N(m, s^2 I) every slice has W2^2 = (m . theta)^2 + (s - 1)^2; over directions |m|^2 / 3.
    #[test]
    fn sliced_distance_of_gaussians() {
        let exact = (0.25f64 + 0.25).sqrt();
        let found = sliced_w2(&normals(1, 0.5, 1.5), &normals(2, 0.0, 1.0)).unwrap();
        assert!((found / exact - 1.0).abs() < 0.05, "{found} {exact}");
        assert!(sliced_w2(&normals(1, 0.0, 1.0), &normals(2, 0.0, 1.0)).unwrap() < 0.1);
    }

    /// Of draws of the density itself it falls as 1 / sqrt(S); of others it does not.
    #[test]
    fn stein_discrepancy_tells_a_density_from_another() {
        let of = |mean: f64, std: f64| {
            let draws = normals(1, mean, std).narrow(0, 0, 1000).unwrap();
            score_ksd(&draws, &draws.neg().unwrap()).unwrap()
        };
        let [right, shifted, narrow] = [of(0.0, 1.0), of(0.5, 1.0), of(0.0, 0.6)];
        assert!(right < 0.06 && shifted > 4.0 * right && narrow > 3.0 * right, "{right} {shifted} {narrow}");
    }

    /// E k(x, y) of Gaussians is a Gaussian integral.
    #[test]
    fn discrepancy_of_gaussians() {
        let (a, b) = (normals(1, 0.5, 1.0), normals(2, 0.0, 1.0));
        // The median squared distance of N(0, I_3) pairs is twice the median of chi^2_3.
        let h2: f64 = 2.366;
        let mean = |shift: f64| (h2 / (h2 + 2.0)).powf(1.5) * (-shift / (2.0 * (h2 + 2.0))).exp();
        let exact = 2.0 * mean(0.0) - 2.0 * mean(0.75);
        let found = mmd2(&a, &b).unwrap();
        assert!((found / exact - 1.0).abs() < 0.15, "{found} {exact}");
        assert!(mmd2(&normals(3, 0.0, 1.0), &b).unwrap().abs() < 2e-3);
    }
}
