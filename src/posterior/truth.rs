//! Samples against a known image: similarity of the mean, coverage of the intervals, probability score.

use candle_core::Tensor;

use super::{alignment::Reference, diagnostics::Truth};
use crate::{Error, Result, quantile::quantile, tensor::to_host};

/// Pixels count as on source above this fraction of the truth's peak.
pub const ON_SOURCE: f64 = 0.1;

/// Whether samples are moved onto the truth before pixels are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// As they are: the data fix the position.
    None,
    /// Each sample by the whole-pixel circular shift of largest cross-correlation with the truth: closures leave the
    /// position free.
    Shift,
}

/// Compares samples `[S, Z, Y, X]` with `truth` `[Z, Y, X]`, both in the image unit.
///
/// PSNR and SSIM (Wang et al. 2004; Gaussian window of 1.5 pixels, mean over planes) take the truth's peak as data range and judge
/// the mean of the samples; coverage and score are over pixels on source.
///
/// # Errors
/// Shapes that differ, a truth without positive pixels, or several planes that are to be moved.
pub fn compare(samples: &Tensor, truth: &Tensor, alignment: Alignment) -> Result<Truth> {
    let (count, planes, rows, columns) = samples.dims4()?;
    if truth.dims() != [planes, rows, columns] || count == 0 || (planes > 1 && alignment == Alignment::Shift)
    {
        return Err(differ(samples, truth));
    }
    let shape = [rows, columns];
    let truth = to_host(truth)?;
    let peak = truth.iter().copied().fold(0.0, f64::max);
    if !(peak.is_finite() && peak > 0.0) {
        return Err(Error::config("--truth", "the image has no positive pixel"));
    }
    let mut samples: Vec<Vec<f64>> = to_host(samples)?.chunks(truth.len()).map(<[f64]>::to_vec).collect();
    if alignment == Alignment::Shift {
        let onto = Reference::new(&truth, shape);
        samples.iter_mut().for_each(|sample| *sample = onto.align(sample));
    }
    let mean: Vec<f64> =
        (0..truth.len()).map(|i| samples.iter().map(|s| s[i]).sum::<f64>() / samples.len() as f64).collect();
    let error = mean.iter().zip(&truth).map(|(m, t)| (m - t).powi(2)).sum::<f64>() / truth.len() as f64;
    let (mut inside, mut score, mut pixels) = ([0.0; 2], 0.0, 0.0);
    for (i, &value) in truth.iter().enumerate().filter(|(_, value)| **value > ON_SOURCE * peak) {
        let mut column: Vec<f64> = samples.iter().map(|sample| sample[i]).collect();
        for (inside, mass) in inside.iter_mut().zip([0.68, 0.95]) {
            let mut bound = |probability| quantile(&mut column, probability);
            let covered = (bound(0.5 - mass / 2.0)..=bound(0.5 + mass / 2.0)).contains(&value);
            *inside += f64::from(u8::from(covered));
        }
        score += crps(&column, value);
        pixels += 1.0;
    }
    let pairs = mean.chunks(rows * columns).zip(truth.chunks(rows * columns));
    let ssim_of_planes: f64 = pairs.map(|(mean, truth)| ssim(mean, truth, shape, peak)).sum();
    Ok(Truth {
        psnr_db: (error > 0.0).then(|| 10.0 * (peak * peak / error).log10()),
        ssim: Some(ssim_of_planes / planes as f64),
        coverage_68: Some(inside[0] / pixels),
        coverage_95: Some(inside[1] / pixels),
        crps: Some(score / pixels),
    })
}

fn differ(samples: &Tensor, truth: &Tensor) -> Error {
    Error::Shape { what: "truth", expected: samples.dims()[1..].to_vec(), found: truth.dims().to_vec() }
}

/// Fair CRPS of ascending `draws` at `value`: mean |x - t| - sum |x - x'| / (2 L (L - 1)).
pub fn crps(draws: &[f64], value: f64) -> f64 {
    let count = draws.len() as f64;
    let distance = draws.iter().map(|draw| (draw - value).abs()).sum::<f64>() / count;
    if draws.len() < 2 {
        return distance;
    }
    // The sum of |x - x'| over ordered pairs is 2 sum_i (2 i + 1 - L) x_i for ascending x.
    let pairs: f64 = draws.iter().enumerate().map(|(i, x)| (2.0 * i as f64 + 1.0 - count) * x).sum();
    distance - pairs / (count * (count - 1.0))
}

/// Mean structural similarity over the pixels whose window lies inside the image.
fn ssim(a: &[f64], b: &[f64], shape: [usize; 2], range: f64) -> f64 {
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<f64>>();
    let blurred = [a.to_vec(), b.to_vec(), product(a, a), product(b, b), product(a, b)]
        .map(|values| gaussian_window(&values, shape));
    let [ma, mb, aa, bb, ab] = &blurred;
    let local = (0..ma.len()).map(|i| {
        let (va, vb, cov) = (aa[i] - ma[i] * ma[i], bb[i] - mb[i] * mb[i], ab[i] - ma[i] * mb[i]);
        (2.0 * ma[i] * mb[i] + c1) * (2.0 * cov + c2)
            / ((ma[i] * ma[i] + mb[i] * mb[i] + c1) * (va + vb + c2))
    });
    local.sum::<f64>() / ma.len() as f64
}

