//! The solvers by name: their settings, what they need, and how a run gets one.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    compute::Compute,
    instrument::Problem,
    posterior::{
        Solver,
        gibbs::{Gibbs, GibbsSettings},
        langevin::{Langevin, LangevinSettings},
        ppm::{Amortized, FamilySettings, Ppm, PpmSettings},
        rivals::{
            Given, Rival,
            afdps::{AfdpsOde, AfdpsSde, FkCorrector},
            blind_dps::BlindDps,
            daps::Daps,
            davi::Davi,
            ddip::Ddip,
            ddnm::Ddnm,
            ddrm::Ddrm,
            diffpir::Diffpir,
            dps::Dps,
            eps::Eps,
            flow::Flow,
            fps::Fps,
            mcgdiff::Mcgdiff,
            moment_matching::MomentMatching,
            pigdm::Pigdm,
            pmc::Pmc,
            red_diff::RedDiff,
            rlsd::Rlsd,
            sds::Sds,
            tds::Tds,
        },
        sequence::{Continue, PriorDraws, Sequence},
    },
    prior::Denoiser,
    rng::Rng,
};

/// A solver with all its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum SolverSettings {
    /// Principled Posterior Matching, then a correction.
    Ppm {
        /// The variational stage.
        #[serde(default)]
        matching: Box<PpmSettings>,
        /// What makes its particles calibrated draws.
        #[serde(default)]
        correction: CorrectionSettings,
    },
    /// Annealed split Gibbs sampling from draws of the prior.
    Gibbs {
        /// The chains.
        #[serde(default)]
        start: StartSettings,
        /// The sampler.
        #[serde(default)]
        sampling: GibbsSettings,
    },
    /// Annealed kinetic Langevin dynamics from draws of the prior.
    Langevin {
        /// The chains.
        #[serde(default)]
        start: StartSettings,
        /// The sampler.
        #[serde(default)]
        sampling: LangevinSettings,
    },
    /// Diffusion posterior sampling.
    Dps(Dps),
    /// Diffusion posterior sampling with unknown parameters of the instrument.
    BlindDps(BlindDps),
    /// Pseudoinverse-guided diffusion.
    Pigdm(Pigdm),
    /// Moment-matching posterior sampling.
    MomentMatching(MomentMatching),
    /// Denoising diffusion restoration.
    Ddrm(Ddrm),
    /// Denoising diffusion null-space sampling.
    Ddnm(Ddnm),
    /// Plug-and-play restoration by diffusion.
    Diffpir(Diffpir),
    /// Decoupled annealing.
    Daps(Daps),
    /// Monte Carlo guided diffusion.
    Mcgdiff(Mcgdiff),
    /// Filtering posterior sampling.
    Fps(Fps),
    /// Twisted diffusion sampling.
    Tds(Tds),
    /// Guided stochastic particles with Feynman-Kac weights.
    AfdpsSde(AfdpsSde),
    /// Deterministic particles with Feynman-Kac weights.
    AfdpsOde(AfdpsOde),
    /// Unguided particles with Feynman-Kac weights.
    FkCorrector(FkCorrector),
    /// Plug-and-play Monte Carlo.
    Pmc(Pmc),
    /// RED-diff.
    RedDiff(RedDiff),
    /// Score distillation.
    Sds(Sds),
    /// Repulsive score distillation.
    Rlsd(Rlsd),
    /// Particles by the integral divergence.
    Davi(Davi),
    /// A normalising flow.
    Flow(Flow),
    /// Adaptation of the prior's weights to the data.
    Ddip(Ddip),
    /// A network that learns the posterior's denoiser.
    Eps(Eps),
}

/// The variants that are rivals of the literature, each with settings that implement [`Rival`].
macro_rules! rivals {
    ($($variant:ident),*) => {
        impl SolverSettings {
            /// The default settings of all rivals of the literature.
            pub fn rivals() -> Vec<Self> {
                vec![$(Self::$variant(Default::default())),*]
            }

            fn rival(&self) -> Option<&dyn Rival> {
                match self {
                    $(Self::$variant(rival) => Some(rival),)*
                    _ => None,
                }
            }

            fn rival_mut(&mut self) -> Option<&mut dyn Rival> {
                match self {
                    $(Self::$variant(rival) => Some(rival),)*
                    _ => None,
                }
            }
        }
    };
}

rivals!(
    Dps,
    BlindDps,
    Pigdm,
    MomentMatching,
    Ddrm,
    Ddnm,
    Diffpir,
    Daps,
    Mcgdiff,
    Fps,
    Tds,
    AfdpsSde,
    AfdpsOde,
    FkCorrector,
    Pmc,
    RedDiff,
    Sds,
    Rlsd,
    Davi,
    Flow,
    Ddip,
    Eps
);

