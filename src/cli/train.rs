//! `antumbra train`: fits a diffusion prior and writes its weights and card.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use crate::{
    Error, Result,
    compute::Compute,
    config::Layers,
    io::atomic,
    posterior::{Step, run::Observer},
    prior::{
        card::{self, Card, HeldOut, Prior, Provenance},
        images::{ImageSettings, TrainingImages},
        network::Network,
        train::{TrainSettings, Training, read_state, scaling_of},
        unet::Architecture,
    },
    tensor::precision::Precision,
};

/// Fit a diffusion prior to simulated images.
#[derive(Debug, Args)]
pub(super) struct Train {
    /// Settings of the training; examples/train_blackhole64.yaml shows them all.
    run: PathBuf,
    /// Weights file; the card goes beside it with the extension .yaml.
    #[arg(short, long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// Change one setting, for example training.steps=1000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// What a GPU multiplies with: full, tf32 or bf16.
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Number of threads; the result does not depend on it.
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<usize>,
    /// Continue from the last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Replaces existing weights.
    #[arg(long, conflicts_with = "resume")]
    force: bool,
}

/// The settings file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Name of the prior.
    name: String,
    /// What its images look like.
    summary: String,
    /// Licence of the weights.
    licence: String,
    /// What one pixel holds.
    pixel: String,
    /// Prior of the same images on half as many pixels along each side, for samplers to begin with.
    coarser: Option<String>,
    /// Start from the weights of this prior (name or card) instead of random ones.
    start_from: Option<String>,
    images: ImageSettings,
    architecture: Architecture,
    training: TrainSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "prior".into(),
            summary: "simulated black holes and simple sources".into(),
            licence: "CC0-1.0".into(),
            pixel: "flux fraction".into(),
            coarser: None,
            start_from: None,
            images: ImageSettings::default(),
            architecture: Architecture::default(),
            training: TrainSettings::default(),
        }
    }
}

impl Train {
    /// Runs the training.
    ///
    /// # Errors
    /// Wrong settings, files that cannot be written, or a diverged training.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let settings = self.settings()?;
        if self.output.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(Error::config("--output", "the weights file must end in .safetensors"));
        }
        super::refuse_to_replace(&self.output, self.force || self.resume)?;
        let stop = super::stop_on_interrupt()?;
        super::on_threads(self.threads.unwrap_or(0), || self.train(&settings, &stop))?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self) -> Result<Settings> {
        let mut layers = Layers::defaults(&Settings::default())?;
        layers.merge_file(&self.run)?;
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Error::config("--set", format!("`{text}` is not KEY=VALUE")))?;
            layers.set(key, value, "--set")?;
        }
        let settings: Settings = layers.resolve()?;
        settings.architecture.validate()?;
        settings.training.validate()?;
        Ok(settings)
    }

    fn train(&self, settings: &Settings, stop: &AtomicBool) -> Result<()> {
        let mut progress = Progress::new();
        let cache = self.output.with_extension("images.safetensors");
        let simulating = Step { stage: "simulate", metrics: Vec::new() };
        let images = TrainingImages::simulate(
            &settings.images,
            settings.architecture.pixels,
            &cache,
            |done, total| {
                progress.on_step(done, total, &simulating);
            },
        )?;
        let mut training = self.start(settings, &images)?;
        let mut smooth = None;
        while training.finished() < settings.training.steps {
            let loss = training.step(&images.training)?;
            let mean = smooth.map_or(loss, |mean: f64| mean + 0.02 * (loss - mean));
            smooth = Some(mean);
            let step = Step { stage: "train", metrics: vec![("loss", mean)] };
            progress.on_step(training.finished(), settings.training.steps, &step);
            let finished = training.finished();
            let interrupted = stop.load(Ordering::Relaxed);
            let due = finished % settings.training.checkpoint_every == 0;
            if due || interrupted || finished == settings.training.steps {
                self.save(settings, &images, &training)?;
                progress.on_checkpoint(finished);
            }
            if interrupted {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    fn start(&self, settings: &Settings, images: &TrainingImages) -> Result<Training> {
        let scaling = scaling_of(images, settings.architecture.data_std);
        let compute = Compute::named(&self.device)?;
        self.precision.apply();
        let (training, architecture) = (settings.training.clone(), settings.architecture.clone());
        let mut training = Training::new(training, architecture, scaling, &compute)?;
        if self.resume {
            training.restore(&read_state(&self.checkpoint())?)?;
        } else if let Some(name) = &settings.start_from {
            training.start_from(&Prior::find(name)?.tensors()?)?;
        }
        Ok(training)
    }

    fn checkpoint(&self) -> PathBuf {
        self.output.with_extension("checkpoint.safetensors")
    }

    /// Writes the checkpoint, the averaged weights and their card, and shows the held-out losses.
    fn save(&self, settings: &Settings, images: &TrainingImages, training: &Training) -> Result<()> {
        let state = training.state()?;
        atomic::replace(&self.checkpoint(), |file: &Path| Ok(candle_core::safetensors::save(&state, file)?))?;
        let held_out: Vec<_> = training
            .held_out_losses(&images.held_out)?
            .into_iter()
            .map(|(noise_level, loss)| HeldOut { noise_level, loss })
            .collect();
        let text: Vec<_> = held_out.iter().map(|h| format!("{}: {:.4}", h.noise_level, h.loss)).collect();
        super::note(&format!(
            "step {} held-out loss by noise level: {}",
            training.finished(),
            text.join(", ")
        ));
        let network = training.averaged()?;
        let scaling = scaling_of(images, settings.architecture.data_std);
        let card = Card {
            name: settings.name.clone(),
            summary: settings.summary.clone(),
            licence: settings.licence.clone(),
            pixel: settings.pixel.clone(),
            coarser: settings.coarser.clone(),
            unit: scaling.unit,
            dark: scaling.dark,
            architecture: Network::UNet(settings.architecture.clone()),
            training: Provenance {
                images: settings.images.simulator.words().into(),
                count: images.training.len(),
                images_sha256: images.training.hash(),
                steps: training.finished(),
                batch: settings.training.batch,
                held_out,
            },
            sha256: String::new(),
        };
        card::write(&self.output, network.tensors()?, card)
    }
}
