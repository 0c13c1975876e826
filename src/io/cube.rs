//! A cube of posterior samples in the instrument's unit, and its pixelwise summaries.

use ndarray::{Array3, Array4, Axis};

use super::stack::Channel;
use crate::{Error, Result, grid::Grid, quantile::quantile};

/// Where on the sky an image lies, and at which frequency and date it was observed.
#[derive(Debug, Clone, PartialEq)]
pub struct SkyFrame {
    /// Source name.
    pub source: String,
    /// Right ascension of the phase centre, degrees.
    pub ra_deg: f64,
    /// Declination of the phase centre, degrees.
    pub dec_deg: f64,
    /// Frequency, Hz.
    pub frequency_hz: f64,
    /// Modified Julian date, days.
    pub mjd: f64,
}

/// Through which channel of which microscope a stack was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MicroscopeFrame {
    /// Name of the image, for example that of its file.
    pub source: String,
    /// Channel: name and emission wavelength where they are known.
    pub channel: Channel,
    /// Numerical aperture of the objective.
    pub numerical_aperture: Option<f64>,
    /// Refractive index of the immersion medium.
    pub refractive_index: Option<f64>,
}

/// What an image shows: a place on the sky, or an object under a microscope.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Pitches of the grid are angles.
    Sky(SkyFrame),
    /// Pitches of the grid are lengths.
    Microscope(MicroscopeFrame),
}

impl Frame {
    /// Name of what is shown.
    pub fn source(&self) -> &str {
        match self {
            Self::Sky(frame) => &frame.source,
            Self::Microscope(frame) => &frame.source,
        }
    }
}

/// What made a cube: enough to make it again.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// Seed of the run.
    pub seed: u64,
    /// Name of the prior.
    pub prior: String,
    /// SHA-256 of the resolved configuration, hexadecimal.
    pub config_sha256: String,
}

/// Posterior samples of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Cube {
    /// Samples `[S, Z, Y, X]` in `unit`; row 0 = north and column 0 = east on the sky.
    pub samples: Array4<f32>,
    /// Chain that each sample was drawn from, `[S]`, ascending.
    pub chains: Vec<u32>,
    /// Pixel grid.
    pub grid: Grid,
    /// Unit of the samples, for example `Jy/pixel`.
    pub unit: String,
    /// What the samples show.
    pub frame: Frame,
    /// What made it.
    pub provenance: Provenance,
}

/// Pixelwise summaries `[Z, Y, X]` of a cube.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Mean over samples.
    pub mean: Array3<f32>,
    /// Standard deviation over samples (divisor S - 1; zero for one sample).
    pub std: Array3<f32>,
    /// 5 % quantile.
    pub q05: Array3<f32>,
    /// 95 % quantile.
    pub q95: Array3<f32>,
}

impl Cube {
    /// The place on the sky.
    ///
    /// # Errors
    /// A cube of a microscope.
    pub fn sky(&self) -> Result<&SkyFrame> {
        match &self.frame {
            Frame::Sky(frame) => Ok(frame),
            Frame::Microscope(_) => Err(Error::config("cube", "is of a microscope, not of the sky")),
        }
    }

    /// The channel of a microscope.
    ///
    /// # Errors
    /// A cube of the sky.
    pub fn microscope(&self) -> Result<&MicroscopeFrame> {
        match &self.frame {
            Frame::Microscope(frame) => Ok(frame),
            Frame::Sky(_) => Err(Error::config("cube", "is of the sky, not of a microscope")),
        }
    }

    /// Pixelwise mean, standard deviation and quantiles.
    ///
    /// # Errors
    /// A cube without samples.
    pub fn summary(&self) -> Result<Summary> {
        let count = self.samples.len_of(Axis(0));
        if count == 0 {
            return Err(Error::config("samples", "the cube holds no samples"));
        }
        let lane = |f: &dyn Fn(&mut [f64]) -> f64| {
            self.samples.map_axis(Axis(0), |values| {
                let mut values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                f(&mut values) as f32
            })
        };
        Ok(Summary {
            mean: lane(&|v| mean(v)),
            std: lane(&|v| standard_deviation(v)),
            q05: lane(&|v| quantile(v, 0.05)),
            q95: lane(&|v| quantile(v, 0.95)),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    if values.len() < 2 { 0.0 } else { (squares / (values.len() - 1) as f64).sqrt() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small cube whose every value is distinct.
    pub(crate) fn example() -> Cube {
        let samples =
            Array4::from_shape_fn((5, 1, 4, 6), |(s, _, y, x)| (s * s) as f32 + 0.1 * (y * 6 + x) as f32);
        Cube {
            samples,
            chains: vec![0, 0, 0, 1, 1],
            grid: Grid { shape: [1, 4, 6], pitch: [1.2e-11; 3] },
            unit: "Jy/pixel".into(),
            frame: Frame::Sky(SkyFrame {
                source: "M87".into(),
                ra_deg: 187.7,
                dec_deg: 12.39,
                frequency_hz: 2.27e11,
                mjd: 57848.0,
            }),
            provenance: Provenance { seed: 7, prior: "blackhole64".into(), config_sha256: "ab".repeat(32) },
        }
    }

    /// The same samples as if a microscope had seen them; what is unknown is left out.
    pub(crate) fn microscope() -> Cube {
        let channel = Channel { name: Some("MT-488".into()), emission: Some(525e-9) };
        let numerical_aperture = Some(1.3);
        let frame =
            MicroscopeFrame { source: "mt".into(), channel, numerical_aperture, refractive_index: None };
        Cube {
            grid: Grid { shape: [1, 4, 6], pitch: [200e-9, 31.3e-9, 31.3e-9] },
            unit: "photo-electrons".into(),
            frame: Frame::Microscope(frame),
            ..example()
        }
    }

    #[test]
    fn summary_matches_hand_computed_statistics() {
        let summary = example().summary().unwrap();
        // Samples at pixel 0 are 0, 1, 4, 9, 16.
        assert!((summary.mean[[0, 0, 0]] - 6.0).abs() < 1e-6);
        assert!((summary.std[[0, 0, 0]] - 43.5_f32.sqrt()).abs() < 1e-5);
        assert!((summary.q05[[0, 0, 0]] - 0.2).abs() < 1e-6);
        assert!((summary.q95[[0, 0, 0]] - 14.6).abs() < 1e-5);
    }
}
