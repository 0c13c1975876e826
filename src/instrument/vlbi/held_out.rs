//! Baselines that the image is not fitted to, and how well the samples foretell them.

use std::{collections::BTreeMap, collections::BTreeSet};

use ndarray::{ArrayView1, ArrayView2};
use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use super::{
    Observation, Visibility,
    closure::above_noise,
    likelihood::wrap,
    problem::is_intra_site,
    products::{MeasuredClosure, closure_phases, log_closure_amplitudes},
};
use crate::{
    Error, Result,
    instrument::held_out::{Datum, Foretold},
    rng::Rng,
};

/// What is left out of the fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HoldOut {
    /// Baselines at random until they hold this fraction of the visibilities.
    Fraction(f64),
    /// All baselines of a station (`AZ`) or one baseline (`AA-AZ`).
    Named(String),
}

/// Stations of the baselines that are left out, the smaller index first.
pub type Baselines = BTreeSet<[usize; 2]>;

impl HoldOut {
    /// The baselines that are left out of `observation`; `rng` chooses those of a fraction.
    ///
    /// # Errors
    /// A fraction outside 0 to 1/2, a station that is not there, or nothing left to fit.
    pub fn baselines(&self, observation: &Observation, rng: &mut Rng) -> Result<Baselines> {
        let rows = || observation.visibilities.iter().filter(|row| !is_intra_site(row));
        let mut all: Vec<[usize; 2]> = rows().map(baseline).collect::<BTreeSet<_>>().into_iter().collect();
        let held: Baselines = match self {
            Self::Fraction(fraction) if !(*fraction > 0.0 && *fraction <= 0.5) => {
                let problem = format!("{fraction} is not a fraction up to 0.5; write for example 0.1");
                return Err(Error::config(PLACE, problem));
            }
            Self::Fraction(fraction) => {
                let (mut held, mut count) = (BTreeSet::new(), 0);
                while (count as f64) < fraction * rows().count() as f64 && !all.is_empty() {
                    let chosen = all.swap_remove(rng.below(all.len()));
                    count += rows().filter(|row| baseline(row) == chosen).count();
                    held.insert(chosen);
                }
                held
            }
            Self::Named(name) => {
                let named =
                    name.split('-').map(|code| station(observation, code)).collect::<Result<Vec<_>>>()?;
                all.retain(|pair| named.iter().all(|station| pair.contains(station)));
                all.into_iter().collect()
            }
        };
        match rows().any(|row| held.contains(&baseline(row))) {
            true => Ok(held),
            false => Err(Error::config(
                PLACE,
                "no visibility is left out; name a station or a baseline of the data",
            )),
        }
    }
}

const PLACE: &str = "vlbi.hold_out";

fn station(observation: &Observation, code: &str) -> Result<usize> {
    let codes = || observation.stations.iter().map(|station| station.code.as_str());
    codes().position(|other| other == code).ok_or_else(|| {
        let known = codes().collect::<Vec<_>>().join(", ");
        Error::config(PLACE, format!("`{code}` is no station of the data; there are {known}"))
    })
}

fn baseline(row: &Visibility) -> [usize; 2] {
    let [a, b] = row.stations;
    [a.min(b), a.max(b)]
}

/// The observation without the baselines that are held out.
pub fn without(observation: &Observation, held: &Baselines) -> Observation {
    let mut kept = observation.clone();
    kept.visibilities.retain(|row| !held.contains(&baseline(row)));
    kept
}

/// Closures of `full` through a held-out baseline, foretold by the visibilities `[S, M]` of every sample in the order of
/// `full`; by data product.
pub fn foretold(
    full: &Observation,
    held: &Baselines,
    snr_cut: f64,
    predicted: ArrayView2<Complex64>,
) -> BTreeMap<String, Foretold> {
    let (bright, numbers) = above_noise(full, snr_cut);
    let is_held = |index: usize| held.contains(&baseline(&full.visibilities[index]));
    let through = |terms: &[(usize, f64)]| terms.iter().any(|(index, _)| is_held(*index));
    let phases = closure_phases(&bright).into_iter().map(|closure| closure.renumbered(&numbers));
    let logs = log_closure_amplitudes(&bright).into_iter().map(|closure| closure.renumbered(&numbers));
    let phases: Vec<Datum> = phases
        .filter(|closure| through(&closure.closure.terms))
        .map(|closure| datum(&closure, predicted, Complex64::arg, wrap))
        .collect();
    let logs: Vec<Datum> = logs
        .filter(|closure| through(&closure.closure.terms))
        .map(|closure| datum(&closure, predicted, |value| value.norm().ln(), |difference| difference))
        .collect();
    let named = [("closure_phase", phases), ("log_closure_amplitude", logs)];
    named
        .into_iter()
        .filter_map(|(name, data)| Some((name.to_string(), Foretold::together(&data)?)))
        .collect()
}

