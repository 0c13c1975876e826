//! Images moved onto each other by whole pixels, for data that do not measure position.

use candle_core::Tensor;
use rustfft::num_complex::Complex64;

use super::hmc::to_host;
use crate::{Result, tensor::fft::Fft2};

/// Rounds of alignment onto the mean; the mean sharpens in each, and no sample moves after a few.
const ROUNDS: usize = 4;

/// An image that others are moved onto.
pub struct Reference {
    plan: Fft2<f64>,
    modes: Vec<Complex64>,
    shape: [usize; 2],
}

impl Reference {
    /// `image` `[Y X]` of the given rows and columns.
    pub fn new(image: &[f64], shape: [usize; 2]) -> Self {
        let plan = Fft2::new(shape);
        let modes = modes(&plan, image);
        Self { plan, modes, shape }
    }

    /// Whole-pixel circular shift (down, across) of `image` that correlates best with the reference.
    pub fn shift(&self, image: &[f64]) -> [usize; 2] {
        let image = modes(&self.plan, image);
        let mut correlation: Vec<Complex64> =
            self.modes.iter().zip(image).map(|(onto, image)| onto * image.conj()).collect();
        self.plan.inverse(&mut correlation);
        let best = (0..correlation.len()).max_by(|&a, &b| correlation[a].re.total_cmp(&correlation[b].re));
        let best = best.unwrap_or(0);
        [best / self.shape[1], best % self.shape[1]]
    }

    /// `image` after that shift.
    pub fn align(&self, image: &[f64]) -> Vec<f64> {
        roll(image, self.shape, self.shift(image))
    }
}

fn modes(plan: &Fft2<f64>, values: &[f64]) -> Vec<Complex64> {
    let mut modes: Vec<Complex64> = values.iter().map(|&v| Complex64::new(v, 0.0)).collect();
    plan.forward(&mut modes);
    modes
}

/// Images `[..., Y, X]`, each shifted by whole pixels onto the mean of all, which is then moved so that its centre of
/// brightness above `dark` lies at the array's centre.
///
/// # Errors
/// Those of the tensor library.
pub fn align(images: &Tensor, dark: f64) -> Result<Tensor> {
    let [.., rows, columns] = *images.dims() else { return Ok(images.clone()) };
    let pixels = rows * columns;
    let mut values: Vec<Vec<f64>> = to_host(images)?.chunks(pixels).map(<[f64]>::to_vec).collect();
    let mean = |values: &[Vec<f64>]| -> Vec<f64> {
        (0..pixels).map(|i| values.iter().map(|image| image[i]).sum::<f64>() / values.len() as f64).collect()
    };
    for _ in 0..ROUNDS {
        let onto = Reference::new(&mean(&values), [rows, columns]);
        values.iter_mut().for_each(|image| *image = onto.align(image));
    }
    let centred = centre(&mean(&values), [rows, columns], dark);
    let moved = values.iter().flat_map(|image| roll(image, [rows, columns], centred));
    let moved: Vec<f64> = moved.collect();
    Ok(Tensor::from_vec(moved, images.dims(), images.device())?.to_dtype(images.dtype())?)
}

/// Circular shift (down, across) that takes the centre of brightness to the array's centre.
fn centre(image: &[f64], [rows, columns]: [usize; 2], dark: f64) -> [usize; 2] {
    let weight = |i: usize| (image[i] - dark).max(0.0);
    let total: f64 = (0..image.len()).map(weight).sum();
    let moment = |place: &dyn Fn(usize) -> usize, count: usize| {
        let mean =
            (0..image.len()).map(|i| weight(i) * place(i) as f64).sum::<f64>() / total.max(f64::MIN_POSITIVE);
        let shift = ((count as f64 - 1.0) / 2.0 - mean).round() as isize;
        shift.rem_euclid(count as isize) as usize
    };
    [moment(&|i| i / columns, rows), moment(&|i| i % columns, columns)]
}

fn roll(image: &[f64], [rows, columns]: [usize; 2], [down, across]: [usize; 2]) -> Vec<f64> {
    let source =
        |i: usize| (i / columns + rows - down) % rows * columns + (i % columns + columns - across) % columns;
    (0..image.len()).map(|i| image[source(i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    #[test]
    fn shifted_copies_of_an_image_fall_onto_each_other_at_the_centre() {
        let blob = |y0: f64, x0: f64| {
            (0..256).map(move |i| {
                (-((i / 16) as f64 - y0).powi(2) / 4.0 - ((i % 16) as f64 - x0).powi(2) / 9.0).exp()
            })
        };
        let images: Vec<f64> = blob(4.0, 5.0).chain(blob(6.0, 9.0)).chain(blob(5.0, 7.0)).collect();
        let images = Compute::cpu_f64().tensor(images, &[3, 1, 16, 16]).unwrap();
        let aligned = to_host(&align(&images, 0.0).unwrap()).unwrap();
        let peak = |image: &[f64]| (0..256).max_by(|&a, &b| image[a].total_cmp(&image[b])).unwrap();
        let peaks: Vec<usize> = aligned.chunks(256).map(peak).collect();
        assert!(peaks.iter().all(|p| *p == peaks[0]), "{peaks:?}");
        assert!((7..=8).contains(&(peaks[0] / 16)) && (7..=8).contains(&(peaks[0] % 16)), "{peaks:?}");
    }
}
