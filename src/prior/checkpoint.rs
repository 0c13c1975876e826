//! Weights that others have trained, read from PyTorch checkpoints and safetensors files.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use candle_core::{DType, Device, Tensor, pickle::PthTensors};

use super::{Denoiser, network::Network};
use crate::{Error, Result, compute::Compute, rng::Rng, transfer::Transfer};

/// Largest file that is read, bytes.
const LARGEST: u64 = 1 << 32;
/// Buffers of resampling filters, which have no weights.
const FILTER: &str = "resample_filter";

/// The weights in `file` that are named as `network` names them, after `prefix`.
///
/// A PyTorch checkpoint is a dictionary of dictionaries; `key` tells which of them holds the weights, for example `ema`.
/// Its pickle is read as data: nothing in it is run. Buffers of resampling filters are left out.
///
/// # Errors
/// A file that is no checkpoint, without such a key, or with other weights; the message names the first.
pub fn read(file: &Path, key: Option<&str>, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
    let size = fs::metadata(file).map_err(|e| Error::io(file, e))?.len();
    if size > LARGEST {
        return Err(Error::format(file, "size", format!("{size} bytes is too large for a checkpoint")));
    }
    let tensors = match file.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => safetensors(file)?,
        Some("pt" | "pth" | "ckpt") => pickled(file, key)?,
        _ => {
            return Err(Error::format(
                file,
                "name",
                "give a file ending in .safetensors, .pt, .pth or .ckpt",
            ));
        }
    };
    let named = tensors
        .into_iter()
        .filter(|(name, _)| !name.ends_with(FILTER))
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor)));
    let named: BTreeMap<_, _> = named.collect();
    match named.is_empty() {
        true => Err(Error::format(
            file,
            "weights",
            format!("no name begins with `{prefix}`; try another --prefix"),
        )),
        false => Ok(named),
    }
}

fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

fn safetensors(file: &Path) -> Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load(file, &Device::Cpu)
        .map_err(|e| Error::format(file, "weights", first_line(&e)))
}

fn pickled(file: &Path, key: Option<&str>) -> Result<HashMap<String, Tensor>> {
    let unreadable = |e: candle_core::Error| {
        let remedy = "PyTorch writes readable files since version 1.6; older ones are to be saved anew";
        Error::format(file, "checkpoint", format!("{}; {remedy}", first_line(&e)))
    };
    let all = PthTensors::new(file, key).map_err(unreadable)?;
    if all.tensor_infos().is_empty() {
        let remedy =
            "the weights lie deeper; name their dictionary with --key, for example `ema` or `state_dict`";
        return Err(Error::format(file, "checkpoint", format!("no tensors at the top; {remedy}")));
    }
    let names: Vec<String> = all.tensor_infos().keys().cloned().collect();
    let tensor = |name: String| {
        let found = all.get(&name).map_err(unreadable)?;
        let tensor = found.ok_or_else(|| Error::format(file, &name, "the tensor is missing"))?;
        Ok((name, tensor.to_dtype(DType::F32)?))
    };
    names.into_iter().map(tensor).collect()
}

