//! A set-up as a source of replicates: truths of its prior, data of its instrument model, draws of its solver.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use candle_core::{DType, Tensor};

use super::{
    Directory, Reconstruction, Settings, enough,
    outcome::{manifest, shown},
};
use crate::{
    Error, Result,
    calibration::{Functional, Kind, Plan, Record, Replicate, Report, Source, campaign::merged, judge},
    config,
    manifest::{Manifest, Stopwatch, sha256, write_json},
    plot::{self, Format},
    posterior::{
        Draws,
        out_of_distribution::log_losses,
        run::{self, RunSettings},
    },
    prior::draw,
    rng::Rng,
    tensor::to_host,
};

/// Steps of Heun's method for a truth.
const TRUTH_STEPS: usize = 30;
/// Steps of Heun's method for an image that may become a reference point.
const REFERENCE_STEPS: usize = 12;
/// Draws of the prior of which the one that fits the data best is the reference point of TARP.
const CANDIDATES: usize = 8;
/// Draws of the prior after which no truth is found that the run's flux and centroid allow.
const MOST_TRIALS: usize = 2000;
/// Images whose likelihood is computed together.
const BATCH: usize = 64;

/// Which replicates a calibration makes and what becomes of them.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Number of replicates.
    pub replicates: u64,
    /// Number of the first one: shards of one campaign have different ones.
    pub first: u64,
    /// Directories of other shards, whose replicates count too.
    pub merge: Vec<PathBuf>,
    /// Where everything is written.
    pub directory: PathBuf,
    /// Keep the replicates that the directory holds.
    pub resume: bool,
}

impl Campaign {
    /// Makes the replicates, judges them, and writes records, verdict, figures and report.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is set; settings and files that cannot be used.
    pub fn run(
        &self,
        settings: Settings,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(usize, usize, &Record),
    ) -> Result<Report> {
        let run = Reconstruction::prepare(settings)?;
        let directory = Directory::open(&self.directory, &run.settings, self.resume)?;
        let file = directory.file("replicates.jsonl");
        if !self.resume && file.exists() {
            fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
        }
        let mut watched = Stopwatch::start();
        let (setup, seed, plots) = (setup(&run)?, run.settings.seed, run.settings.plots);
        let repeatable = manifest(&run, &directory);
        let plan =
            Plan { setup: &setup, seed, numbers: self.first..self.first + self.replicates, file: &file };
        let mut source = SetUp { run, scratch: directory.file("unfinished") };
        let records = plan.run(&mut source, stop, watch)?;
        watched.lap("replicates");
        let others: Vec<PathBuf> = self.merge.iter().map(|other| other.join("replicates.jsonl")).collect();
        let others: Vec<&Path> = others.iter().map(PathBuf::as_path).collect();
        let report = judge(&setup, &merged(records, &setup, &others)?);
        write_json(&report, &directory.file("calibration.json"))?;
        let figures = if plots { plot::calibration(&report)? } else { Vec::new() };
        plot::save(&figures, &directory.file("figures"), &[Format::Png, Format::Svg, Format::Pdf])?;
        watched.lap("verdict and figures");
        let manifest = Manifest { timings: watched.timings(), ..repeatable };
        manifest.write(&directory.file("manifest.json"))?;
        plot::write_calibration(&report, &manifest, &figures, &directory.file("report.html"))?;
        Ok(report)
    }
}

/// SHA-256 of everything that must be equal for replicates to count together.
///
/// # Errors
/// Never for settings that can be written as YAML.
pub(super) fn setup(run: &Reconstruction) -> Result<String> {
    let same = Settings {
        data: None,
        seed: 0,
        device: String::new(),
        threads: 0,
        plots: false,
        ..run.settings.clone()
    };
    let text = config::to_yaml(&same)? + &run.card.sha256 + &run.input.sha256;
    Ok(sha256(text.as_bytes()))
}

/// A reconstruction whose data are replaced again and again.
struct SetUp {
    run: Reconstruction,
    /// Name without extension of the files of the replicate under way.
    scratch: PathBuf,
}

