//! `antumbra priors`: the trained priors, their cards, and images drawn from them.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use ndarray::Array4;

use crate::{
    Error, Result,
    compute::Compute,
    config,
    grid::Grid,
    io::{
        cube::{Cube, Frame, Provenance, SkyFrame},
        cube_fits,
    },
    prior::{
        card::{self, Card, Prior, Provenance as Training, Source},
        checkpoint, draw,
        network::Network,
        song::SongArchitecture,
        unet::Architecture,
    },
    rng::Rng,
    transfer::Transfer,
    units::{self, Dimension},
};

/// Steps of the sampler that turns noise into an image.
const STEPS: usize = 32;

/// Arguments of `antumbra priors`.
#[derive(Debug, Subcommand)]
pub(super) enum Priors {
    /// Lists the priors in the folder `priors` and those inside the program.
    List {
        /// Prints an array of objects.
        #[arg(long)]
        json: bool,
    },
    /// Prints the card of a prior.
    Show {
        /// Name, or path of a card.
        prior: String,
    },
    /// Makes a prior of weights that others have trained, for example the black-hole network of InverseBench.
    Import(Import),
    /// Draws images from a prior into a FITS cube.
    Sample {
        /// Name, or path of a card.
        prior: String,
        /// FITS file to write.
        #[arg(short, long, value_name = "FILE.fits")]
        output: PathBuf,
        /// Replaces an existing file.
        #[arg(long)]
        force: bool,
        /// Number of images.
        #[arg(short = 'n', long, default_value_t = 16)]
        samples: usize,
        /// Seed of the draws.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Field of view written to the header.
        #[arg(long, default_value = "160 uas")]
        fov: String,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
    },
}

/// Arguments of `antumbra priors import`; the defaults are those of InverseBench's black-hole network.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// Checkpoint: .pt, .pth, .ckpt or .safetensors.
    checkpoint: PathBuf,
    /// Weights file to write, for example priors/NAME.safetensors; the card goes beside it.
    #[arg(short, long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// Replaces existing weights.
    #[arg(long)]
    force: bool,
    /// Licence of the weights, as their authors state it.
    #[arg(long)]
    licence: String,
    /// What its images look like.
    #[arg(long, default_value = "imported weights")]
    summary: String,
    /// Kind of network: songunet-vp (Song et al. 2021, Karras et al. 2022) or unet (this program's own, trained elsewhere).
    #[arg(long, default_value = "songunet-vp", value_parser = ["songunet-vp", "unet"])]
    family: String,
    /// YAML file with the network's sizes; default: 64 x 64 pixels, 128 channels times 1, 2, 2, one block, attention at 16.
    #[arg(long, value_name = "FILE.yaml")]
    architecture: Option<PathBuf>,
    /// Dictionary of a PyTorch checkpoint that holds the weights; `none` for a bare one.
    #[arg(long, default_value = "ema")]
    key: String,
    /// What the weights' names begin with.
    #[arg(long, default_value = "model.")]
    prefix: String,
    /// Image value per network unit.
    #[arg(long, default_value_t = 0.5)]
    unit: f64,
    /// Network value of a dark pixel.
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    dark: f64,
}

