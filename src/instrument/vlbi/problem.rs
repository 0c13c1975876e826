//! From an observation and settings to the posterior's problem: what is averaged, what is left out, what is fitted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Observation, Visibility,
    average::{Average, add_systematic, average},
    fourier::{Fourier, Pulse},
    gains::GainSpreads,
    held_out::HoldOut,
    likelihood::{
        Amplitude, Centroid, ClosurePhase, ComplexVisibility, Known, LogAmplitude, LogClosureAmplitude,
        Product, TotalFlux, Visibilities, short_spacings,
    },
    stations::Stations,
};
use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{Likelihood, Problem, density::Data},
    prior::Scaling,
    units::{self, Angle, MICROARCSECOND},
};

/// Baselines shorter than this, in wavelengths, lie within one site (ALMA-APEX, JCMT-SMA). They see flux from far
/// outside any horizon-scale image.
pub const INTRA_SITE: f64 = 1e8;

/// A kind of data that the image is fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataProduct {
    /// Complex visibilities; for files whose station gains are calibrated.
    Visibility,
    /// Visibility amplitudes; for files whose amplitude gains are calibrated.
    Amplitude,
    /// Log amplitudes behind station gains of which [`Vlbi::gains`] is the prior.
    LogAmplitude,
    /// Closure phases, free of station phases.
    ClosurePhase,
    /// Log closure amplitudes, free of station amplitudes.
    LogClosureAmplitude,
    /// Total flux density of the image.
    Flux,
    /// Centroid of the image at the centre of the field: a convention, since closures leave the position free.
    Centroid,
}

/// What becomes of intra-site baselines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntraSite {
    /// They see the whole source, whose flux density is known, extended emission included: see [`Vlbi::total_flux`].
    /// Closure amplitudes through them tie the amplitudes of long baselines to janskys, and so to the compact flux.
    /// They take no part in other data products.
    #[default]
    Total,
    /// Left out of all data products: their amplitude holds extended emission (0.5 Jy or more for M87) that the
    /// image does not, and a triangle through them has a phase near zero whatever the image.
    Exclude,
    /// Treated like any other baseline; right for a synthetic source without extended emission.
    Keep,
}

/// Settings of a VLBI reconstruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vlbi {
    /// Data products that are fitted. Default: both closures, the flux and the centroid.
    pub data: Vec<DataProduct>,
    /// Averaging in time. Default: scans.
    pub average: Average,
    /// Systematic noise as a fraction of each amplitude, added after averaging. Default: 0.02.
    pub systematic: f64,
    /// What becomes of intra-site baselines. Default: they see the total flux.
    pub intra_site: IntraSite,
    /// Flux density that intra-site baselines see, for example `1.2 Jy`. Default: the median of their amplitudes, which
    /// is right where the gains of these stations are calibrated, as network calibration does.
    pub total_flux: Option<units::Flux>,
    /// Standard deviation of that flux density as a fraction. Default: 0.1.
    pub total_flux_error: f64,
    /// Visibilities with a smaller signal-to-noise ratio form no closure phases, for phases of noise are not Gaussian, and do not
    /// count in the chi-square of log closure amplitudes. Default: 3.
    pub snr_cut: f64,
    /// Standard deviations of the stations' log amplitude gains: the prior of `log_amplitude`, and the gains of simulated data in
    /// calibrations. Default: 0.1 and from scan to scan 0.05, of the LMT 0.2 each.
    pub gains: GainSpreads,
    /// Visibilities with a smaller signal-to-noise ratio form no log closure amplitudes and count in no log amplitudes. Larger values keep of weak visibilities those
    /// that noise has made stronger. Default: 1.
    pub amplitude_snr_cut: f64,
    /// Flux density of the compact source, for example `0.6 Jy`. Default: see [`Vlbi::compact_flux`].
    pub flux: Option<units::Flux>,
    /// Standard deviation of that flux density, for example `0.1 Jy`.
    pub flux_sigma: Option<units::Flux>,
    /// Standard deviation of the centroid along each axis, fraction of the field of view. Default: 0.04.
    pub centroid_sigma: f64,
    /// Brightness between pixel centres. Default: triangle.
    pub pulse: Pulse,
    /// Baselines that the image is not fitted to, to see how well the samples foretell them: a fraction of the data
    /// (`0.1`), a station (`AZ`) or a baseline (`AA-AZ`). Default: none.
    pub hold_out: Option<HoldOut>,
    /// Field of view. Default: `160 uas`.
    pub fov: Angle,
    /// Pixels along each side. Default: 64.
    pub pixels: usize,
}

