//! Writes a contact sheet of training images: `training_images sheet.png [blackhole|organelle] [seed]`.

use std::{error::Error, time::Instant};

use antumbra::prior::simulate::SimulatorSettings;
use plotters::prelude::*;

const PIXELS: usize = 64;
const ACROSS: usize = 10;
const DOWN: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "training_images.png".to_string());
    let settings = match arguments.next().as_deref() {
        Some("organelle") => SimulatorSettings::Organelle(Box::default()),
        _ => SimulatorSettings::default(),
    };
    let seed = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let simulator = settings.build(PIXELS, seed)?;

    let cell = 2 * PIXELS as i32;
    let root = BitMapBackend::new(&file, (ACROSS as u32 * cell as u32, DOWN as u32 * cell as u32))
        .into_drawing_area();
    root.fill(&WHITE)?;
    let start = Instant::now();
    let images: Vec<Vec<f64>> = (0..ACROSS * DOWN).map(|index| simulator.image(index as u64)).collect();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / images.len() as f64;
    for (index, image) in images.iter().enumerate() {
        let peak = image.iter().copied().fold(0.0, f64::max);
        let (left, top) = ((index % ACROSS) as i32 * cell, (index / ACROSS) as i32 * cell);
        for (pixel, value) in image.iter().enumerate() {
            // Three overlapping ramps, as in the colour map afmhot.
            let channel = |offset: f64| ((2.0 * value / peak - offset).clamp(0.0, 1.0) * 255.0) as u8;
            let colour = RGBColor(channel(0.0), channel(0.5), channel(1.0));
            for corner in 0..4 {
                let (x, y) = (2 * (pixel % PIXELS) as i32, 2 * (pixel / PIXELS) as i32);
                root.draw_pixel((left + x + corner % 2, top + y + corner / 2), &colour)?;
            }
        }
        root.draw(&Rectangle::new([(left, top), (left + cell - 1, top + cell - 1)], RGBColor(90, 90, 90)))?;
    }
    root.present()?;
    println!("{file}: {} images, {milliseconds:.1} ms each", images.len());
    Ok(())
}