/// Where chains start that no variational stage precedes: at draws of the prior, near a rough image that explains the data where
/// there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartSettings {
    /// Number of chains.
    pub chains: usize,
    /// Steps of Heun's method for each draw, or evaluations of the reverse diffusion near that image.
    pub draw_steps: usize,
}

impl Default for StartSettings {
    fn default() -> Self {
        Self { chains: 32, draw_steps: 18 }
    }
}

/// Which sampler continues from the particles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Annealed split Gibbs sampling for singular likelihoods, kinetic Langevin dynamics for smooth ones.
    #[default]
    Auto,
    /// Split Gibbs sampling.
    Gibbs,
    /// Kinetic Langevin dynamics.
    Langevin,
    /// None: the particles are the result, and their spread is too small where data are precise.
    None,
}

/// The sampler after the variational stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrectionSettings {
    /// Which one.
    pub kind: Correction,
    /// Settings of split Gibbs sampling.
    pub gibbs: GibbsSettings,
    /// Settings of kinetic Langevin dynamics.
    pub langevin: LangevinSettings,
}

impl Default for CorrectionSettings {
    fn default() -> Self {
        let langevin = LangevinSettings { start_level: 1.0, anneal: 250, ..LangevinSettings::default() };
        Self { kind: Correction::Auto, gibbs: GibbsSettings::default(), langevin }
    }
}

impl Default for SolverSettings {
    fn default() -> Self {
        Self::Ppm { matching: Box::default(), correction: CorrectionSettings::default() }
    }
}

impl SolverSettings {
    /// Name of the solver.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ppm { matching, .. } => matching.family.solver(),
            Self::Gibbs { .. } => "gibbs",
            Self::Langevin { .. } => "langevin",
            other => other.rival().map_or("", |rival| rival.entry().name),
        }
    }

    /// The default settings of the solver `name`, none if there is no such solver.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(family) = FamilySettings::of_solver(name) {
            let matching = PpmSettings { family, ..PpmSettings::default() };
            return Some(Self::Ppm {
                matching: Box::new(matching),
                correction: CorrectionSettings::default(),
            });
        }
        match name {
            "gibbs" => Some(Self::Gibbs { start: Default::default(), sampling: Default::default() }),
            "langevin" => Some(Self::Langevin { start: Default::default(), sampling: Default::default() }),
            _ => Self::rivals().into_iter().find(|settings| settings.name() == name),
        }
    }

    /// Number of chains or particles.
    pub fn chains(&self) -> usize {
        match self {
            Self::Ppm { matching, .. } => matching.particles,
            Self::Gibbs { start, .. } | Self::Langevin { start, .. } => start.chains,
            other => other.clone().rival_mut().map_or(0, |rival| *rival.chains()),
        }
    }

    /// Sets the number of chains or particles.
    pub fn set_chains(&mut self, chains: usize) {
        match self {
            Self::Ppm { matching, .. } => matching.particles = chains,
            Self::Gibbs { start, .. } | Self::Langevin { start, .. } => start.chains = chains,
            other => {
                if let Some(rival) = other.rival_mut() {
                    *rival.chains() = chains;
                }
            }
        }
    }

    /// Why draws do not stand for the posterior even where everything converges, if the settings ask for something else.
    pub fn bias(&self) -> Option<&'static str> {
        match self {
            Self::Ppm { matching, .. } => matching.distance.bias(),
            _ => None,
        }
    }

    /// Largest number of draws that are kept.
    pub fn draws(&self) -> usize {
        let each = match self {
            Self::Ppm { correction, .. } => match correction.kind {
                Correction::None => 1,
                Correction::Langevin => correction.langevin.draws * correction.langevin.cycles,
                Correction::Gibbs => correction.gibbs.draws * correction.gibbs.cycles,
                Correction::Auto => (correction.langevin.draws * correction.langevin.cycles)
                    .max(correction.gibbs.draws * correction.gibbs.cycles),
            },
            Self::Gibbs { sampling, .. } => sampling.draws * sampling.cycles,
            Self::Langevin { sampling, .. } => sampling.draws * sampling.cycles,
            _ => 1,
        };
        each * self.chains()
    }

    /// The solver for a problem; `rng` draws what a solver needs before its first step.
    ///
    /// # Errors
    /// Settings that cannot work, or a prior that the solver cannot use.
    pub fn build(
        &self,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &Rng,
        compute: &Compute,
    ) -> Result<Box<dyn Solver>> {
        let (first, next): (Box<dyn Solver>, Continue) = match self.clone() {
            Self::Ppm { matching, correction } => {
                let first: Box<dyn Solver> = match &matching.family {
                    FamilySettings::Amortized(family) => {
                        Box::new(Amortized::new(family.clone(), *matching, prior, rng, compute)?)
                    }
                    _ => Box::new(Ppm::new(*matching, prior, rng, compute)?),
                };
                match correction.after_ppm(problem.is_singular()) {
                    Some(next) => (first, next),
                    None => return Ok(first),
                }
            }
            Self::Gibbs { start, sampling } => (start.draws(prior, compute)?, gibbs(sampling, SAMPLING)),
            Self::Langevin { start, sampling } => {
                (start.draws(prior, compute)?, langevin(sampling, SAMPLING))
            }
            other => return other.build_rival(&Given { problem, prior, rng, compute }),
        };
        let [z, y, x] = prior.shape();
        let start = Tensor::zeros((self.chains(), z, y, x), compute.dtype, &compute.device)?;
        Ok(Box::new(Sequence::new(first, start, next)?))
    }

    fn build_rival(&self, given: &Given) -> Result<Box<dyn Solver>> {
        match self.rival() {
            Some(rival) => rival.build(given),
            None => Err(Error::config("solver.name", "is no solver; see `antumbra solvers list`")),
        }
    }
}

