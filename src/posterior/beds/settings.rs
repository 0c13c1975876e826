//! The settings of every solver on the exact beds: those of its own, but one draw from each chain.

use crate::posterior::{
    SolverSettings,
    ppm::{AuxiliarySettings, FamilySettings},
};

/// Last noise level, standard deviations of the prior: that of the rivals' schedule.
const LEVEL: f64 = 0.01;

/// Draws of the prior for each particle.
const CANDIDATES: usize = 32;

/// Learning rate of generators.
const GENERATOR: f64 = 3e-3;
/// Gaussians of a mixture.
const COMPONENTS: usize = 16;

/// The solver `name` with the settings that all beds share; none if there is no such solver.
///
/// Rivals keep their defaults. Draws of exact priors cost little, so Principled Posterior Matching chooses its particles
/// among 32 times as many. Auxiliary denoisers and generators start from an exact prior without weights, so their small network
/// learns faster than the copy of a trained prior should, and longer.
pub fn settings(name: &str) -> Option<SolverSettings> {
    let mut settings = SolverSettings::named(name)?;
    match &mut settings {
        SolverSettings::Ppm { matching, correction } => {
            matching.steps = 400;
            matching.candidates = CANDIDATES;
            matching.learning_rate = 0.003;
            matching.auxiliary = auxiliary();
            match &mut matching.family {
                FamilySettings::Generator(generator) => generator.learning_rate = GENERATOR,
                FamilySettings::Amortized(amortized) => amortized.learning_rate = GENERATOR,
                FamilySettings::Mixture(mixture) => mixture.components = COMPONENTS,
                FamilySettings::Particles => {}
            }
            correction.langevin.iterations = 200;
            correction.langevin.draws = 1;
            correction.langevin.level = LEVEL;
            correction.gibbs.cycles = 1;
        }
        SolverSettings::Davi(davi) => davi.auxiliary = auxiliary(),
        SolverSettings::Gibbs { sampling, .. } => sampling.cycles = 1,
        SolverSettings::Langevin { sampling, .. } => {
            sampling.draws = 1;
            sampling.level = LEVEL;
        }
        _ => {}
    }
    Some(settings)
}

fn auxiliary() -> AuxiliarySettings {
    AuxiliarySettings { learning_rate: 1e-2, updates: 4, batch: 512, ..Default::default() }
}
