//! Synthetic data: the visibilities of an image behind station gains, baseline errors and thermal noise.

use std::{collections::BTreeMap, f64::consts::PI};

use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use super::{
    Observation,
    average::{scans, time_stamps},
    fourier::Pulse,
    products::model_visibilities,
};
use crate::{Error, Result, grid::Grid, rng::Rng};

/// For how long a station keeps its random phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PhaseGains {
    /// Phases are not corrupted.
    None,
    /// One scan: like data after fringe fitting and phase calibration within the scan, which may be scan-averaged.
    #[default]
    Scan,
    /// One time stamp: such data must not be averaged in time.
    Stamp,
}

/// Standard deviations of a station's log amplitude gain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GainSpread {
    /// Of its constant part.
    pub offset: f64,
    /// From scan to scan.
    pub scatter: f64,
}

/// Standard deviations of the log amplitude gains of all stations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GainSpreads {
    /// Of the constant part of a station's. Default: 0.1.
    pub offset: f64,
    /// From scan to scan. Default: 0.05.
    pub scatter: f64,
    /// Those of single stations, by their code in the file. Default: 0.2 and 0.2 of `LM`, whose gain at 230 GHz changed with pointing
    /// and focus in 2017.
    pub stations: BTreeMap<String, GainSpread>,
}

impl Default for GainSpreads {
    fn default() -> Self {
        let large = ("LM".to_owned(), GainSpread { offset: 0.2, scatter: 0.2 });
        Self { offset: 0.1, scatter: 0.05, stations: [large].into() }
    }
}

impl GainSpreads {
    /// Perfect stations.
    pub const NONE: Self = Self { offset: 0.0, scatter: 0.0, stations: BTreeMap::new() };

    /// Those of the station of that code.
    pub fn of(&self, code: &str) -> GainSpread {
        let usual = GainSpread { offset: self.offset, scatter: self.scatter };
        self.stations.get(code).copied().unwrap_or(usual)
    }

    /// # Errors
    /// A spread outside 0 to 3, or a station that `observation` lacks; `place` names the setting.
    pub fn check(&self, observation: &Observation, place: &str) -> Result<()> {
        let usual = GainSpread { offset: self.offset, scatter: self.scatter };
        for spread in self.stations.values().chain([&usual]) {
            for value in [spread.offset, spread.scatter] {
                if !(0.0..=3.0).contains(&value) {
                    return Err(Error::config(place, format!("{value} is not between 0 and 3")));
                }
            }
        }
        let is_there = |code: &str| observation.stations.iter().any(|station| station.code == code);
        let given = self.stations.keys().filter(|code| !Self::default().stations.contains_key(*code));
        match given.into_iter().find(|code| !is_there(code)) {
            None => Ok(()),
            Some(code) => {
                let codes: Vec<_> =
                    observation.stations.iter().map(|station| station.code.as_str()).collect();
                let message = format!("no station `{code}`; the file has {}", codes.join(", "));
                Err(Error::config(format!("{place}.stations"), message))
            }
        }
    }
}

/// Random station gains and baseline errors; a baseline measures g_1 conj(g_2) (1 + e) V.
#[derive(Debug, Clone, PartialEq)]
pub struct GainModel {
    /// Of a station's log amplitudes.
    pub amplitudes: GainSpreads,
    /// How long a phase, drawn from the full circle, lasts.
    pub phases: PhaseGains,
    /// Standard deviation of the real and of the imaginary part of a baseline's error e in each scan, which does not
    /// cancel in closures: what `vlbi.systematic` allows for.
    pub systematic: f64,
}

impl GainModel {
    /// Perfect stations.
    pub const NONE: Self = Self { amplitudes: GainSpreads::NONE, phases: PhaseGains::None, systematic: 0.0 };

