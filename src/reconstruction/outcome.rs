//! From draws to files: cube, diagnostics, figures, report, manifest.

use candle_core::{DType, Tensor};
use ndarray::{Array4, Axis, concatenate};

use super::{Directory, Drawn, Findings, Reconstruction};
use crate::{
    Error, Result,
    grid::Grid,
    io::{
        cube::{Cube, Provenance},
        cube_hdf5,
    },
    manifest::{self, Manifest, Merged, Stopwatch},
    memory,
    plot::{self, Figure, Format, Traces, report, verdict::verdict},
    posterior::{Draws, diagnostics::Diagnostics, out_of_distribution::OutOfDistribution, run::restore},
    rng::Rng,
    transfer::Transfer,
};

/// What a finished run tells its user.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// All checks.
    pub diagnostics: Diagnostics,
    /// No check failed.
    pub passed: bool,
    /// A few lines for the terminal.
    pub summary: String,
}

impl Outcome {
    /// Writes everything but metrics and what `draws`, network unit, are kept in, which is there already.
    pub(super) fn write(
        run: &Reconstruction,
        draws: &Draws,
        merged: Vec<Merged>,
        directory: &Directory,
        mut watch: Stopwatch,
    ) -> Result<Self> {
        let draws = draws.thinned(run.settings.samples)?;
        let cube = cube(run, &draws, directory)?;
        run.subject.write(&cube, directory)?;
        cube_hdf5::write(&cube, &directory.file("posterior.h5"))?;
        let traces = Traces::read(&directory.metrics())?;
        let mut diagnostics = checks(run, &draws, &traces)?;
        watch.lap("diagnostics");
        let traces = Traces { rhat: diagnostics.convergence.rhat_max, ..traces };
        let drawn = Drawn { cube: &cube, draws: &draws, problem: &run.problem, traces: &traces };
        let figures = take(&mut diagnostics, run.subject.findings(&drawn, run.settings.plots)?);
        manifest::write_json(&diagnostics, &directory.diagnostics())?;
        plot::save(&figures, &directory.file("figures"), &[Format::Png, Format::Svg, Format::Pdf])?;
        watch.lap("figures");
        let manifest = Manifest {
            timings: watch.timings(),
            network_passes: run.network_passes,
            peak_memory_mb: memory::peak().map(|bytes| bytes as f64 / 1e6),
            merged,
            ..manifest(run, directory)
        };
        manifest.write(&directory.manifest())?;
        let report = directory.file("report.html");
        report::write(&diagnostics, &manifest, &figures, &report)?;
        let fewer = fewer(draws.len(), run.settings.samples);
        let summary = format!(
            "{}: {}{fewer}report: {}\n",
            cube.frame.source(),
            summary(&diagnostics),
            report.display()
        );
        Ok(Self { passed: diagnostics.warnings.is_empty(), diagnostics, summary })
    }
}

/// The checks of `draws`, network unit, that every kind of image has.
pub(super) fn checks(run: &Reconstruction, draws: &Draws, traces: &Traces) -> Result<Diagnostics> {
    let mut diagnostics = Diagnostics::of(&run.problem, draws)?;
    diagnostics.kl_bound = traces.kl_bound.last().map(|point| point[1]);
    let rng = Rng::new(run.settings.seed).stream("out of distribution", 0);
    let compared = OutOfDistribution::of(run.prior.as_ref(), &draws.images, &rng, &run.compute)?;
    diagnostics.compare_with_prior(compared);
    if let Some(wanted) = run.settings.effective_samples {
        diagnostics.hold_against(wanted);
    }
    if let Some(reason) = run.settings.solver.bias() {
        diagnostics.calibrated = Some(false);
        diagnostics.biased = Some(reason.into());
        diagnostics.warnings.push(format!("not calibrated: {reason}"));
    }
    Ok(diagnostics)
}

/// Adds what was read off the samples to the checks, and gives back the figures.
pub(super) fn take(diagnostics: &mut Diagnostics, findings: Findings) -> Vec<Figure> {
    diagnostics.features = findings.features;
    diagnostics.occupancy = findings.occupancy;
    diagnostics.held_out = findings.held_out;
    diagnostics.warnings.extend(findings.warnings);
    findings.figures
}

/// All draws, network unit, of the finished run in `directory`, or of those that were merged there.
pub(super) fn draws(run: &mut Reconstruction, directory: &Directory) -> Result<Draws> {
    if directory.draws().is_file() {
        return Draws::read(&directory.draws(), &run.compute.device);
    }
    restore(run.solver.as_mut(), &directory.checkpoint(), &run.compute.device)?;
    run.solver.draws()
}