/// Averages with an 11-pixel Gaussian window of 1.5 pixels (a shorter one in smaller images), where it fits.
fn gaussian_window(values: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let reach = 5.min((rows.min(columns) - 1) / 2);
    let mut window: Vec<f64> =
        (0..=2 * reach).map(|i| (-0.5 * ((i as f64 - reach as f64) / 1.5).powi(2)).exp()).collect();
    let total: f64 = window.iter().sum();
    window.iter_mut().for_each(|w| *w /= total);
    let wide = columns - 2 * reach;
    let across: Vec<f64> = (0..rows * wide)
        .map(|i| window.iter().enumerate().map(|(k, w)| w * values[i / wide * columns + i % wide + k]).sum())
        .collect();
    (0..(rows - 2 * reach) * wide)
        .map(|i| window.iter().enumerate().map(|(k, w)| w * across[i + k * wide]).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, rng::Rng};

    /// Samples and truth drawn from the same distribution: the intervals cover what they promise.
    #[test]
    fn intervals_cover_a_truth_of_their_own_kind() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(9);
        let centre = Tensor::full(5.0, (1, 40, 40), &compute.device).unwrap();
        let draws = (rng.normals(&[200, 1, 40, 40], &compute).unwrap() + 5.0).unwrap();
        let truth = (rng.normals(&[1, 40, 40], &compute).unwrap() + centre).unwrap();
        let found = compare(&draws, &truth, Alignment::None).unwrap();
        assert!((found.coverage_68.unwrap() - 0.68).abs() < 0.04, "{found:?}");
        assert!((found.coverage_95.unwrap() - 0.95).abs() < 0.02, "{found:?}");
        // CRPS of N(0, 1) averaged over its own draws is 1/sqrt(pi).
        assert!((found.crps.unwrap() - std::f64::consts::PI.powf(-0.5)).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn fair_score_of_two_draws() {
        assert!((crps(&[1.0, 4.0], 2.0) - (1.5 - 1.5)).abs() < 1e-15);
        assert_eq!(crps(&[1.0], 3.0), 2.0);
    }

    /// A shifted copy is recognised; without alignment it is not.
    #[test]
    fn alignment_undoes_a_shift() {
        let compute = Compute::cpu_f64();
        let blob = |row: f64, column: f64| -> Vec<f64> {
            (0..600)
                .map(|i| {
                    (-0.1 * (((i / 30) as f64 - row).powi(2) + ((i % 30) as f64 - column).powi(2))).exp()
                })
                .collect()
        };
        let truth = compute.tensor(blob(9.0, 12.0), &[1, 20, 30]).unwrap();
        let samples = compute.tensor([blob(12.0, 7.0), blob(8.0, 15.0)].concat(), &[2, 1, 20, 30]).unwrap();
        let moved = compare(&samples, &truth, Alignment::Shift).unwrap();
        let still = compare(&samples, &truth, Alignment::None).unwrap();
        assert!(moved.psnr_db.unwrap() > 50.0 && moved.ssim.unwrap() > 0.999, "{moved:?}");
        assert!(still.psnr_db.unwrap() < 25.0 && still.ssim.unwrap() < 0.9, "{still:?}");
    }

    /// Value of scikit-image 0.22 `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    /// data_range=2)` cropped by 5 pixels.
    #[test]
    fn similarity_agrees_with_scikit_image() {
        let image = |phase: f64| -> Vec<f64> {
            (0..24 * 20)
                .map(|i| 1.0 + (0.31 * (i / 20) as f64 + 0.17 * (i % 20) as f64 + phase).sin())
                .collect()
        };
        let found = ssim(&image(0.0), &image(0.4), [24, 20], 2.0);
        assert!((found - 0.7860919875186111).abs() < 1e-7, "{found}");
    }

    /// Planes count alike: two that are both as similar as one alone.
    #[test]
    fn planes_are_compared_together() {
        let compute = Compute::cpu_f64();
        let draws = (Rng::new(3).normals(&[20, 1, 16, 16], &compute).unwrap() + 5.0).unwrap();
        let truth = (Rng::new(4).normals(&[1, 16, 16], &compute).unwrap() + 5.0).unwrap();
        let twice = |x: &Tensor, axis: usize| Tensor::cat(&[x, x], axis).unwrap();
        let one = compare(&draws, &truth, Alignment::None).unwrap();
        let two = compare(&twice(&draws, 1), &twice(&truth, 0), Alignment::None).unwrap();
        assert!((one.ssim.unwrap() - two.ssim.unwrap()).abs() < 1e-12);
        assert!((one.psnr_db.unwrap() - two.psnr_db.unwrap()).abs() < 1e-9);
        assert_eq!(one.coverage_68, two.coverage_68);
        assert!(compare(&twice(&draws, 1), &twice(&truth, 0), Alignment::Shift).is_err());
    }

    #[test]
    fn shapes_must_agree() {
        let compute = Compute::cpu();
        let samples = Rng::new(1).normals(&[3, 1, 8, 8], &compute).unwrap();
        let truth = Rng::new(1).normals(&[1, 8, 9], &compute).unwrap();
        assert!(compare(&samples, &truth, Alignment::None).is_err());
        let dark = Tensor::zeros((1, 8, 8), compute.dtype, &compute.device).unwrap();
        assert!(compare(&samples, &dark, Alignment::None).is_err());
    }
}