impl Default for Vlbi {
    fn default() -> Self {
        Self {
            data: vec![
                DataProduct::ClosurePhase,
                DataProduct::LogClosureAmplitude,
                DataProduct::Flux,
                DataProduct::Centroid,
            ],
            average: Average::Scan,
            systematic: 0.02,
            intra_site: IntraSite::default(),
            total_flux: None,
            total_flux_error: 0.1,
            gains: GainSpreads::default(),
            snr_cut: 3.0,
            amplitude_snr_cut: 1.0,
            flux: None,
            flux_sigma: None,
            centroid_sigma: 0.04,
            pulse: Pulse::Triangle,
            hold_out: None,
            fov: Angle(160.0 * MICROARCSECOND),
            pixels: 64,
        }
    }
}

/// A flux density with its uncertainty, Jy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flux {
    /// Expected value.
    pub value: f64,
    /// Standard deviation.
    pub sigma: f64,
}

impl Vlbi {
    /// The image grid.
    ///
    /// # Errors
    /// A field of view that is not positive, or no pixels.
    pub fn grid(&self) -> Result<Grid> {
        /// An image of 4096 x 4096 is far beyond what closures can tell and what a denoiser can hold.
        const LARGEST: usize = 4096;
        if self.pixels > LARGEST {
            return Err(Error::config("vlbi.pixels", format!("{} is too large; use 64", self.pixels)));
        }
        Grid::sky(self.pixels, self.fov.0)
    }

    /// The observation averaged and with systematic noise, all baselines.
    ///
    /// # Errors
    /// A systematic fraction outside 0 to 1, or a cut outside 0 to 100.
    pub fn prepare(&self, observation: &Observation) -> Result<Observation> {
        if !(0.0..1.0).contains(&self.systematic) {
            return Err(Error::config(
                "vlbi.systematic",
                format!("{} is not a fraction; write 0.02 for 2 %", self.systematic),
            ));
        }
        for (name, cut) in
            [("vlbi.snr_cut", self.snr_cut), ("vlbi.amplitude_snr_cut", self.amplitude_snr_cut)]
        {
            if !(0.0..=100.0).contains(&cut) {
                return Err(Error::config(name, format!("{cut} is not between 0 and 100")));
            }
        }
        let mut prepared = average(observation, self.average);
        add_systematic(&mut prepared, self.systematic);
        Ok(prepared)
    }

    /// The prepared observation without what the image is not fitted to.
    ///
    /// # Errors
    /// Those of [`Vlbi::prepare`], or no visibilities left.
    pub fn fitted(&self, observation: &Observation) -> Result<Observation> {
        let mut fitted = self.prepare(observation)?;
        if self.intra_site != IntraSite::Keep {
            fitted.visibilities.retain(|row| !is_intra_site(row));
        }
        match fitted.visibilities.is_empty() {
            true => Err(Error::config("data", "no visibilities between different sites")),
            false => Ok(fitted),
        }
    }

    /// Log closure amplitudes, through intra-site baselines too where they see the total flux.
    fn closures(&self, observation: &Observation, fitted: &Observation) -> Result<LogClosureAmplitude> {
        let cuts = [self.amplitude_snr_cut, self.systematic];
        let closures = LogClosureAmplitude::new(fitted, cuts[0], self.snr_cut, cuts[1])?;
        match self.known(observation)? {
            None => Ok(closures),
            Some(known) => {
                let (all, places) = self.placed(observation)?;
                closures.through(&all, cuts, &places, known)
            }
        }
    }

