//! Prior cards: what a trained prior is, beside its weights, with the checks that tell one file from another.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Denoiser, Pyramid, Scaling, images::hex, network::Network};
use crate::{Error, Result, compute::Compute, config, io::atomic};

/// Largest weights file that is read, bytes.
const LARGEST_WEIGHTS: u64 = 1 << 30;
/// Folder of the user's own priors, searched before the built-in ones.
const USER_FOLDER: &str = "priors";

/// Priors inside the program: name, card, weights.
const BUILT_IN: [(&str, &str, &[u8]); 3] = [
    (
        "blackhole32",
        include_str!("../../data/priors/blackhole32.yaml"),
        include_bytes!("../../data/priors/blackhole32.safetensors"),
    ),
    (
        "blackhole64",
        include_str!("../../data/priors/blackhole64.yaml"),
        include_bytes!("../../data/priors/blackhole64.safetensors"),
    ),
    (
        "organelle64",
        include_str!("../../data/priors/organelle64.yaml"),
        include_bytes!("../../data/priors/organelle64.safetensors"),
    ),
];

/// Description of a trained prior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name, for `--prior`.
    pub name: String,
    /// What its images look like.
    pub summary: String,
    /// Licence of the weights.
    pub licence: String,
    /// What one pixel holds and how large it may be on the sky.
    pub pixel: String,
    /// Flux fraction, or brightness relative to bright structures, per network unit.
    pub unit: f64,
    /// Network value of a dark pixel.
    pub dark: f64,
    /// Name or card of a prior of the same images on half as many pixels along each side, whose pixels hold flux fractions too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coarser: Option<String>,
    /// Shape of the network and the noise levels it knows.
    pub architecture: Network,
    /// Where the weights come from.
    pub training: Provenance,
    /// SHA-256 of the weights file.
    pub sha256: String,
}

/// How a prior was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// What the training images show.
    pub images: String,
    /// Number of images before turning and mirroring.
    pub count: usize,
    /// SHA-256 of the training images.
    pub images_sha256: String,
    /// Finished optimiser steps.
    pub steps: usize,
    /// Images per step.
    pub batch: usize,
    /// Weighted loss on held-out images by noise level (network unit).
    pub held_out: Vec<HeldOut>,
}

/// Weighted squared error per pixel on held-out images; an untrained network has about 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Noise level, network unit.
    pub noise_level: f64,
    /// Weighted loss.
    pub loss: f64,
}

/// Where a prior was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Inside the program.
    BuiltIn,
    /// The card in this file.
    File(PathBuf),
}

/// A card with its weights, not yet a network.
#[derive(Debug, Clone)]
pub struct Prior {
    /// The description.
    pub card: Card,
    /// Where it was found.
    pub source: Source,
    weights: Vec<u8>,
}

impl Prior {
    /// Finds a prior by name (in the folder `priors`, then inside the program) or by the path of its card or weights.
    ///
    /// # Errors
    /// No such prior, or files that are damaged or do not belong together.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.extension().is_some_and(|e| e == "yaml" || e == "safetensors") {
            return Self::read(path);
        }
        let own = Path::new(USER_FOLDER).join(format!("{name}.yaml"));
        if own.exists() {
            return Self::read(&own);
        }
        match BUILT_IN.iter().find(|(built_in, ..)| *built_in == name) {
            Some((name, card, weights)) => Self::built_in(name, card, weights),
            None => {
                let known = BUILT_IN.map(|(name, ..)| name).join(", ");
                Err(Error::config(
                    "prior",
                    format!("`{name}` is unknown; use {known} or the path of a prior card"),
                ))
            }
        }
    }

    /// The user's priors and the built-in ones.
    ///
    /// # Errors
    /// A damaged file in the folder `priors`.
    pub fn all() -> Result<Vec<Self>> {
        let mut files: Vec<_> = match fs::read_dir(USER_FOLDER) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        };
        files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        let mut priors = files.iter().map(|file| Self::read(file)).collect::<Result<Vec<_>>>()?;
        for (name, card, weights) in BUILT_IN {
            if priors.iter().all(|prior| prior.card.name != name) {
                priors.push(Self::built_in(name, card, weights)?);
            }
        }
        Ok(priors)
    }

    fn built_in(name: &str, card: &str, weights: &[u8]) -> Result<Self> {
        let place = PathBuf::from(name);
        let card =
            serde_yaml::from_str(card).map_err(|e| Error::format(&place, "prior card", e.to_string()))?;
        let prior = Self { card, source: Source::BuiltIn, weights: weights.to_vec() };
        prior.check(&place)?;
        Ok(prior)
    }

    /// Reads a prior from its card or its weights; the other file has the same name with the other extension.
    ///
    /// # Errors
    /// A file that is missing, is no prior card, or weights of another hash.
    pub fn read(file: &Path) -> Result<Self> {
        let (card_file, weights_file) = (file.with_extension("yaml"), file.with_extension("safetensors"));
        let value = config::read_yaml(&card_file)?;
        let card = serde_json::from_value(value).map_err(|e| {
            Error::format(&card_file, "prior card", format!("{e}; `antumbra train` writes cards"))
        })?;
        let size = fs::metadata(&weights_file).map_err(|e| Error::io(&weights_file, e))?.len();
        if size > LARGEST_WEIGHTS {
            return Err(Error::format(
                &weights_file,
                "size",
                format!("{size} bytes is too large for a prior"),
            ));
        }
        let weights = fs::read(&weights_file).map_err(|e| Error::io(&weights_file, e))?;
        let prior = Self { card, source: Source::File(card_file), weights };
        prior.check(&weights_file)?;
        Ok(prior)
    }

    fn check(&self, file: &Path) -> Result<()> {
        let found = hex(&Sha256::digest(&self.weights));
        if found != self.card.sha256 {
            let problem = format!(
                "the weights have {found}, the card says {}; the file is damaged or of another prior",
                self.card.sha256
            );
            return Err(Error::format(file, "sha256", problem));
        }
        if !(self.card.unit.is_finite() && self.card.unit > 0.0 && self.card.dark.is_finite()) {
            return Err(Error::format(file, "prior card", "unit must be positive and dark finite"));
        }
        self.card.architecture.validate()
    }

    /// The denoiser, together with the coarser one that the card names.
    ///
    /// # Errors
    /// Weights that do not fit the card's architecture, or a coarser prior that is not there or of other images.
    pub fn network(&self, compute: &Compute) -> Result<Box<dyn Denoiser>> {
        let fine = self.card.architecture.build(self.tensors()?, compute)?;
        let Some(name) = &self.card.coarser else { return Ok(fine) };
        let coarser = Self::find(name)?;
        let coarse = coarser.card.architecture.build(coarser.tensors()?, compute)?;
        // A block holds the flux of its four pixels.
        let each = Scaling { unit: 0.25 * coarser.card.unit, dark: coarser.card.dark };
        Ok(Box::new(Pyramid::new(fine, coarse, each.then(self.scaling().inverse()))?))
    }

    /// The weights by name.
    ///
    /// # Errors
    /// A file of another format.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(candle_core::safetensors::load_buffer(&self.weights, &Device::Cpu)?.into_iter().collect())
    }

    /// Flux fractions of network units.
    pub fn scaling(&self) -> Scaling {
        Scaling { unit: self.card.unit, dark: self.card.dark }
    }
}