    /// The factor of each visibility, g_1 conj(g_2) (1 + e).
    fn draw(&self, observation: &Observation, rng: &Rng) -> Vec<Complex64> {
        let stations = observation.stations.len();
        let spreads = || observation.stations.iter().map(|station| self.amplitudes.of(&station.code));
        let normals = |stream: &str, index: usize, sigma: fn(GainSpread) -> f64| -> Vec<f64> {
            let mut rng = rng.stream(stream, index as u64);
            spreads().map(|spread| sigma(spread) * rng.normal()).collect()
        };
        let angles = |index: usize| -> Vec<f64> {
            let mut rng = rng.stream("phase", index as u64);
            (0..stations).map(|_| PI * (2.0 * rng.uniform() - 1.0)).collect()
        };
        let offsets = normals("offset", 0, |spread| spread.offset);
        let mut gains = vec![Complex64::ONE; observation.visibilities.len()];
        for (index, scan) in scans(observation).into_iter().enumerate() {
            let scatter = normals("scatter", index, |spread| spread.scatter);
            for k in scan {
                let log = observation.visibilities[k].stations.map(|s| offsets[s] + scatter[s]);
                gains[k] *= (log[0] + log[1]).exp();
            }
        }
        self.add_baseline_errors(observation, rng, &mut gains);
        let stretches = match self.phases {
            PhaseGains::None => Vec::new(),
            PhaseGains::Scan => scans(observation),
            PhaseGains::Stamp => time_stamps(observation),
        };
        for (index, stretch) in stretches.into_iter().enumerate() {
            let phases = angles(index);
            for k in stretch {
                let [a, b] = observation.visibilities[k].stations;
                gains[k] *= Complex64::cis(phases[a] - phases[b]);
            }
        }
        gains
    }

    fn add_baseline_errors(&self, observation: &Observation, rng: &Rng, gains: &mut [Complex64]) {
        for (index, scan) in scans(observation).into_iter().enumerate() {
            let mut rng = rng.stream("systematic", index as u64);
            let mut errors = BTreeMap::new();
            for k in scan {
                let error = errors
                    .entry(observation.visibilities[k].stations)
                    .or_insert_with(|| self.systematic * Complex64::new(rng.normal(), rng.normal()));
                gains[k] *= 1.0 + *error;
            }
        }
    }
}

/// An image in Jy/pixel, row by row from the north-east.
#[derive(Debug, Clone, Copy)]
pub struct SkyModel<'a> {
    /// Pixels, Jy.
    pub pixels: &'a [f64],
    /// Their grid.
    pub grid: &'a Grid,
    /// Brightness between pixel centres.
    pub pulse: Pulse,
}

/// The data that `like` would hold if the sky were `model`: its coverage and sigmas, gains drawn from `gains`, and
/// thermal noise of those sigmas unless `noise` is false.
///
/// # Errors
/// An image of another size than its grid.
pub fn simulate(
    like: &Observation,
    model: SkyModel<'_>,
    gains: &GainModel,
    noise: bool,
    rng: &Rng,
) -> Result<Observation> {
    let exact = model_visibilities(like, model.pixels, model.grid, model.pulse)?;
    Ok(observe(like, exact, gains, noise, rng))
}

