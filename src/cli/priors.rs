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
        card::{Prior, Source},
        draw,
    },
    rng::Rng,
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

impl Priors {
    /// Runs the command; lists and cards go to stdout.
    ///
    /// # Errors
    /// An unknown or damaged prior, or a file that cannot be written.
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::List { json } => list(json)?,
            Self::Show { prior } => super::print(&config::to_yaml(&Prior::find(&prior)?.card)?),
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
                "name": card.name, "summary": card.summary, "pixels": card.architecture.pixels,
                "noise_range": card.architecture.noise_range, "licence": card.licence, "source": place,
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
    let drawn = prior.scaling().to_image(&draw::draws(&network, count, STEPS, &mut rng, compute)?)?;
    let values = drawn.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let pixels = prior.card.architecture.pixels;
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
