//! Times one pass of the network: `worker FOLDER OP BATCH BASE THREADS` obeys lines on standard input, and
//! `worker FOLDER write` writes the weights that it shares with PyTorch. See against.py.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        exact::{Normal, Projection},
    },
    posterior::{
        Solver,
        ppm::{Ppm, PpmSettings},
    },
    prior::{
        Adaptation, Denoiser, Scaling,
        unet::{Architecture, UNet},
    },
    rng::Rng,
    tensor::{precision::Precision, value_and_gradient},
};
use candle_core::{Device, Tensor, safetensors};

/// Linear data of the problem whose posterior is matched.
const DATA: usize = 16;
const LARGEST_BATCH: usize = 16;

fn main() {
    antumbra::compute::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [folder, "write"] => [32, 64].into_iter().for_each(|base| write(Path::new(folder), base)),
        [folder, "write-ppm"] => write_network(Path::new(folder), "ppm", Architecture::default()),
        [folder, "ppm", pixels, particles, device, precision] => {
            let [pixels, particles] = [pixels, particles].map(|number| number.parse().unwrap());
            <Precision as clap::ValueEnum>::from_str(precision, true).unwrap().apply();
            matching(Path::new(folder), pixels, particles, &Compute::named(device).unwrap());
        }
        [folder, op, batch, base, threads] => {
            let [batch, base, threads] = [batch, base, threads].map(|number| number.parse().unwrap());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| serve(Path::new(folder), op, batch, base));
        }
        _ => println!("this benchmark is run by `make bench-pytorch`"),
    }
}

fn architecture(base: usize) -> Architecture {
    Architecture {
        patch: 1,
        widths: vec![base, 2 * base, 2 * base, 2 * base],
        blocks: vec![2; 4],
        ..Architecture::default()
    }
}

fn write(folder: &Path, base: usize) {
    write_network(folder, &base.to_string(), architecture(base));
}

/// Random weights, images, noise levels, and what the network makes of them.
fn write_network(folder: &Path, name: &str, architecture: Architecture) {
    let (compute, rng) = (Compute::cpu(), Rng::new(1));
    let network = UNet::new(architecture.clone(), &rng, &compute).unwrap();
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (weight, tensor) in network.tensors().unwrap() {
        // No weight is left at zero, so that no path is switched off.
        let inputs = tensor.elem_count() / tensor.dim(0).unwrap();
        let noise = rng.stream(&weight, 1).normals(tensor.dims(), &compute).unwrap();
        tensors.insert(weight, (noise * (0.5 / (inputs as f64).sqrt())).unwrap());
    }
    let network = UNet::fixed(architecture, tensors.clone().into_iter().collect(), &compute).unwrap();
    let noisy = rng.stream("noisy", 0).normals(&[LARGEST_BATCH, 1, 64, 64], &compute).unwrap();
    let level = compute.tensor(vec![0.5; LARGEST_BATCH], &[LARGEST_BATCH]).unwrap();
    let expected = network.denoise(&noisy.narrow(0, 0, 1).unwrap(), &level.narrow(0, 0, 1).unwrap()).unwrap();
    tensors.extend([("noisy".into(), noisy), ("level".into(), level), ("expected".into(), expected)]);
    safetensors::save(&tensors, folder.join(format!("network{name}.safetensors"))).unwrap();
}

