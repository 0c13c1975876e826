//! Training images of a diffusion prior: simulated once, kept in a cache file, turned and mirrored when used.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::simulate::SimulatorSettings;
use crate::{Error, Result, compute::Compute, io::atomic, rng::Rng, transfer::Transfer};

/// First index of held-out images, far above any training image.
const HELD_OUT: u64 = 1 << 40;
/// Images simulated between two reports.
const CHUNK: usize = 64;
/// Images simulated between two writes of the cache.
const SAVE_EVERY: usize = 16 * CHUNK;
/// Largest number of images that fits into memory comfortably.
const MOST_IMAGES: usize = 1 << 20;

/// Which images a prior is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Seed of the simulator.
    pub seed: u64,
    /// Number of training images before turning and mirroring.
    pub count: usize,
    /// Number of images kept apart to measure the loss.
    pub held_out: usize,
    /// The simulated distribution.
    pub simulator: SimulatorSettings,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self { seed: 1, count: 8192, held_out: 256, simulator: SimulatorSettings::default() }
    }
}

/// Square images of equal size, in the unit of the prior's card.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSet {
    pixels: usize,
    values: Vec<f32>,
}

impl ImageSet {
    /// A set from `[N, pixels, pixels]` values.
    ///
    /// # Errors
    /// A number of values that is not a whole, positive number of images.
    pub fn new(values: Vec<f32>, pixels: usize) -> Result<Self> {
        if pixels == 0 || values.is_empty() || !values.len().is_multiple_of(pixels * pixels) {
            let (expected, found) = (vec![1, pixels, pixels], vec![values.len()]);
            return Err(Error::Shape { what: "training images", expected, found });
        }
        Ok(Self { pixels, values })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.values.len() / self.pixels.pow(2)
    }

    /// True for a set without images.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Image `index`, row 0 north.
    pub fn image(&self, index: usize) -> &[f32] {
        let length = self.pixels.pow(2);
        &self.values[index * length..][..length]
    }

    /// Image `index` under one of the eight symmetries of the square.
    pub fn turned(&self, index: usize, symmetry: usize) -> impl Iterator<Item = f64> {
        let (image, pixels) = (self.image(index), self.pixels);
        (0..pixels * pixels).map(move |i| {
            let (mut y, mut x) = (i / pixels, i % pixels);
            if symmetry & 1 != 0 {
                y = pixels - 1 - y;
            }
            if symmetry & 2 != 0 {
                x = pixels - 1 - x;
            }
            if symmetry & 4 != 0 {
                (y, x) = (x, y);
            }
            f64::from(image[y * pixels + x])
        })
    }

    /// Mean and standard deviation over all pixels of all images.
    pub fn moments(&self) -> (f64, f64) {
        let count = self.values.len() as f64;
        let mean = self.values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = self.values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt())
    }

    /// SHA-256 of the values, little endian.
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new();
        self.values.iter().for_each(|value| digest.update(value.to_le_bytes()));
        hex(&digest.finalize())
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Training and held-out images.
#[derive(Debug, Clone)]
pub struct TrainingImages {
    /// Images to learn from.
    pub training: ImageSet,
    /// Images that measure the loss.
    pub held_out: ImageSet,
}

impl TrainingImages {
    /// Reads the images from `cache` as far as it holds them, simulates the others and adds them to it. `report` hears
    /// the number of images done and in total.
    ///
    /// # Errors
    /// Settings out of range, or a cache that cannot be written.
    pub fn simulate(
        settings: &ImageSettings,
        pixels: usize,
        cache: &Path,
        mut report: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let most = settings.count.max(settings.held_out);
        if settings.count == 0 || settings.held_out == 0 || most > MOST_IMAGES {
            return Err(Error::config(
                "images",
                format!("count and held_out must lie between 1 and {MOST_IMAGES}"),
            ));
        }
        let simulator = settings.simulator.build(pixels, settings.seed)?;
        let mut cached = Cache::open(cache, settings, pixels)?;
        let total = settings.count + settings.held_out;
        let mut simulate = |name: &str, first: u64, wanted: usize, before: usize| -> Result<ImageSet> {
            let length = pixels * pixels;
            let mut values = cached.take(name);
            let mut unsaved = 0;
            while values.len() < wanted * length {
                let done = values.len() / length;
                let range = done..(done + CHUNK).min(wanted);
                let images: Vec<Vec<f64>> =
                    range.clone().into_par_iter().map(|i| simulator.image(first + i as u64)).collect();
                values.extend(images.iter().flatten().map(|&value| value as f32));
                unsaved += range.len();
                if unsaved >= SAVE_EVERY || range.end == wanted {
                    cached.put(name, &values, length)?;
                    unsaved = 0;
                }
                report(before + range.end, total);
            }
            values.truncate(wanted * length);
            ImageSet::new(values, pixels)
        };
        let held_out = simulate("held_out", HELD_OUT, settings.held_out, 0)?;
        let training = simulate("training", 0, settings.count, settings.held_out)?;
        Ok(Self { training, held_out })
    }
}