    /// Log amplitudes, of intra-site baselines too where they see the total flux.
    fn amplitudes(&self, observation: &Observation) -> Result<LogAmplitude> {
        self.gains.check(observation, "vlbi.gains")?;
        let (all, places) = self.placed(observation)?;
        let cuts = [self.amplitude_snr_cut, self.systematic];
        LogAmplitude::new(&all, cuts, &places, self.known(observation)?, &self.gains)
    }

    /// What intra-site baselines see, where they take part with an amplitude that is known.
    pub(super) fn known(&self, observation: &Observation) -> Result<Option<Known>> {
        match self.intra_site {
            IntraSite::Total => self.total_flux(observation),
            IntraSite::Exclude | IntraSite::Keep => Ok(None),
        }
    }

    /// The prepared observation and where the model has each of its visibilities.
    fn placed(&self, observation: &Observation) -> Result<(Observation, Vec<Option<usize>>)> {
        let all = self.prepare(observation)?;
        let mut place = 0..;
        let is_fitted = |row| self.intra_site == IntraSite::Keep || !is_intra_site(row);
        let places =
            all.visibilities.iter().map(|row| if is_fitted(row) { place.next() } else { None }).collect();
        Ok((all, places))
    }

    fn centroid_sigma(&self) -> Result<f64> {
        let sigma = self.centroid_sigma;
        match (1e-3..=1.0).contains(&sigma) {
            true => Ok(sigma),
            false => Err(Error::config("vlbi.centroid_sigma", format!("{sigma} is not within 0.001 to 1"))),
        }
    }

    /// Flux density of the whole source at intra-site spacings, where such baselines were observed.
    ///
    /// # Errors
    /// A flux that is not positive, or an error outside 0.1 % to 100 %.
    pub fn total_flux(&self, observation: &Observation) -> Result<Option<Known>> {
        let error = self.total_flux_error;
        if !(1e-3..=1.0).contains(&error) {
            return Err(Error::config("vlbi.total_flux_error", format!("{error} is not within 0.001 to 1")));
        }
        let flux = match self.total_flux {
            Some(flux) if flux.0 > 0.0 => Some(flux.0),
            Some(flux) => {
                return Err(Error::config("vlbi.total_flux", format!("`{flux}` is not positive")));
            }
            None => intra_site_amplitude(observation),
        };
        Ok(flux.map(|flux| Known { flux, error }))
    }

    /// Flux density of the compact source.
    ///
    /// Without a setting: 0.6 +- 0.1 Jy for M87, a wide bracket of what horizon-scale models of its 2017 data take, since
    /// the intra-site baselines see 1.1-1.2 Jy that include the jet; for other sources the median amplitude of the
    /// intra-site baselines, +- 10 %.
    ///
    /// # Errors
    /// A flux that is not positive, or nothing to take it from.
    pub fn compact_flux(&self, observation: &Observation) -> Result<Flux> {
        let positive = |flux: Option<units::Flux>, place: &str| match flux {
            Some(flux) if flux.0 > 0.0 => Ok(Some(flux.0)),
            Some(flux) => Err(Error::config(place, format!("`{flux}` is not positive"))),
            None => Ok(None),
        };
        let guess = match positive(self.flux, "vlbi.flux")? {
            Some(value) => Flux { value, sigma: 0.1 * value },
            None if is_m87(&observation.source) => Flux { value: 0.6, sigma: 0.1 },
            None => intra_site_flux(observation)?,
        };
        Ok(Flux { sigma: positive(self.flux_sigma, "vlbi.flux_sigma")?.unwrap_or(guess.sigma), ..guess })
    }
}

/// True for a baseline within one site.
pub fn is_intra_site(row: &Visibility) -> bool {
    row.u.hypot(row.v) < INTRA_SITE
}

