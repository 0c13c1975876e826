//! An order of images in which neighbours are alike, for resampling that leaves every group its share.
//!
//! Systematic resampling gives each stretch of the order as many places as its weight asks for, but for one (Gerber, Chopin and
//! Whiteley 2019, "Negative association, ordering and convergence of resampling methods"). They order along a Hilbert curve, which
//! says little in many dimensions; here groups are halved at the median along their direction of largest variance, again and again.

use candle_core::{DType, Tensor};

use crate::{Result, transfer::Transfer};

/// Power iterations for the direction of largest variance.
const ITERATIONS: usize = 3;
/// Groups of at most so many images are not halved.
const SMALLEST: usize = 4;

/// Indices of the images `[K, Z, Y, X]` such that neighbours are alike.
///
/// # Errors
/// Those of the tensor library.
pub(crate) fn alike(images: &Tensor) -> Result<Vec<usize>> {
    let flat = images.flatten_from(1)?.to_dtype(DType::F32)?;
    let rows = flat.read_rows::<f32>()?;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    halve(&rows, &mut order);
    Ok(order)
}

/// Sorts a group along its direction of largest variance, then each half likewise.
fn halve(rows: &[Vec<f32>], group: &mut [usize]) {
    if group.len() <= SMALLEST {
        return;
    }
    let direction = widest(rows, group);
    let mut placed: Vec<(f32, usize)> = group.iter().map(|&i| (dot(&rows[i], &direction), i)).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    group.iter_mut().zip(placed).for_each(|(place, (_, index))| *place = index);
    let (low, high) = group.split_at_mut(group.len() / 2);
    halve(rows, low);
    halve(rows, high);
}

/// Direction of largest variance of a group, about: power iterations from the image that lies farthest from the mean.
fn widest(rows: &[Vec<f32>], group: &[usize]) -> Vec<f32> {
    let size = rows[group[0]].len();
    let mut mean = vec![0.0; size];
    group.iter().for_each(|&i| add(&mut mean, &rows[i], 1.0 / group.len() as f32));
    let offset = |i: usize| rows[i].iter().zip(&mean).map(|(x, m)| x - m).collect::<Vec<f32>>();
    let farther = |a: Vec<f32>, b: Vec<f32>| if dot(&b, &b) > dot(&a, &a) { b } else { a };
    let mut direction = group.iter().map(|&i| offset(i)).fold(vec![0.0; size], farther);
    for _ in 0..ITERATIONS {
        let centre = dot(&mean, &direction);
        let mut next = vec![0.0; size];
        for &i in group {
            let along = dot(&rows[i], &direction) - centre;
            next.iter_mut().zip(&rows[i]).zip(&mean).for_each(|((n, x), m)| *n += along * (x - m));
        }
        let length = dot(&next, &next).sqrt();
        if !(length.is_finite() && length > 0.0) {
            break;
        }
        direction = next.iter().map(|n| n / length).collect();
    }
    direction
}

fn add(sum: &mut [f32], row: &[f32], weight: f32) {
    sum.iter_mut().zip(row).for_each(|(s, x)| *s += weight * x);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, posterior::resampling::systematic_along, rng::Rng};

    /// 512 images of five groups in random order: resampling along the order gives each its share of 64 places but for
    /// one or two, where independent draws scatter by 3.
    #[test]
    fn groups_keep_their_shares() {
        let (compute, mut rng) = (Compute::cpu_f64(), Rng::new(1));
        let centres: Vec<Vec<f64>> = (0..5).map(|_| (0..30).map(|_| 4.0 * rng.normal()).collect()).collect();
        for _ in 0..20 {
            let groups: Vec<usize> = (0..512).map(|_| rng.below(5)).collect();
            let values = groups.iter().flat_map(|&g| centres[g].clone()).map(|c| c + rng.normal()).collect();
            let images = compute.tensor(values, &[512, 1, 1, 30]).unwrap();
            let order = alike(&images).unwrap();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..512));
            let chosen = systematic_along(&order, &[0.0; 512], 64, rng.uniform());
            for group in 0..5 {
                let share = groups.iter().filter(|g| **g == group).count() as f64 / 8.0;
                let places = chosen.iter().filter(|i| groups[**i] == group).count() as f64;
                assert!((places - share).abs() <= 2.0, "group {group}: {places} places, share {share}");
            }
        }
    }
}
