//! Writes a simulated cell, what a camera sees of it, and the microscope, to compare a posterior with the truth:
//! `simulated_cell FOLDER [microtubules|pits|actin|reticulum] [photons] [seed]`, then
//! `antumbra reconstruct FOLDER/data.ome.tif --instrument FOLDER/microscope.yaml -o FOLDER/run` and
//! `antumbra diagnose FOLDER/run --truth FOLDER/truth.ome.tif`.
//!
//! `photons` is the mean number of photo-electrons of the cell's own light per camera pixel.

use std::{error::Error, fs, path::Path};

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::microscope::{
        Domain, Field, Microscope, Widefield,
        likelihood::{Noise, ShiftedPoisson},
    },
    io::stack::{Container, Metadata, SampleType, Shape, Title, write},
    prior::simulate::{
        SimulatorSettings,
        organelle::{Settings, Shares},
    },
    rng::Rng,
};
use ndarray::{Array2, s};

const MICROSCOPE: &str = "kind: widefield
summary: simulated, oil objective of NA 1.3, camera with known constants
emission: 525 nm
objective: {numerical_aperture: 1.3, immersion_index: 1.515, magnification: 100}
camera: {pixel: 6.26 um, conversion_gain: 0.5, offset: 100, read_noise: 1.5}
";
/// Camera pixels along a side, their size in the sample, and object voxels in each.
const SIDE: usize = 64;
const PITCH: f64 = 62.6e-9;
const FACTOR: usize = 2;
/// Object voxels beyond the field of view (2.5 um, as far as light is modelled), and camera's light without the cell, photo-electrons.
const MARGIN: usize = 80;
const BACKGROUND: f64 = 5.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name a folder")?;
    let kind = arguments.next().unwrap_or_else(|| "microtubules".into());
    let photons: f64 = arguments.next().map_or(Ok(60.0), |text| text.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;

    let microscope = Microscope::parse(MICROSCOPE, "microscope.yaml")?;
    let domain = Domain::new([1, SIDE, SIDE], [PITCH; 3], FACTOR, [0, MARGIN, MARGIN], 2)?;
    let [_, rows, columns] = domain.object.shape;
    let psf =
        microscope.psf(&Grid { shape: [1, 2 * MARGIN + 1, 2 * MARGIN + 1], pitch: domain.object.pitch })?;
    let dark = Field { background: vec![BACKGROUND], ..Field::default() };
    let forward = Widefield::new(&psf, &domain, &dark, &Compute::cpu_f64())?;

    let cell = cell(&kind, rows.max(columns), seed)?;
    let light = forward.predict(&cell)?.iter().sum::<f64>() / domain.count() as f64 - BACKGROUND;
    let cell: Vec<f64> = cell.iter().map(|value| value * photons / light).collect();
    let expected = forward.predict(&cell)?;
    let camera = microscope.camera.ok_or("the camera is described")?;
    let noise = ShiftedPoisson { data: expected.clone(), read_variance: vec![camera.read_noise.powi(2)] };
    let mut rng = Rng::new(seed).stream("photons", 0);
    let recorded = expected.iter().enumerate().map(|(pixel, light)| {
        (noise.draw(pixel, *light, &mut rng) / camera.conversion_gain + camera.offset).round() as f32
    });
    let data = Array2::from_shape_vec((SIDE, SIDE), recorded.collect())?;
    let whole = Array2::from_shape_vec((rows, columns), cell.iter().map(|value| *value as f32).collect())?;
    let view = |axis: usize| domain.before[axis]..domain.before[axis] + FACTOR * SIDE;
    let truth = whole.slice(s![view(1), view(2)]).to_owned();

    fs::create_dir_all(&folder)?;
    let folder = Path::new(&folder);
    fs::write(folder.join("microscope.yaml"), MICROSCOPE)?;
    save(&data, PITCH, &folder.join("data.ome.tif"))?;
    save(&truth, PITCH / FACTOR as f64, &folder.join("truth.ome.tif"))?;
    println!("{kind}, {photons} photo-electrons per pixel, seed {seed}: {}", folder.display());
    Ok(())
}

/// A cell of one kind of structure, row-major, in arbitrary units.
fn cell(kind: &str, pixels: usize, seed: u64) -> Result<Vec<f64>, Box<dyn Error>> {
    let shares = match kind {
        "microtubules" => Shares { microtubules: 1.0, ..Shares::NONE },
        "pits" => Shares { pits: 1.0, ..Shares::NONE },
        "actin" => Shares { actin: 1.0, ..Shares::NONE },
        "reticulum" => Shares { reticulum: 1.0, ..Shares::NONE },
        other => return Err(format!("`{other}` is not drawn; see the first lines of this example").into()),
    };
    let micrometres = 1e6 * PITCH / FACTOR as f64;
    let settings = Settings::plain(shares, micrometres);
    Ok(SimulatorSettings::Organelle(Box::new(settings)).build(pixels, seed)?.image(0))
}

/// Writes one plane with its pixel size.
fn save(image: &Array2<f32>, pitch: f64, file: &Path) -> Result<(), Box<dyn Error>> {
    let (y, x) = image.dim();
    let shape = Shape { time: 1, channels: 1, z: 1, y, x };
    let metadata = Metadata {
        voxel: [None, Some(pitch), Some(pitch)],
        ..Metadata::new("OME-TIFF", shape, SampleType::F32)
    };
    Ok(write(&metadata, Container::Ome, &Title::default(), |_, _, _| image.view(), file)?)
}