/// A line for the user who asked for more samples than there are.
fn fewer(drawn: usize, samples: usize) -> String {
    if drawn >= samples {
        return String::new();
    }
    format!("note: {samples} samples were asked for; more chains, cycles or draws of the solver give more\n")
}

/// The shown part of images `[S, Z, Y, X]` in network unit, in the instrument's unit, one after the other: a copy of
/// large images would not fit beside them.
pub(super) fn shown(run: &Reconstruction, images: &Tensor) -> Result<(Array4<f32>, Grid)> {
    let mut parts = Vec::new();
    let mut grid = *run.problem.forward.grid();
    for index in 0..images.dim(0)? {
        let image = images.narrow(0, index, 1)?.to_dtype(DType::F32)?;
        let image = run.problem.scaling.to_image(&image)?;
        let values = Array4::from_shape_vec(image.dims4()?, image.flatten_all()?.read_list()?);
        let values = values.map_err(|e| Error::config("posterior draws", e.to_string()))?;
        let part;
        (part, grid) = run.subject.shown(values);
        parts.push(part);
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let samples = concatenate(Axis(0), &views);
    Ok((samples.map_err(|e| Error::config("posterior draws", e.to_string()))?, grid))
}

fn cube(run: &Reconstruction, draws: &Draws, directory: &Directory) -> Result<Cube> {
    let (samples, grid) = shown(run, &draws.images)?;
    Ok(Cube {
        samples,
        chains: draws.chain.iter().map(|&chain| chain as u32).collect(),
        grid,
        unit: run.subject.unit(),
        frame: run.subject.frame(),
        provenance: Provenance {
            seed: run.settings.seed,
            prior: run.settings.prior.clone(),
            config_sha256: directory.config_sha256.clone(),
        },
    })
}

/// What it takes to repeat the run, without what it cost.
pub(super) fn manifest(run: &Reconstruction, directory: &Directory) -> Manifest {
    Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        seed: run.settings.seed,
        inputs: vec![run.input.clone()],
        prior: run.settings.prior.clone(),
        prior_sha256: Some(run.card.sha256.clone()),
        config_sha256: directory.config_sha256.clone(),
        device: run.compute.name(),
        threads: rayon::current_num_threads(),
        assumptions: run.assumptions.clone(),
        timings: Vec::new(),
        network_passes: 0,
        peak_memory_mb: None,
        merged: Vec::new(),
    }
}

/// Samples, convergence, fit, features, comparison with a truth, and warnings in a few lines.
pub fn summary(diagnostics: &Diagnostics) -> String {
    let number = |value: Option<f64>| value.map_or("unknown".into(), |value| format!("{value:.2}"));
    // Diagnostics are always JSON; if they were not, the words could be left out.
    let verdict = verdict(&serde_json::to_value(diagnostics).unwrap_or_default());
    let mut lines = vec![
        format!("verdict: {}", verdict.trust.words()),
        format!("{} samples of {} chains", diagnostics.samples, diagnostics.chains),
        format!(
            "R-hat {}, effective sample size {} (tails {})",
            number(diagnostics.convergence.rhat_max),
            number(diagnostics.convergence.ess_bulk_min),
            number(diagnostics.convergence.ess_tail_min)
        ),
    ];
    let fits = diagnostics.chi2.iter();
    lines.extend(fits.map(|(product, fit)| format!("chi-square per datum, {product}: {:.2}", fit.mean)));
    lines.extend(diagnostics.features.iter().map(|(name, interval)| {
        format!("{name}: {:.3} ({:.3} to {:.3})", interval.median, interval.q16, interval.q84)
    }));
    let truth = &diagnostics.truth;
    if let (Some(narrow), Some(wide)) = (truth.coverage_68, truth.coverage_95) {
        lines.push(format!(
            "truth: 68 % intervals hold {:.0} % and 95 % intervals {:.0} % of the on-source pixels",
            100.0 * narrow,
            100.0 * wide
        ));
        lines.push(format!("truth: PSNR {} dB, SSIM {}", number(truth.psnr_db), number(truth.ssim)));
    }
    for (product, foretold) in diagnostics.held_out.iter().flatten() {
        lines.push(format!(
            "left out of the fit, {product}: chi-square per datum {:.2}, with the samples' spread {:.2}",
            foretold.mean, foretold.predictive
        ));
    }
    lines.extend(verdict.reasons.iter().map(|reason| format!("reason: {reason}")));
    lines.extend(diagnostics.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.iter().map(|line| format!("{line}\n")).collect()
}
