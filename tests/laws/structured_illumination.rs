//! What holds under structured illumination whatever the data are: the forward model's laws, and stripes that are known.

use std::f64::consts::{PI, TAU};

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward,
        microscope::{
            Domain, Field, Optics, Psf, Widefield,
            psf::Recipe,
            sim::{Layout, Pattern, Profile, Structured, estimate},
        },
    },
    rng::Rng,
    tensor::value_and_gradient,
};
use candle_core::Tensor;
use ndarray::Array3;

const PITCH: [f64; 3] = [1e-7, 62.6e-9, 62.6e-9];
const SIDE: usize = 256;
const THREE: Layout = Layout { angles: 3, phases: 3 };

/// Stripes of 180 nm at 60 degrees from each other, with phases up to 8 degrees off equal steps and frames of unequal brightness.
fn patterns(layout: &Layout) -> Vec<Pattern> {
    let mut rng = Rng::new(4);
    (0..layout.angles)
        .map(|angle| {
            let direction = 0.4 + PI * angle as f64 / layout.angles as f64;
            let frequency = (1.0 + 0.004 * angle as f64) / 180e-9;
            let phase = |p: usize| {
                let off = (2.0 * rng.uniform() - 1.0) * 8.0 * PI / 180.0;
                1.0 + angle as f64 + TAU * p as f64 / layout.phases as f64 + off
            };
            Pattern {
                frequency: [frequency * direction.sin(), frequency * direction.cos()],
                contrast: 0.4 + 0.2 * angle as f64,
                phases: (0..layout.phases).map(phase).collect(),
                intensities: (0..layout.phases).map(|p| 1.0 + 0.03 * (p as f64 - 1.0)).collect(),
                profile: Profile::even(),
                significance: f64::INFINITY,
            }
        })
        .collect()
}

/// A point-spread function without symmetry, so that a mirrored axis shows.
fn lopsided(domain: &Domain) -> Psf {
    let (mut rng, shape) = (Rng::new(7), [1, 5, 4]);
    let values = Array3::from_shape_fn(shape, |_| rng.uniform());
    Psf { grid: Grid { shape, pitch: domain.object.pitch }, values }
}

/// The same stripes, brighter towards a corner of the small field.
fn uneven() -> Vec<Pattern> {
    let brighter = |(angle, pattern): (usize, Pattern)| {
        let coefficients = vec![1.0, 0.1 * (angle as f64 + 1.0), -0.3];
        Pattern { profile: Profile::new([1.5e-7; 2], [2e-7; 2], coefficients), ..pattern }
    };
    patterns(&THREE).into_iter().enumerate().map(brighter).collect()
}