/// Mean square of the noise that a network finds in noise of the largest level and standard deviation 1: near 1 for one that
/// was read rightly.
///
/// # Errors
/// Weights that do not fit the network.
pub fn noise_found(network: &Network, tensors: BTreeMap<String, Tensor>) -> Result<f64> {
    let compute = Compute::cpu();
    let denoiser: Box<dyn Denoiser> = network.build(tensors, &compute)?;
    let ([z, y, x], (_, level)) = (denoiser.shape(), denoiser.noise_range());
    let noisy = (Rng::new(1).normals(&[1, z, y, x], &compute)? * level)?;
    let clean = denoiser.denoise(&noisy, &compute.tensor(vec![level], &[1])?)?;
    let found = ((noisy - clean)? / level)?.sqr()?.mean_all()?;
    Ok(f64::from(found.read_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::song::SongArchitecture;

    /// The formula with which the reference's weights are filled, in the order of its state dictionary.
    fn filled(architecture: &SongArchitecture) -> BTreeMap<String, Tensor> {
        let fill = |(k, parameter): (usize, crate::prior::weights::Parameter)| {
            let (name, shape) = (parameter.name, parameter.shape);
            let inputs: usize = shape[1..].iter().product();
            let norm = name.contains("norm");
            let value = |i: usize| {
                let v = (0.37 * i as f64 + 1.3 * k as f64 + 0.1).sin();
                let value = match (norm, name.ends_with("bias")) {
                    (true, true) => 0.1 * v,
                    (true, false) => 1.0 + 0.1 * v,
                    (false, true) => 0.05 * v,
                    (false, false) => v * (2.0 / inputs as f64).sqrt(),
                };
                value as f32
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
            (name, tensor)
        };
        architecture.parameters().into_iter().enumerate().map(fill).collect()
    }

    fn tiny() -> SongArchitecture {
        SongArchitecture {
            pixels: 16,
            channels: 32,
            multipliers: vec![1, 2],
            down_blocks: 1,
            attention: vec![8],
            data_std: 0.5,
            noise_range: (0.01, 150.0),
        }
    }

    /// The network of EDM's code with these weights in PyTorch: F at pixels 0 to 7, and its mean, for noise levels 0.05, 1, 20.
    const REFERENCE: [(f64, f64, [f64; 8]); 3] = [
        (
            0.05,
            -0.017950445413589478,
            [
                -0.202866330742836,
                -0.32061439752578735,
                -0.3185107111930847,
                -0.3139098286628723,
                -0.3079160749912262,
                -0.3021908104419708,
                -0.29675400257110596,
                -0.2913300395011902,
            ],
        ),
        (
            1.0,
            0.023706303909420967,
            [
                -0.17622695863246918,
                -0.2773924767971039,
                -0.26720476150512695,
                -0.26408782601356506,
                -0.2587876617908478,
                -0.2538756728172302,
                -0.24942252039909363,
                -0.2450854778289795,
            ],
        ),
        (
            20.0,
            0.05352353677153587,
            [
                0.02373390644788742,
                0.002837933599948883,
                0.03022228181362152,
                0.0339435376226902,
                0.039736177772283554,
                0.0436643585562706,
                0.046464815735816956,
                0.04891974478960037,
            ],
        ),
    ];

    #[test]
    fn a_foreign_network_gives_what_it_gives_in_pytorch() {
        let compute = Compute::cpu();
        let weights = filled(&tiny());
        assert_eq!(weights.len(), 142);
        assert_eq!(weights.values().map(Tensor::elem_count).sum::<usize>(), 748_737);
        let network = Network::Song(tiny()).build(weights, &compute).unwrap();
        let pixel = |t: usize| (0.05 * t as f64).sin() + 0.3 * (0.21 * t as f64).cos();
        let x = compute.tensor((0..256).map(pixel).collect(), &[1, 1, 16, 16]).unwrap();
        for (level, mean, first) in REFERENCE {
            let clean = network.denoise(&x, &compute.tensor(vec![level], &[1]).unwrap()).unwrap();
            let noise = ((&x - clean).unwrap() / level).unwrap().flatten_all().unwrap();
            let noise = noise.to_vec1::<f32>().unwrap();
            let found = noise.iter().map(|v| f64::from(*v)).sum::<f64>() / 256.0;
            assert!((found - mean).abs() < 1e-4, "mean at {level}: {found} {mean}");
            for (found, exact) in noise.iter().zip(first) {
                assert!((f64::from(*found) - exact).abs() < 1e-4, "{level}: {found} {exact}");
            }
        }
    }

    #[test]
    fn weights_are_found_by_prefix_and_other_files_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("foreign.safetensors");
        let tensor = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let names = ["model.a.weight", "model.a.resample_filter", "other"];
        let all: HashMap<_, _> = names.into_iter().map(|name| (name.to_string(), tensor.clone())).collect();
        candle_core::safetensors::save(&all, &file).unwrap();
        let found = read(&file, None, "model.").unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a.weight"]);
        let message = |file: &Path, prefix| read(file, None, prefix).unwrap_err().to_string();
        assert!(message(&file, "ema.").contains("--prefix"));
        let broken = folder.path().join("broken.pt");
        fs::write(&broken, b"no zip at all").unwrap();
        assert!(message(&broken, "").contains("checkpoint"));
        assert!(message(&folder.path().join("x.onnx"), "").contains("x.onnx"));
    }
}