fn is_m87(source: &str) -> bool {
    let name: String = source.chars().filter(char::is_ascii_alphanumeric).collect();
    ["M87", "3C274", "VIRGOA", "VIRA", "NGC4486"].contains(&name.to_ascii_uppercase().as_str())
}

/// Median amplitude of the intra-site baselines, Jy.
fn intra_site_amplitude(observation: &Observation) -> Option<f64> {
    let rows = observation.visibilities.iter().filter(|row| is_intra_site(row));
    let mut amplitudes: Vec<f64> = rows.map(|row| row.value.norm()).collect();
    amplitudes.sort_by(f64::total_cmp);
    amplitudes.get(amplitudes.len() / 2).copied().filter(|&value| value > 0.0)
}

fn intra_site_flux(observation: &Observation) -> Result<Flux> {
    let value = intra_site_amplitude(observation).ok_or_else(|| {
        let source = &observation.source;
        Error::config(
            "vlbi.flux",
            format!("no intra-site baseline tells the flux of {source}; write for example 1 Jy"),
        )
    })?;
    Ok(Flux { value, sigma: 0.1 * value })
}

/// The posterior's problem of `observation` for a prior whose images are fractions of the total flux.
///
/// `prior` maps the prior's network unit to flux fraction per pixel; the problem's scaling goes on to Jy/pixel with the
/// compact flux. The forward model holds the fitted visibilities and, last, the short spacings.
///
/// # Errors
/// Settings out of range, data that a product cannot be formed from, or no device memory.
pub fn problem(
    observation: &Observation,
    settings: &Vlbi,
    prior: Scaling,
    compute: &Compute,
) -> Result<Problem> {
    let flux = settings.compact_flux(observation)?;
    let fitted = settings.fitted(observation)?;
    let mut uv: Vec<_> = fitted.visibilities.iter().map(|row| [row.u, row.v]).collect();
    uv.extend(short_spacings(settings.fov.0));
    let fourier = Fourier::new(&settings.grid()?, &uv, settings.pulse, compute)?;
    Ok(Problem {
        forward: Arc::new(fourier.behind(Stations::new(&fitted, compute)?)),
        likelihoods: likelihoods(observation, settings)?,
        scaling: Scaling { unit: flux.value * prior.unit, dark: prior.dark },
    })
}

/// The likelihoods of the data products in the order of `settings.data`.
///
/// # Errors
/// Settings out of range, or data that a product cannot be formed from.
pub fn likelihoods(observation: &Observation, settings: &Vlbi) -> Result<Vec<Arc<dyn Likelihood>>> {
    let flux = settings.compact_flux(observation)?;
    let fitted = settings.fitted(observation)?;
    let likelihood = |product: &DataProduct| -> Result<Arc<dyn Likelihood>> {
        let rows = &fitted.visibilities;
        Ok(match product {
            DataProduct::Visibility => measured(ComplexVisibility::new(rows)),
            DataProduct::Amplitude => measured(Amplitude::new(rows)),
            DataProduct::ClosurePhase => measured(ClosurePhase::new(&fitted, settings.snr_cut)?),
            DataProduct::LogAmplitude => measured(settings.amplitudes(observation)?),
            DataProduct::LogClosureAmplitude => measured(settings.closures(observation, &fitted)?),
            DataProduct::Flux => {
                measured(TotalFlux { flux: flux.value, sigma: flux.sigma, spacings: rows.len() })
            }
            DataProduct::Centroid => measured(Centroid {
                flux: flux.value,
                position: [0.0, 0.0],
                sigma: settings.centroid_sigma()?,
                spacings: rows.len(),
            }),
        })
    };
    if settings.data.is_empty() {
        return Err(Error::config("vlbi.data", "no data product; write for example [closure_phase, flux]"));
    }
    settings.data.iter().map(likelihood).collect()
}

fn measured(product: impl Product) -> Arc<dyn Likelihood> {
    Arc::new(Data::new(Visibilities(product)))
}