/// A closure against every sample; `of` is what it adds up of visibilities.
fn datum<const N: usize>(
    measured: &MeasuredClosure<N>,
    predicted: ArrayView2<Complex64>,
    of: impl Fn(Complex64) -> f64,
    wrapped: impl Fn(f64) -> f64,
) -> Datum {
    let closure = |row: ArrayView1<Complex64>| -> f64 {
        measured.closure.terms.iter().map(|(index, factor)| factor * of(row[*index])).sum()
    };
    let differences: Vec<f64> =
        predicted.outer_iter().map(|row| wrapped(measured.value - closure(row))).collect();
    Datum::new(&differences, &vec![measured.sigma.powi(2); differences.len()], wrapped)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::instrument::vlbi::{
        array::{Array, Schedule, Source},
        gains::{GainModel, observe},
    };

    /// Unit visibilities with noise.
    fn observation() -> Observation {
        let source = Source { name: "M87".into(), ra_deg: 187.7, dec_deg: 12.39, mjd: 57848.0 };
        let schedule = Schedule { start: 3.6e3, duration: 2.5e4, scan: 60.0, interval: 1200.0 };
        let coverage = Array::find("eht2017").unwrap().observe(&source, &schedule).unwrap();
        let exact = vec![Complex64::from(1.0); coverage.visibilities.len()];
        observe(&coverage, exact, &GainModel::NONE, true, &Rng::new(1))
    }

    #[test]
    fn stations_baselines_and_fractions_are_left_out() {
        let data = observation();
        let of = |hold_out: HoldOut| hold_out.baselines(&data, &mut Rng::new(1));
        let named = |name: &str| of(HoldOut::Named(name.into()));
        let code = |index: usize| data.stations[index].code.clone();
        let [a, b] = named("AZ").unwrap().first().copied().unwrap();
        assert!([code(a), code(b)].contains(&"AZ".to_string()));
        let one = named(&format!("{}-{}", code(b), code(a))).unwrap();
        assert_eq!(one.into_iter().collect::<Vec<_>>(), [[a, b]]);
        let tenth = without(&data, &of(HoldOut::Fraction(0.1)).unwrap());
        let left = tenth.visibilities.len() as f64 / data.visibilities.len() as f64;
        assert!((0.75..0.95).contains(&left), "{left}");
        assert!(named("XX").unwrap_err().to_string().contains("AZ") && of(HoldOut::Fraction(0.7)).is_err());
    }

    /// Samples that know the truth have chi-square 1; those that are as uncertain as they are wrong a predictive one of 1.
    #[test]
    fn predictions_are_judged_by_their_own_spread() {
        let data = observation();
        let held = HoldOut::Named("AZ".into()).baselines(&data, &mut Rng::new(1)).unwrap();
        let exact = Array2::from_elem((40, data.visibilities.len()), Complex64::from(1.0));
        let found = foretold(&data, &held, 3.0, exact.view());
        let phase = &found["closure_phase"];
        assert!(phase.count > 10 && (phase.mean - 1.0).abs() < 0.4, "{} {}", phase.count, phase.mean);
        assert!((phase.predictive - phase.mean).abs() < 1e-9);
        let mut rng = Rng::new(2);
        let loose = exact.mapv(|value| value + 0.2 * Complex64::new(rng.normal(), rng.normal()));
        let loose = &foretold(&data, &held, 3.0, loose.view())["closure_phase"];
        assert!(
            loose.mean > 2.0 * phase.mean && loose.predictive < 1.0,
            "{} {}",
            loose.mean,
            loose.predictive
        );
        let mut wrong = exact;
        for (row, mut column) in data.visibilities.iter().zip(wrong.columns_mut()) {
            if held.contains(&baseline(row)) {
                column.mapv_inplace(|_| Complex64::I);
            }
        }
        assert!(foretold(&data, &held, 3.0, wrong.view())["closure_phase"].predictive > 10.0);
    }
}
