//! Images moved onto a known one by whole pixels, for data that do not measure position.

use rustfft::num_complex::Complex64;

use crate::tensor::fft::Fft2;

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

fn roll(image: &[f64], [rows, columns]: [usize; 2], [down, across]: [usize; 2]) -> Vec<f64> {
    let source =
        |i: usize| (i / columns + rows - down) % rows * columns + (i % columns + columns - across) % columns;
    (0..image.len()).map(|i| image[source(i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_copy_falls_onto_the_image() {
        let image: Vec<f64> = (0..48).map(|i| f64::from((i * i * 7) % 31)).collect();
        let copy = roll(&image, [6, 8], [4, 3]);
        assert_ne!(copy, image);
        assert_eq!(Reference::new(&image, [6, 8]).align(&copy), image);
    }
}