/// Writes weights (in half precision) to `file` and the card, its hash filled in, beside it.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(file: &Path, tensors: BTreeMap<String, Tensor>, mut card: Card) -> Result<()> {
    let half = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F16)?));
    let tensors = tensors.into_iter().map(half).collect::<Result<HashMap<_, _>>>()?;
    atomic::replace(file, |temporary| {
        candle_core::safetensors::save(&tensors, temporary)?;
        card.sha256 = hex(&Sha256::digest(fs::read(temporary).map_err(|e| Error::io(file, e))?));
        Ok(())
    })?;
    atomic::replace_bytes(&file.with_extension("yaml"), config::to_yaml(&card)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        prior::unet::{Architecture, UNet},
        rng::Rng,
    };

    fn written() -> (tempfile::TempDir, PathBuf, UNet) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiny.safetensors");
        let architecture = Architecture {
            pixels: 8,
            widths: vec![8],
            blocks: vec![2],
            embedding: 8,
            groups: 4,
            ..Architecture::default()
        };
        let network = UNet::new(architecture.clone(), &Rng::new(0), &Compute::cpu()).unwrap();
        let training = Provenance {
            images: "none".into(),
            count: 1,
            images_sha256: String::new(),
            steps: 0,
            batch: 1,
            held_out: vec![HeldOut { noise_level: 1.0, loss: 0.5 }],
        };
        let card = Card {
            name: "tiny".into(),
            summary: "untrained".into(),
            licence: "CC0-1.0".into(),
            pixel: "flux fraction".into(),
            coarser: None,
            unit: 1e-3,
            dark: -0.25,
            architecture: Network::UNet(architecture),
            training,
            sha256: String::new(),
        };
        write(&file, network.tensors().unwrap(), card).unwrap();
        (folder, file, network)
    }

    #[test]
    fn a_written_prior_reads_back_by_card_or_weights() {
        let (_folder, file, network) = written();
        for file in [file.clone(), file.with_extension("yaml")] {
            let prior = Prior::find(file.to_str().unwrap()).unwrap();
            assert_eq!((prior.card.name.as_str(), prior.scaling().dark), ("tiny", -0.25));
            let compute = Compute::cpu();
            let x = Rng::new(1).normals(&[1, 1, 8, 8], &compute).unwrap();
            let level = compute.tensor(vec![1.0], &[1]).unwrap();
            let values = |net: &dyn Denoiser| {
                net.denoise(&x, &level).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let (a, b) = (values(&network), values(prior.network(&compute).unwrap().as_ref()));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-2));
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let (_folder, file, _) = written();
        let bytes = fs::read(&file).unwrap();
        let message = |file: &Path| Prior::read(file).unwrap_err().to_string();
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(message(&file).contains("sha256"));
        let card = file.with_extension("yaml");
        let text = fs::read_to_string(&card).unwrap();
        fs::write(&file, &bytes).unwrap();
        fs::write(&card, text.replace("pixels: 8", "pixels: 16").replace("embedding: 8", "embedding: 16"))
            .unwrap();
        let error = Prior::read(&file).unwrap().network(&Compute::cpu()).err().unwrap().to_string();
        assert!(error.contains("shape"), "{error}");
        fs::write(&card, "a: [1]").unwrap();
        assert!(message(&file).contains("prior card"));
        fs::remove_file(&card).unwrap();
        assert!(message(&file).contains("tiny.yaml"));
    }

    #[test]
    fn built_in_priors_load() {
        for prior in Prior::all().unwrap() {
            prior.network(&Compute::cpu()).unwrap();
        }
        assert!(Prior::find("nonesuch").unwrap_err().to_string().contains("blackhole64"));
    }
}