impl SetUp {
    /// A draw `[1, Z, Y, X]` of the prior, as far as the run assumes no more of an image than the prior does.
    fn truth(&self, rng: &Rng) -> Result<Tensor> {
        let run = &self.run;
        for trial in 0..MOST_TRIALS {
            let mut rng = rng.stream("truth", trial as u64);
            let image = draw::draws(run.prior.as_ref(), 1, TRUTH_STEPS, &mut rng, &run.compute)?;
            if rng.uniform() < run.subject.acceptance(&run.problem, &image)? {
                return Ok(image);
            }
        }
        let problem =
            format!("none of {MOST_TRIALS} draws of the prior has the flux and centroid that are assumed");
        Err(Error::config("vlbi.flux_sigma", problem))
    }

    /// Draws of the posterior of the present data.
    fn sample(&self, rng: &Rng, stop: &AtomicBool) -> Result<Draws> {
        let run = &self.run;
        let (problem, prior) = (&run.problem, run.prior.as_ref());
        let mut solver = run.settings.solver.build(problem, prior, rng, &run.compute)?;
        let [checkpoint, metrics] = ["safetensors", "jsonl"].map(|end| self.scratch.with_extension(end));
        let kept = RunSettings {
            checkpoint: checkpoint.clone(),
            metrics: metrics.clone(),
            checkpoint_every: usize::MAX,
            enough: enough(&run.settings),
            resume: false,
            device: run.compute.device.clone(),
            records: true,
        };
        let outcome = run::run(solver.as_mut(), problem, prior, rng, &kept, stop, &mut ());
        for file in [checkpoint, metrics] {
            // A replicate is made anew after an interruption; its files are of no use, and may not exist.
            let _ = fs::remove_file(file);
        }
        outcome?;
        solver.draws()?.thinned(run.settings.samples)
    }

    /// Of some draws of the prior the one `[1, Z, Y, X]` that fits the present data best.
    fn reference(&self, rng: &Rng) -> Result<Tensor> {
        let run = &self.run;
        let mut rng = rng.stream("reference", 0);
        let images = draw::draws(run.prior.as_ref(), CANDIDATES, REFERENCE_STEPS, &mut rng, &run.compute)?;
        let fits = self.log_likelihood(&images)?;
        let best = (0..fits.len()).max_by(|&a, &b| fits[a].total_cmp(&fits[b])).unwrap_or(0);
        Ok(images.narrow(0, best, 1)?)
    }

    fn log_likelihood(&self, images: &Tensor) -> Result<Vec<f64>> {
        let count = images.dim(0)?;
        let mut values = Vec::with_capacity(count);
        for start in (0..count).step_by(BATCH) {
            let part = images.narrow(0, start, BATCH.min(count - start))?;
            values.extend(to_host(&self.run.problem.log_likelihood(&part)?)?);
        }
        Ok(values)
    }
}

impl Source for SetUp {
    fn replicate(&mut self, _: u64, rng: &Rng, stop: &AtomicBool) -> Result<Replicate> {
        let truth = self.truth(rng)?;
        let data = rng.stream("data", 0);
        self.run.problem.likelihoods = self.run.subject.simulate(&self.run.problem, &truth, &data)?;
        let draws = self.sample(&rng.stream("solver", 0), stop)?;
        let images = Tensor::cat(&[&truth, &self.reference(rng)?, &draws.images], 0)?.to_dtype(DType::F32)?;
        let mut measured = self.run.subject.functionals(&shown(&self.run, &images)?.0);
        let fits = self.log_likelihood(&images)?.into_iter().map(Some).collect();
        measured.push((Functional::new("log_likelihood", Kind::Fit), fits));
        let losses =
            log_losses(self.run.prior.as_ref(), &images, &rng.stream("losses", 0), &self.run.compute)?;
        measured.push((Functional::new("prior_loss", Kind::Fit), losses.into_iter().map(Some).collect()));
        if measured.iter().any(|(_, values)| values.iter().flatten().any(|value| !value.is_finite())) {
            return Err(Error::Diverged { what: "a functional of the draws".into(), step: draws.len() });
        }
        let (functionals, values): (Vec<_>, Vec<Vec<Option<f64>>>) = measured.into_iter().unzip();
        let single = |value: &Option<f64>| value.map(|value| value as f32);
        Ok(Replicate {
            truth: values.iter().map(|values| single(&values[0])).collect(),
            reference: values.iter().map(|values| single(&values[1])).collect(),
            draws: values.iter().map(|values| values[2..].iter().map(single).collect()).collect(),
            chain: draws.chain.iter().map(|&chain| chain as u32).collect(),
            functionals,
        })
    }
}
