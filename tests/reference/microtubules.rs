//! Real microtubules: widefield data deconvolved through the forward model against structured illumination of the same cell.

use antumbra::{
    compute::Compute,
    instrument::{
        microscope::{
            Microscope,
            problem::{Settings, problem},
            sim::Layout,
        },
        richardson_lucy::richardson_lucy,
    },
    io::stack::Stack,
    prior::Scaling,
};
use ndarray::{Array2, s};

use super::psf::shared;

/// Voxels at the border of the reference that are left out: they were tapered.
const BORDER: usize = 24;
/// What numpy reached with 10 iterations of the same algorithm: correlation, and PSNR after both images were mapped to
/// [0, 1] at their 0.1 % and 99.9 % quantiles.
const NUMPY: [f64; 2] = [0.923, 23.55];

fn inner(image: &Array2<f64>) -> Vec<f64> {
    let (rows, columns) = image.dim();
    image.slice(s![BORDER..rows - BORDER, BORDER..columns - BORDER]).iter().copied().collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let product = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    product(a, ma, b, mb) / (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt()
}

fn normalised(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[(share * (sorted.len() - 1) as f64).round() as usize];
    let (low, high) = (at(0.001), at(0.999));
    values.iter().map(|value| ((value - low) / (high - low)).clamp(0.0, 1.0)).collect()
}

fn psnr(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (normalised(a), normalised(b));
    let error = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64;
    -10.0 * error.log10()
}

/// Agreement with structured illumination, correlation and PSNR, of so many iterations of Richardson-Lucy on a file seen
/// through the microscope with its measured transfer function; `None` where the data are not at hand.
fn agreement(file: &str, sim: Option<Layout>, iterations: usize) -> Option<[f64; 2]> {
    let (Some(data), Some(otf), Some(truth)) =
        (shared(file), shared("otf2d_radial_488nm.csv"), shared("mt_sim_reference_x2.tif"))
    else {
        return None;
    };
    let yaml = format!(
        "kind: widefield\nsummary: test\nemission: 525 nm\nobjective: {{numerical_aperture: 1.3, immersion_index: 1.515}}\n\
         psf: {{measured: {{radial_otf: {}}}}}\n",
        otf.display()
    );
    let microscope = Microscope::parse(&yaml, "test").unwrap();
    let recorded = Stack::open(&data).unwrap().volume(0, 0).unwrap().mapv(f64::from);
    let settings = Settings { background: Some(18000.0), sim, ..Settings::default() };
    let compute = Compute::cpu();
    let prior = (Scaling::IDENTITY, 2);
    let prepared = problem(recorded.view(), [62.6e-9; 3], &microscope, &settings, prior, &compute).unwrap();
    let values: Vec<f64> = recorded.iter().copied().collect();
    let image = richardson_lucy(prepared.problem.forward.as_ref(), &values, iterations, &compute).unwrap();
    let [_, top, left] = prepared.domain.before;
    let shown = image.slice(s![0, top..top + 512, left..left + 512]).mapv(f64::from);
    let reference = Stack::open(&truth).unwrap().volume(0, 0).unwrap();
    let reference = reference.slice(s![0, .., ..]).mapv(|value| f64::from(value).max(0.0));
    let (shown, reference) = (inner(&shown), inner(&reference));
    let found = [correlation(&shown, &reference), psnr(&shown, &reference)];
    println!("{file}, {iterations} iterations: correlation {:.4}, PSNR {:.2} dB", found[0], found[1]);
    Some(found)
}

#[test]
fn richardson_lucy_of_real_microtubules_agrees_with_structured_illumination_as_in_numpy() {
    let Some(found) = agreement("mt_widefield.mrc", None, 10) else { return };
    assert!((found[0] - NUMPY[0]).abs() < 0.01, "{found:?}");
    assert!((found[1] - NUMPY[1]).abs() < 0.5, "{found:?}");
}

/// All raw frames through their stripes against their mean through even light: where the stripes are right, the frames
/// tell more.
#[test]
fn raw_frames_tell_more_than_their_mean() {
    let sim = Some(Layout { angles: 3, phases: 3 });
    let Some(even) = agreement("mt_widefield.mrc", None, 20) else { return };
    let Some(raw) = agreement("mt_sim_raw9.mrc", sim, 20) else { return };
    assert!(raw[0] > even[0] && raw[1] > even[1], "{raw:?} {even:?}");
}