impl Priors {
    /// Runs the command; lists and cards go to stdout.
    ///
    /// # Errors
    /// An unknown or damaged prior, or a file that cannot be written.
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::List { json } => list(json)?,
            Self::Show { prior } => super::print(&config::to_yaml(&Prior::find(&prior)?.card)?),
            Self::Import(import) => import.run()?,
            Self::Sample { prior, output, force, samples, seed, fov, device } => {
                super::refuse_to_replace(&output, force)?;
                let compute = Compute::named(&device)?;
                let cube = sample(&Prior::find(&prior)?, samples, seed, &fov, &compute)?;
                cube_fits::write(&cube, &output)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Sizes of InverseBench's black-hole network.
fn black_hole() -> SongArchitecture {
    SongArchitecture {
        pixels: 64,
        channels: 128,
        multipliers: vec![1, 2, 2],
        down_blocks: 1,
        attention: vec![16],
        data_std: 0.5,
        noise_range: (0.01, 150.0),
    }
}

impl Import {
    fn run(&self) -> Result<()> {
        if self.output.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(Error::config("--output", "the weights file must end in .safetensors"));
        }
        if !(self.unit > 0.0 && self.unit.is_finite() && self.dark.is_finite()) {
            return Err(Error::config("--unit", "must be positive, and --dark finite"));
        }
        super::refuse_to_replace(&self.output, self.force)?;
        let architecture = self.architecture()?;
        architecture.validate()?;
        let key = (self.key != "none").then_some(self.key.as_str());
        let tensors = checkpoint::read(&self.checkpoint, key, &self.prefix)?;
        let found = checkpoint::noise_found(&architecture, tensors.clone())?;
        if !(0.8..1.2).contains(&found) {
            super::note(&format!(
                "warning: in pure noise the network finds noise of mean square {found:.3} instead of 1; is this its architecture, and are its weights trained?"
            ));
        }
        let name = self
            .output
            .file_stem()
            .map_or_else(|| "prior".into(), |name| name.to_string_lossy().into_owned());
        let card = Card {
            name,
            summary: self.summary.clone(),
            licence: self.licence.clone(),
            pixel: "as the authors of the weights define it".into(),
            coarser: None,
            unit: self.unit,
            dark: self.dark,
            architecture,
            training: Training {
                images: format!("imported from {}", self.checkpoint.display()),
                count: 0,
                images_sha256: String::new(),
                steps: 0,
                batch: 0,
                held_out: Vec::new(),
            },
            sha256: String::new(),
        };
        card::write(&self.output, tensors, card)
    }

    fn architecture(&self) -> Result<Network> {
        let Some(file) = &self.architecture else {
            return Ok(match self.family.as_str() {
                "unet" => Network::UNet(Architecture::default()),
                _ => Network::Song(black_hole()),
            });
        };
        let value = config::read_yaml(file)?;
        let wrong = |e: serde_json::Error| Error::format(file, "architecture", e.to_string());
        Ok(match self.family.as_str() {
            "unet" => Network::UNet(serde_json::from_value(value).map_err(wrong)?),
            _ => Network::Song(serde_json::from_value(value).map_err(wrong)?),
        })
    }
}

fn list(json: bool) -> Result<()> {
    let priors = Prior::all()?;
    if json {
        let entry = |prior: &Prior| {
            let place = match &prior.source {
                Source::BuiltIn => "built in".to_string(),
                Source::File(file) => file.display().to_string(),
            };
            let card = &prior.card;
            serde_json::json!({
                "name": card.name, "summary": card.summary, "pixels": card.architecture.pixels(),
                "noise_range": card.architecture.noise_range(), "licence": card.licence, "source": place,
            })
        };
        let text = serde_json::to_string_pretty(&priors.iter().map(entry).collect::<Vec<_>>())
            .map_err(|e| Error::config("priors", e.to_string()))?;
        super::print(&(text + "\n"));
    } else {
        let line = |prior: &Prior| format!("{:<16} {}\n", prior.card.name, prior.card.summary);
        super::print(&priors.iter().map(line).collect::<String>());
    }
    Ok(())
}

/// Draws in flux fraction per pixel.
fn sample(prior: &Prior, count: usize, seed: u64, fov: &str, compute: &Compute) -> Result<Cube> {
    const MOST_SAMPLES: usize = 100_000;
    if !(1..=MOST_SAMPLES).contains(&count) {
        return Err(Error::config("--samples", format!("{count}; use 1 to {MOST_SAMPLES}")));
    }
    let network = prior.network(compute)?;
    let mut rng = Rng::new(seed).stream("prior samples", 0);
    let drawn = prior.scaling().to_image(&draw::draws(network.as_ref(), count, STEPS, &mut rng, compute)?)?;
    let values = drawn.to_dtype(candle_core::DType::F32)?.flatten_all()?.read_list::<f32>()?;
    let pixels = prior.card.architecture.pixels();
    let samples = Array4::from_shape_vec((count, 1, pixels, pixels), values).map_err(|_| Error::Shape {
        what: "prior samples",
        expected: vec![count, 1, pixels, pixels],
        found: drawn.dims().to_vec(),
    })?;
    Ok(Cube {
        samples,
        chains: vec![0; count],
        grid: Grid::sky(pixels, units::parse(fov, Dimension::Angle, "--fov")?)?,
        unit: "fraction/pixel".into(),
        frame: Frame::Sky(SkyFrame {
            source: prior.card.name.clone(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 0.0,
            mjd: 0.0,
        }),
        provenance: Provenance {
            seed,
            prior: prior.card.name.clone(),
            config_sha256: prior.card.sha256.clone(),
        },
    })
}