fn small() -> (Domain, Psf, Vec<f64>, Structured) {
    let compute = Compute::cpu_f64();
    let domain = Domain::new([1, 6, 5], PITCH, 2, [0, 3, 2], 1).unwrap();
    let psf = lopsided(&domain);
    let background: Vec<f64> = (0..9 * domain.count()).map(|i| 2.0 + 0.1 * i as f64).collect();
    let forward = Structured::new(&psf, &domain, &background, &uneven(), &compute).unwrap();
    (domain, psf, background, forward)
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// Every frame by itself: the object times the stripes at each voxel, through the widefield microscope.
#[test]
fn frames_are_widefield_images_of_the_lit_object() {
    let (domain, psf, background, forward) = small();
    let object = Rng::new(1).normals(&[1, 1, 18, 14], &Compute::cpu_f64()).unwrap();
    let found: Vec<f64> = forward.apply(&object).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<f64> = object.flatten_all().unwrap().to_vec1().unwrap();
    let (_, rows, columns) = (domain.object.shape[0], domain.object.shape[1], domain.object.shape[2]);
    assert_eq!(values.len(), rows * columns);
    for (frame, found) in found.chunks(domain.count()).enumerate() {
        let pattern = &uneven()[frame / 3];
        let background = background[frame * domain.count()..][..domain.count()].to_vec();
        let field = Field { flat_field: Vec::new(), background };
        let widefield = Widefield::new(&psf, &domain, &field, &Compute::cpu_f64()).unwrap();
        let lit: Vec<f64> = (0..values.len())
            .map(|i| {
                // Camera pixels are two voxels wide, and the first one begins after the margin.
                let pixel = |voxel: usize, axis: usize| {
                    ((voxel as f64 + 0.5 - domain.before[axis] as f64) / 2.0 - 0.5) * PITCH[axis]
                };
                values[i] * pattern.illumination(frame % 3, [pixel(i / columns, 1), pixel(i % columns, 2)])
            })
            .collect();
        for (found, expected) in found.iter().zip(widefield.predict(&lit).unwrap()) {
            assert!((found - expected).abs() < 1e-10, "frame {frame}: {found} {expected}");
        }
    }
}

#[test]
fn the_gradient_is_the_adjoint_and_batches_are_loops() {
    let (domain, _, _, forward) = small();
    let compute = Compute::cpu_f64();
    let mut rng = Rng::new(2);
    let shape = [2, 1, domain.object.shape[1], domain.object.shape[2]];
    let (image, direction) = (rng.normals(&shape, &compute).unwrap(), rng.normals(&shape, &compute).unwrap());
    let weight = rng.normals(&[2, 9 * domain.count()], &compute).unwrap();
    let weighted = |x: &Tensor| Ok((forward.apply(x)? * &weight)?.sum(1)?);
    let (_, gradient) = value_and_gradient(&image, weighted).unwrap();
    let dark = forward.apply(&image.zeros_like().unwrap()).unwrap();
    let expected = dot(&(forward.apply(&direction).unwrap() - dark).unwrap(), &weight);
    assert!((dot(&gradient, &direction) - expected).abs() < 1e-10 * expected.abs().max(1.0));
    let square = |x: &Tensor| Ok(forward.apply(x)?.sqr()?.sum(1)?);
    let (_, slope) = value_and_gradient(&image, square).unwrap();
    let total = |step: f64| {
        let moved = (&image + (&direction * step).unwrap()).unwrap();
        square(&moved).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let difference = (total(1e-4) - total(-1e-4)) / 2e-4;
    assert!((difference / dot(&slope, &direction) - 1.0).abs() < 1e-6);
    let both: Vec<Vec<f64>> = forward.apply(&image).unwrap().to_vec2().unwrap();
    for (index, together) in both.iter().enumerate() {
        let alone = forward.apply(&image.narrow(0, index, 1).unwrap()).unwrap();
        assert_eq!(together, &alone.flatten_all().unwrap().to_vec1::<f64>().unwrap());
    }
}

/// Filaments seen by 256 x 256 pixels with shot noise and read noise; `light` is the mean of a frame above the background of 5.
fn frames(light: f64, layout: &Layout) -> (Array3<f64>, Psf, f64) {
    let compute = Compute::cpu_f64();
    let optics = Optics::matched(1.3, 1.515, 525e-9);
    let domain = Domain::new([1, SIDE, SIDE], PITCH, 2, [0, 20, 20], 2).unwrap();
    let psf = Recipe::new(optics).psf(&Grid { shape: [1, 65, 65], pitch: domain.object.pitch }).unwrap();
    let forward = Structured::new(&psf, &domain, &[0.0], &patterns(layout), &compute).unwrap();
    let mut rng = Rng::new(9);
    let [_, rows, columns] = domain.object.shape;
    let mut object = vec![0.0; rows * columns];
    for _ in 0..150 {
        let (mut y, mut x) = (rng.uniform() * rows as f64, rng.uniform() * columns as f64);
        let mut direction = TAU * rng.uniform();
        for _ in 0..500 {
            direction += 0.02 * rng.normal();
            (y, x) = (y + 0.5 * direction.sin(), x + 0.5 * direction.cos());
            if (0.0..rows as f64).contains(&y) && (0.0..columns as f64).contains(&x) {
                object[y as usize * columns + x as usize] += 0.5 + rng.uniform();
            }
        }
    }
    let object = Tensor::from_vec(object, (1, 1, rows, columns), &compute.device).unwrap();
    let seen: Vec<f64> = forward.apply(&object).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let scale = light * seen.len() as f64 / seen.iter().sum::<f64>();
    let noisy = seen.iter().map(|value| {
        let expected = 5.0 + value * scale;
        expected + (expected + 2.0).sqrt() * rng.normal()
    });
    let frames = Array3::from_shape_vec((layout.frames(), SIDE, SIDE), noisy.collect()).unwrap();
    (frames, psf, optics.cut_off())
}

/// Frequency to 1e-3, phases in the middle of the field to a few degrees, contrast to a tenth.
#[test]
fn known_stripes_are_found_also_in_little_light() {
    for (light, layout) in [(600.0, THREE), (15.0, THREE), (15.0, Layout { angles: 2, phases: 5 })] {
        let (frames, psf, cut_off) = frames(light, &layout);
        let found = estimate(frames.view(), [PITCH[1], PITCH[2]], (&psf, 2), cut_off, &layout).unwrap();
        for (found, truth) in found.iter().zip(patterns(&layout)) {
            let distance = [0, 1].map(|axis| found.frequency[axis] - truth.frequency[axis]);
            let relative = distance[0].hypot(distance[1]) * truth.period();
            let contrast = found.contrast / truth.contrast - 1.0;
            let middle = TAU * (distance[0] * PITCH[1] + distance[1] * PITCH[2]) * 0.5 * (SIDE - 1) as f64;
            let phases = found.phases.iter().zip(&truth.phases);
            let off: Vec<f64> = phases
                .map(|(found, truth)| ((found - truth + middle + PI).rem_euclid(TAU) - PI).to_degrees())
                .collect();
            println!(
                "light {light}: frequency {relative:.1e}, contrast {contrast:.3}, phases {off:.1?} degrees"
            );
            assert!(relative < 1e-3, "{light}: frequency off by {relative}");
            assert!(contrast.abs() < 0.1, "{light}: contrast off by {contrast}");
            assert!(off.iter().all(|off| off.abs() < 8.0), "{light}: phases off by {off:?} degrees");
            let rms = (off.iter().map(|off| off * off).sum::<f64>() / off.len() as f64).sqrt();
            assert!(rms < 5.0, "{light}: phases off by {rms} degrees");
            let mean = truth.intensities.iter().sum::<f64>() / truth.intensities.len() as f64;
            for (found, truth) in found.intensities.iter().zip(&truth.intensities) {
                assert!((found - truth / mean).abs() < 0.02, "{light}: brightness {found} {truth}");
            }
        }
    }
}

#[test]
fn frames_without_stripes_and_wrong_numbers_of_frames_are_refused() {
    let (frames, psf, cut_off) = frames(100.0, &THREE);
    let pitch = [PITCH[1], PITCH[2]];
    let refused = |frames: ndarray::ArrayView3<f64>, layout: Layout| {
        estimate(frames, pitch, (&psf, 2), cut_off, &layout).unwrap_err().to_string()
    };
    let message = refused(frames.slice(ndarray::s![..8, .., ..]), THREE);
    assert!(
        message.contains("microscope.sim") && message.contains('9') && message.contains('8'),
        "{message}"
    );
    assert!(refused(frames.view(), Layout { angles: 9, phases: 1 }).contains("3 phases"));
    let mut rng = Rng::new(3);
    let first = frames.index_axis(ndarray::Axis(0), 0);
    let even = Array3::from_shape_fn((9, SIDE, SIDE), |(_, y, x)| first[[y, x]] + 5.0 * rng.normal());
    assert!(refused(even.view(), THREE).contains("no stripes"));
}