/// Simulated images on disk, in safetensors: `training`, `held_out` and the settings that made them.
struct Cache {
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Cache {
    /// An unreadable cache, or one of other settings, counts as empty.
    fn open(file: &Path, settings: &ImageSettings, pixels: usize) -> Result<Self> {
        let key = (settings.seed, pixels, &settings.simulator);
        let key = serde_json::to_vec(&key).map_err(|e| Error::config("images", e.to_string()))?;
        let key = Tensor::new(key.as_slice(), &Device::Cpu)?;
        let stored = candle_core::safetensors::load(file, &Device::Cpu).unwrap_or_default();
        let bytes = |tensor: &Tensor| tensor.read_list::<u8>();
        let same = match stored.get("settings") {
            Some(stored) => bytes(stored).ok() == bytes(&key).ok(),
            None => false,
        };
        let tensors = if same { stored } else { HashMap::from([("settings".to_string(), key)]) };
        Ok(Self { file: file.to_path_buf(), tensors })
    }

    fn take(&self, name: &str) -> Vec<f32> {
        let values = self.tensors.get(name).and_then(|tensor| tensor.flatten_all().ok());
        values.and_then(|values| values.read_list().ok()).unwrap_or_default()
    }

    fn put(&mut self, name: &str, values: &[f32], length: usize) -> Result<()> {
        let tensor = Tensor::from_slice(values, (values.len() / length, length), &Device::Cpu)?;
        self.tensors.insert(name.to_string(), tensor);
        atomic::replace(&self.file, |file| Ok(candle_core::safetensors::save(&self.tensors, file)?))
    }
}

/// A batch `[B, 1, Y, X]` of randomly chosen, turned and mirrored images, affinely mapped by `unit` and `dark`.
///
/// # Errors
/// Those of the tensor library.
pub fn batch(
    images: &ImageSet,
    scaling: super::Scaling,
    size: usize,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Tensor> {
    let mut values = Vec::with_capacity(size * images.pixels.pow(2));
    for _ in 0..size {
        let (index, symmetry) = (rng.below(images.len()), rng.below(8));
        values.extend(images.turned(index, symmetry));
    }
    let fraction = Tensor::from_vec(values, (size, 1, images.pixels, images.pixels), &Device::Cpu)?;
    let network = scaling.to_network(&fraction.to_dtype(DType::F64)?)?;
    Ok(network.to_dtype(compute.dtype)?.transfer(&compute.device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_symmetries_differ_and_keep_the_values() {
        let set = ImageSet::new((0..9).map(|v| (v * v) as f32).collect(), 3).unwrap();
        let mut all: Vec<Vec<u64>> =
            (0..8).map(|symmetry| set.turned(0, symmetry).map(|v| v as u64).collect()).collect();
        assert_eq!(all[2][..3], [4, 1, 0]);
        assert_eq!(all[4][..3], [0, 9, 36]);
        for image in &all {
            assert_eq!(image.iter().sum::<u64>(), 204);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn the_cache_grows_and_gives_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache.safetensors");
        let simulator: SimulatorSettings = serde_yaml::from_str(
            "{name: blackhole, shares: {flow: 0.0, ring: 1.0, crescent: 0.0, disk: 0.0, gaussians: 0.0, pair: 0.0, jet: 0.0}}",
        )
        .unwrap();
        let settings = ImageSettings { count: 3, held_out: 2, simulator, seed: 1 };
        let first = TrainingImages::simulate(&settings, 16, &file, |_, _| ()).unwrap();
        let more = ImageSettings { count: 5, ..settings.clone() };
        let mut made = Vec::new();
        let second = TrainingImages::simulate(&more, 16, &file, |done, _| made.push(done)).unwrap();
        assert_eq!(made, [7], "only the missing images are simulated");
        assert_eq!(second.training.image(2), first.training.image(2));
        assert_eq!(second.held_out, first.held_out);
        let other = ImageSettings { seed: 2, ..settings };
        let third = TrainingImages::simulate(&other, 16, &file, |_, _| ()).unwrap();
        assert_ne!(third.training.image(2), first.training.image(2));
    }
}