/// The same of visibilities that are known exactly, Jy, one for each of `like`.
pub fn observe(
    like: &Observation,
    exact: Vec<Complex64>,
    gains: &GainModel,
    noise: bool,
    rng: &Rng,
) -> Observation {
    let gains = gains.draw(like, &rng.stream("gains", 0));
    let mut thermal = rng.stream("noise", 0);
    let mut simulated = like.clone();
    for ((row, exact), gain) in simulated.visibilities.iter_mut().zip(exact).zip(gains) {
        row.value = gain * exact;
        if noise {
            row.value += row.sigma * Complex64::new(thermal.normal(), thermal.normal());
        }
    }
    simulated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        instrument::vlbi::{
            array::{Array, Schedule, Source},
            average::{Average, add_systematic, average},
            products::{Fits, closure_phases, log_closure_amplitudes},
        },
        units::MICROARCSECOND,
    };

    fn coverage() -> Observation {
        let source = Source { name: "M87".into(), ra_deg: 187.7, dec_deg: 12.39, mjd: 57848.0 };
        let schedule = Schedule { start: 3.6e3, duration: 2.5e4, scan: 60.0, interval: 1200.0 };
        Array::find("eht2017").unwrap().observe(&source, &schedule).unwrap()
    }

    #[test]
    fn gains_change_visibilities_but_not_closures() {
        let (like, grid) = (coverage(), Grid::sky(8, 80.0 * MICROARCSECOND).unwrap());
        let pixels: Vec<f64> = (0..64).map(|k| 0.01 * (1 + k % 7) as f64).collect();
        let model = SkyModel { pixels: &pixels, grid: &grid, pulse: Pulse::Triangle };
        let amplitudes = GainSpreads { offset: 0.2, scatter: 0.1, ..GainSpreads::NONE };
        let gains = |phases| GainModel { amplitudes: amplitudes.clone(), phases, systematic: 0.0 };
        let clean = simulate(&like, model, &GainModel::NONE, false, &Rng::new(1)).unwrap();
        let truth: Vec<Complex64> = clean.visibilities.iter().map(|row| row.value).collect();
        for phases in [PhaseGains::Scan, PhaseGains::Stamp] {
            let data = simulate(&like, model, &gains(phases), false, &Rng::new(1)).unwrap();
            let moved =
                data.visibilities.iter().zip(&truth).filter(|(row, v)| (row.value - *v).norm() > 0.01);
            assert!(moved.count() > truth.len() / 2);
            for phase in closure_phases(&data) {
                assert!((phase.value - phase.predicted(&truth)).sin().abs() < 1e-9);
            }
            let mut exact = data.clone();
            exact.visibilities.iter_mut().for_each(|row| row.sigma = 0.0);
            for log in log_closure_amplitudes(&exact) {
                assert!((log.value - log.predicted(&truth)).abs() < 1e-9);
            }
        }
    }

    /// The chi^2 per real part of the errors that [`add_systematic`] expects, on scan averages.
    #[test]
    fn baseline_errors_are_those_that_systematic_noise_allows_for() {
        let (like, grid) = (coverage(), Grid::sky(2, 80.0 * MICROARCSECOND).unwrap());
        let model = SkyModel { pixels: &[0.1, 0.4, 0.2, 0.3], grid: &grid, pulse: Pulse::Delta };
        let errors = GainModel { systematic: 0.03, ..GainModel::NONE };
        let data = simulate(&like, model, &errors, false, &Rng::new(1)).unwrap();
        let mut averaged = average(&data, Average::Scan);
        averaged.visibilities.iter_mut().for_each(|row| row.sigma = 0.0);
        add_systematic(&mut averaged, 0.03);
        let truth = model_visibilities(&averaged, model.pixels, model.grid, model.pulse).unwrap();
        let chi2 = Fits::new(&averaged, &truth).visibility.unwrap();
        assert!((chi2.chi2 - 1.0).abs() < 4.0 * (chi2.count as f64).sqrt().recip(), "{chi2:?}");
    }

    #[test]
    fn noise_is_that_of_the_sigmas_and_of_the_seed() {
        let (like, grid) = (coverage(), Grid::sky(2, 80.0 * MICROARCSECOND).unwrap());
        let model = SkyModel { pixels: &[0.1, 0.4, 0.2, 0.3], grid: &grid, pulse: Pulse::Delta };
        let run = |seed| simulate(&like, model, &GainModel::NONE, true, &Rng::new(seed)).unwrap();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let truth = model_visibilities(&like, model.pixels, model.grid, model.pulse).unwrap();
        let chi2 = Fits::new(&run(1), &truth).visibility.unwrap();
        let error = (chi2.count as f64).sqrt().recip();
        assert!((chi2.chi2 - 1.0).abs() < 4.0 * error, "{chi2:?}");
    }
}