fn serve(folder: &Path, op: &str, batch: usize, base: usize) {
    let compute = Compute::cpu();
    let path = folder.join(format!("network{base}.safetensors"));
    let mut tensors = safetensors::load(path, &compute.device).unwrap();
    let mut take = |name: &str| tensors.remove(name).unwrap();
    let [noisy, level] =
        ["noisy", "level"].map(|name| take(name).narrow(0, 0, batch).unwrap().copy().unwrap());
    let expected = take("expected");
    let network = UNet::fixed(architecture(base), tensors.into_iter().collect(), &compute).unwrap();
    let copy = (op == "weights").then(|| network.trainable(Adaptation::Copy, &mut Rng::new(0)).unwrap());
    let loss = |network: &dyn Denoiser, noisy: &Tensor| {
        Ok(network.denoise(noisy, &level)?.sqr()?.flatten_from(1)?.sum(1)?)
    };
    let run = || match op {
        "forward" => drop(network.denoise(&noisy, &level).unwrap()),
        "input" => drop(value_and_gradient(&noisy, |noisy| loss(&network, noisy)).unwrap()),
        "weights" => {
            drop(loss(&**copy.as_ref().unwrap(), &noisy).unwrap().sum_all().unwrap().backward().unwrap())
        }
        _ => println!("unknown pass {op}"),
    };
    let first = network.denoise(&noisy, &level).unwrap().narrow(0, 0, 1).unwrap();
    let worst = largest((first - &expected).unwrap()) / largest(expected);
    run();
    obey(worst, run);
}

/// Steps of Principled Posterior Matching on a few linear data, all particles in one batch.
fn matching(folder: &Path, pixels: usize, particles: usize, compute: &Compute) {
    let mut tensors = safetensors::load(folder.join("networkppm.safetensors"), &Device::Cpu).unwrap();
    let [noisy, level, expected] = ["noisy", "level", "expected"].map(|name| tensors.remove(name).unwrap());
    let architecture = |pixels| Architecture { pixels, ..Architecture::default() };
    let network =
        |pixels| UNet::fixed(architecture(pixels), tensors.clone().into_iter().collect(), compute).unwrap();
    let on_device = |x: Tensor| x.narrow(0, 0, 1).unwrap().to_device(&compute.device).unwrap();
    let first = network(64).denoise(&on_device(noisy), &on_device(level)).unwrap();
    let difference = (first.to_device(&Device::Cpu).unwrap() - &expected).unwrap();
    let rows = Rng::new(2).normals(&[DATA, pixels * pixels], compute).unwrap();
    let problem = Problem {
        forward: Arc::new(Projection {
            grid: Grid { shape: [1, pixels, pixels], pitch: [1.0; 3] },
            matrix: (rows / pixels as f64).unwrap(),
        }),
        likelihoods: vec![Arc::new(Normal {
            data: Tensor::zeros((1, DATA), compute.dtype, &compute.device).unwrap(),
            sigma: 0.1,
        })],
        scaling: Scaling::IDENTITY,
    };
    let (prior, mut rng) = (network(pixels), Rng::new(3));
    let settings = PpmSettings { particles, steps: 1 << 20, draw_steps: 2, ..PpmSettings::default() };
    let mut ppm = Ppm::new(settings, &prior, &rng, compute).unwrap();
    let mut step = || {
        ppm.step(&problem, &prior, &mut rng).unwrap();
        compute.device.synchronize().unwrap();
    };
    (0..3).for_each(|_| step());
    obey(largest(difference) / largest(expected), step);
}

fn largest(x: Tensor) -> f32 {
    x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Says how far the network's output is from what was written, then runs and times once for each line of standard input.
fn obey(difference: f32, mut run: impl FnMut()) {
    println!("ready {difference:.3e}");
    for _ in std::io::stdin().lock().lines() {
        let (cpu, start) = (cpu_seconds(), Instant::now());
        run();
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!("{:.4} {:.4} {:.1}", 1e3 * wall, 1e3 * cpu, peak_megabytes());
        std::io::stdout().flush().unwrap();
    }
}

fn usage() -> libc::rusage {
    // SAFETY: `usage` is plain data that the call fills in.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    }
}

fn cpu_seconds() -> f64 {
    let usage = usage();
    [usage.ru_utime, usage.ru_stime].iter().map(|t| t.tv_sec as f64 + 1e-6 * t.tv_usec as f64).sum()
}

fn peak_megabytes() -> f64 {
    usage().ru_maxrss as f64 / 1024.0
}
