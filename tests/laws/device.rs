//! Every device computes what a CPU computes in double precision, gradients included.

use std::{collections::BTreeMap, sync::RwLock};

use antumbra::{
    compute::Compute,
    posterior::{
        Solver,
        ppm::{Ppm, PpmSettings},
    },
    prior::{
        Adaptation, Denoiser,
        tiled::Tiled,
        unet::{Architecture, UNet},
    },
    rng::Rng,
    tensor::{
        conv::conv2d,
        layer::Layer,
        norm::modulated_silu,
        precision::Precision,
        resample::{average2, repeat2, repeat2_and_join},
        residual::{Layers, residual_block},
        scale::scaled,
    },
};
use candle_core::{DType, Device, Tensor, Var};

use super::{
    microscope::{network_objects, problems},
    vlbi::{all_products, observation},
};
use crate::devices;

/// Largest difference in units of the largest value: rounding of single precision in sums over thousands of terms.
const SINGLE: f64 = 1e-4;
/// The same in double precision.
const DOUBLE: f64 = 1e-10;

/// Results of one computation by name.
type Results = Vec<(&'static str, Tensor)>;

/// Held by whoever changes the precision of all networks.
static PRECISION: RwLock<()> = RwLock::new(());

/// Compares what `run` gives on every device, in both precisions, with what it gives on a CPU in double precision.
fn on_every_device(run: impl Fn(&Compute) -> Results) {
    let _unchanged = PRECISION.read().unwrap();
    let exact = run(&Compute::cpu_f64());
    for compute in devices::single().into_iter().chain(devices::double()) {
        let tolerance = if compute.dtype == DType::F32 { SINGLE } else { DOUBLE };
        for ((name, exact), (_, found)) in exact.iter().zip(run(&compute)) {
            let worst = distance(&found, exact);
            assert!(worst < tolerance, "{name} on {} {:?}: {worst}", compute.name(), compute.dtype);
        }
    }
}

/// Largest difference from what a CPU found in double precision, in units of its largest value.
fn distance(found: &Tensor, exact: &Tensor) -> f64 {
    let found = found.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    largest(&(found - exact).unwrap()) / largest(exact).max(1e-300)
}

fn largest(x: &Tensor) -> f64 {
    x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Variables with normal values, the same on all devices.
fn variables<const N: usize>(shapes: [&[usize]; N], compute: &Compute) -> [Var; N] {
    let mut rng = Rng::new(3);
    shapes.map(|shape| Var::from_tensor(&rng.normals(shape, compute).unwrap()).unwrap())
}

/// Value and gradients of an operation, weighted so that each output counts differently.
fn value_and_gradients(y: &Tensor, variables: &[&Var], compute: &Compute) -> Results {
    let weights = Rng::new(4).normals(y.dims(), compute).unwrap();
    let gradients = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = |variable: &&Var| ("gradient", gradients.get(variable.as_tensor()).unwrap().clone());
    [("value", y.detach())].into_iter().chain(variables.iter().map(gradient)).collect()
}

#[test]
fn convolutions() {
    for (inputs, outputs, kernel) in
        [(4, 8, 3), (16, 12, 3), (5, 3, 3), (8, 4, 1), (3, 5, 5), (16, 4, 3), (2, 9, 5)]
    {
        on_every_device(|compute| {
            let shapes: [&[usize]; 3] = [&[3, 9, 7, inputs], &[outputs, inputs, kernel, kernel], &[outputs]];
            let [x, w, bias] = variables(shapes, compute);
            let y = conv2d(x.as_tensor(), w.as_tensor(), Some(bias.as_tensor())).unwrap();
            value_and_gradients(&y, &[&x, &w, &bias], compute)
        });
    }
}

#[test]
fn normalisation_and_modulation() {
    for (pixels, channels, groups) in [(5, 12, 3), (40, 32, 8), (3, 300, 4)] {
        on_every_device(|compute| {
            let [x, scale, shift] =
                variables([&[2, pixels, 6, channels], &[2, channels], &[2, channels]], compute);
            let y = modulated_silu(x.as_tensor(), scale.as_tensor(), shift.as_tensor(), groups).unwrap();
            value_and_gradients(&y, &[&x, &scale, &shift], compute)
        });
    }
}

#[test]
fn changes_of_size() {
    for (channels, others) in [(5, 3), (8, 4)] {
        on_every_device(|compute| {
            let [x, other] = variables([&[2, 6, 4, channels], &[2, 12, 8, others]], compute);
            let small = average2(x.as_tensor()).unwrap();
            let y = (repeat2(&small.sqr().unwrap()).unwrap() + x.as_tensor()).unwrap();
            value_and_gradients(&repeat2_and_join(&y, other.as_tensor()).unwrap(), &[&x, &other], compute)
        });
    }
}

#[test]
fn images_times_numbers() {
    on_every_device(|compute| {
        let [x, factors] = variables([&[3, 1, 7, 5], &[3]], compute);
        value_and_gradients(&scaled(x.as_tensor(), factors.as_tensor()).unwrap(), &[&x], compute)
    });
}

#[test]
fn residual_blocks() {
    on_every_device(|compute| {
        let shapes: [&[usize]; 8] =
            [&[2, 6, 8, 8], &[2, 48], &[16, 8, 3, 3], &[16], &[16, 16, 3, 3], &[16], &[16, 8, 1, 1], &[16]];
        let variables = variables(shapes, compute);
        let layer = |i: usize| Layer {
            weight: variables[i].as_tensor().clone(),
            bias: variables[i + 1].as_tensor().clone(),
            kept: None,
        };
        let layers = Layers { first: layer(2), second: layer(4), skip: Some(layer(6)) };
        let y = residual_block(variables[0].as_tensor(), variables[1].as_tensor(), &layers, 4).unwrap();
        value_and_gradients(&y, &variables.iter().collect::<Vec<_>>(), compute)
    });
}

/// A small network with no weight zero.
fn network(compute: &Compute) -> UNet {
    let architecture = Architecture {
        pixels: 12,
        widths: vec![8, 16],
        blocks: vec![1, 2],
        embedding: 8,
        groups: 4,
        ..Architecture::default()
    };
    let start = UNet::new(architecture.clone(), &Rng::new(4), &Compute::cpu_f64()).unwrap();
    let fill = |(name, tensor): (String, Tensor)| {
        let noise = Rng::new(5).stream(&name, 0).normals(tensor.dims(), &Compute::cpu_f64()).unwrap();
        (name, (tensor + (noise * 0.1).unwrap()).unwrap())
    };
    let weights: BTreeMap<_, _> = start.tensors().unwrap().into_iter().map(fill).collect();
    UNet::fixed(architecture, weights, compute).unwrap()
}

#[test]
fn networks_and_the_gradients_of_all_weights() {
    on_every_device(|compute| {
        let network = network(compute).trainable(Adaptation::Copy, &mut Rng::new(1)).unwrap();
        let [x] = variables([&[3, 1, 12, 12]], compute);
        let levels = compute.tensor(vec![0.05, 0.6, 7.0], &[3]).unwrap();
        let y = network.denoise(x.as_tensor(), &levels).unwrap();
        let weights: Vec<Var> = network.variables().into_iter().map(|(_, variable)| variable).collect();
        let all: Vec<&Var> = [&x].into_iter().chain(&weights).collect();
        value_and_gradients(&y, &all, compute)
    });
}

#[test]
fn likelihoods_of_visibilities() {
    let data = observation(1);
    on_every_device(|compute| {
        let problem = all_products(&data, compute);
        let [z, y, x] = problem.forward.grid().shape;
        let images = Rng::new(7).normals(&[3, z, y, x], compute).unwrap();
        let (value, gradient) = problem.log_likelihood_and_gradient(&images).unwrap();
        vec![("log likelihood", value), ("gradient", gradient)]
    });
}

/// Convolutions by fast transforms on the host and by matrix products on a GPU, and all noise models of cameras.
#[test]
fn likelihoods_of_stacks() {
    on_every_device(|compute| {
        let mut results = Vec::new();
        for problem in problems(compute) {
            let images = network_objects(&problem, 3, compute);
            let (value, gradient) = problem.log_likelihood_and_gradient(&images).unwrap();
            results.extend([("log likelihood", value), ("gradient", gradient)]);
        }
        results
    });
}

#[test]
fn tiles() {
    on_every_device(|compute| {
        let tiled = Tiled::new(Box::new(network(compute)), [2, 60, 76], 4, compute).unwrap();
        let [x] = variables([&[1, 2, 60, 76]], compute);
        let y = tiled.denoise(x.as_tensor(), &compute.tensor(vec![0.4], &[1]).unwrap()).unwrap();
        value_and_gradients(&y, &[&x], compute)
    });
}

/// In double precision only: the first steps of Adam have the size of the learning rate whatever the gradient, so
/// rounding shows where it is nearly zero.
#[test]
fn steps_of_posterior_matching() {
    let _unchanged = PRECISION.read().unwrap();
    let data = observation(1);
    let moved = |compute: &Compute| {
        let (problem, prior) = (all_products(&data, compute), network(compute));
        let settings = PpmSettings { particles: 4, steps: 6, draw_steps: 4, ..PpmSettings::default() };
        let mut ppm = Ppm::new(settings, &prior, &Rng::new(2), compute).unwrap();
        let mut rng = Rng::new(3);
        (0..2).for_each(|_| _ = ppm.step(&problem, &prior, &mut rng).unwrap());
        ppm.draws().unwrap().images.to_device(&Device::Cpu).unwrap()
    };
    let exact = moved(&Compute::cpu_f64());
    for compute in devices::double() {
        let worst = largest(&(moved(&compute) - &exact).unwrap());
        assert!(worst < 1e-6, "{}: {worst}", compute.name());
    }
}

/// Rounding to 8 bits changes what a network gives by about as much; on a CPU it changes nothing.
#[test]
fn lower_precision_is_close() {
    let denoised = |compute: &Compute| {
        let x = Rng::new(6).normals(&[4, 1, 12, 12], compute).unwrap();
        let levels = compute.tensor(vec![0.05, 0.3, 1.0, 9.0], &[4]).unwrap();
        network(compute).denoise(&x, &levels).unwrap()
    };
    let _alone = PRECISION.write().unwrap();
    let exact = denoised(&Compute::cpu_f64());
    for (precision, tolerance) in
        [(Precision::Tf32, 3e-3), (Precision::Bf16, 3e-2), (Precision::Full, SINGLE)]
    {
        precision.apply();
        for compute in devices::single() {
            let worst = distance(&denoised(&compute), &exact);
            assert!(worst < tolerance, "{precision:?} on {}: {worst}", compute.name());
        }
    }
}

/// GPUs take other ways where images are large and 11 bits suffice.
#[test]
fn large_convolutions_in_lower_precision_are_close() {
    for (shape, outputs) in [([32, 128, 128, 16], 8), ([40, 70, 50, 64], 40), ([40, 70, 50, 64], 72)] {
        close_in_tf32(|compute| {
            let [x, w, bias] = variables([&shape, &[outputs, shape[3], 3, 3], &[outputs]], compute);
            let y = conv2d(x.as_tensor(), w.as_tensor(), Some(bias.as_tensor())).unwrap();
            value_and_gradients(&y, &[&x, &w, &bias], compute)
        });
    }
}

#[test]
fn large_residual_blocks_in_lower_precision_are_close() {
    for outputs in [32, 16] {
        close_in_tf32(|compute| {
            let shapes: [&[usize]; 8] = [
                &[16, 128, 128, 32],
                &[16, 2 * (32 + outputs)],
                &[outputs, 32, 3, 3],
                &[outputs],
                &[outputs, outputs, 3, 3],
                &[outputs],
                &[outputs, 32, 1, 1],
                &[outputs],
            ];
            let variables = variables(shapes, compute);
            let layer = |i: usize| Layer {
                weight: (variables[i].as_tensor() * 0.1).unwrap(),
                bias: variables[i + 1].as_tensor().clone(),
                kept: None,
            };
            let skip = (outputs != 32).then(|| layer(6));
            let layers = Layers { first: layer(2), second: layer(4), skip };
            let y = residual_block(variables[0].as_tensor(), variables[1].as_tensor(), &layers, 8).unwrap();
            let used = if outputs == 32 { 6 } else { 8 };
            value_and_gradients(&y, &variables.iter().take(used).collect::<Vec<_>>(), compute)
        });
    }
}

/// Compares what `run` gives in TF32 on every GPU with what it gives on a CPU in double precision.
fn close_in_tf32(run: impl Fn(&Compute) -> Results) {
    let gpus = || devices::single().into_iter().filter(|compute| !compute.device.is_cpu());
    let _alone = PRECISION.write().unwrap();
    Precision::Tf32.apply();
    let found: Vec<Results> = gpus().map(|gpu| run(&gpu)).collect();
    Precision::Full.apply();
    for found in found {
        for ((name, exact), (_, found)) in run(&Compute::cpu_f64()).iter().zip(found) {
            let worst = distance(&found, exact);
            assert!(worst < 3e-3, "{name}: {worst}");
        }
    }
}