impl StartSettings {
    fn draws(&self, prior: &dyn Denoiser, compute: &Compute) -> Result<Box<dyn Solver>> {
        Ok(Box::new(PriorDraws::new(prior, self.chains, self.draw_steps, compute)?))
    }
}

impl CorrectionSettings {
    fn after_ppm(self, singular: bool) -> Option<Continue> {
        match self.kind {
            Correction::Auto if !singular => {
                Some(langevin(LangevinSettings { anneal: 0, ..self.langevin }, "solver.correction.langevin"))
            }
            Correction::Auto | Correction::Gibbs => Some(gibbs(self.gibbs, "solver.correction.gibbs")),
            Correction::Langevin => Some(langevin(self.langevin, "solver.correction.langevin")),
            Correction::None => None,
        }
    }
}

/// Section of the settings of a sampler that no variational stage precedes.
const SAMPLING: &str = "solver.sampling";

fn gibbs(settings: GibbsSettings, section: &'static str) -> Continue {
    Box::new(move |start| Ok(Box::new(Gibbs::new(settings.clone(), start).map_err(|e| e.within(section))?)))
}

fn langevin(settings: LangevinSettings, section: &'static str) -> Continue {
    Box::new(move |start| {
        Ok(Box::new(Langevin::new(settings.clone(), start).map_err(|e| e.within(section))?))
    })
}

/// One solver as `antumbra solvers list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Name for `--solver`.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What it needs of prior and likelihood.
    pub needs: &'static [&'static str],
}

/// All solvers, the default first.
pub fn catalogue() -> Vec<Entry> {
    let own = [
        Entry {
            name: "ppm",
            summary: "Principled Posterior Matching with particles, then split Gibbs or Langevin correction",
            needs: &["trainable prior", "likelihood gradient"],
        },
        Entry {
            name: "ppm_mixture",
            summary: "the same with a mixture of Gaussians, whose denoiser is known in closed form: no auxiliary network",
            needs: &["denoiser gradient", "likelihood gradient"],
        },
        Entry {
            name: "ppm_generator",
            summary: "the same with a network that makes images of noise: as many draws as wanted",
            needs: &["trainable prior", "likelihood gradient"],
        },
        Entry {
            name: "ppm_amortized",
            summary: "the same with a network that also sees the data: trained once for an instrument, one pass for each draw of new data",
            needs: &["trainable prior", "likelihood gradient", "data that can be simulated one by one"],
        },
        Entry {
            name: "gibbs",
            summary: "annealed split Gibbs sampling from prior draws: slow, reliable, any likelihood",
            needs: &["denoiser", "likelihood gradient"],
        },
        Entry {
            name: "langevin",
            summary: "annealed kinetic Langevin dynamics from prior draws: fewest network passes for a draw, any likelihood",
            needs: &["denoiser", "likelihood gradient"],
        },
    ];
    let rivals = SolverSettings::rivals();
    own.into_iter().chain(rivals.iter().filter_map(|settings| Some(settings.rival()?.entry()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_solver_of_the_catalogue_has_settings_that_survive_yaml() {
        for entry in catalogue() {
            let settings = SolverSettings::named(entry.name).unwrap();
            let yaml = serde_yaml::to_string(&settings).unwrap();
            assert_eq!(serde_yaml::from_str::<SolverSettings>(&yaml).unwrap(), settings, "{yaml}");
            assert_eq!(settings.name(), entry.name);
        }
    }

    #[test]
    fn settings_may_be_partial_but_not_unknown() {
        let partial = "name: ppm\nmatching:\n  steps: 7\n  auxiliary:\n    adaptation:\n      low_rank: 4\n";
        let SolverSettings::Ppm { matching, .. } = serde_yaml::from_str(partial).unwrap() else { panic!() };
        assert_eq!((matching.steps, matching.particles), (7, PpmSettings::default().particles));
        assert!(serde_yaml::from_str::<SolverSettings>("name: ppm\nmatching:\n  stepz: 7\n").is_err());
        assert!(serde_yaml::from_str::<SolverSettings>("name: ppm\nmaching:\n  steps: 7\n").is_err());
    }
}
