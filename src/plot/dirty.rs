//! Dirty image and dirty beam: what the data show before any prior.

use ndarray::Array2;
use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use std::f64::consts::TAU;

use super::{
    Figure,
    canvas::{self, Rect},
    colormap::Colormap,
    sky::SkyImage,
    style::{PAGE, WHITE},
};
use crate::{Result, grid::Grid, instrument::vlbi::Observation};

/// Dirty image and dirty beam of an observation, every visibility with the same weight.
///
/// # Errors
/// The figure cannot be drawn.
pub fn dirty(observation: &Observation, field_of_view: f64) -> Result<Figure> {
    /// Odd, so that one pixel lies on the peak of the beam.
    const PIXELS: usize = 161;
    const SIDE: f64 = 165.0;
    let grid = Grid::sky(PIXELS, field_of_view)?;
    let image = transform(observation, &grid, |value| value);
    let beam = transform(observation, &grid, |_| Complex64::ONE);
    let parts = [("Dirty image", &image, "Intensity (Jy/beam)"), ("Dirty beam", &beam, "Response")];
    let svg = canvas::draw(PAGE, SIDE + 52.0, |canvas| {
        for (index, (title, values, label)) in parts.into_iter().enumerate() {
            let rect = Rect::new(40.0 + 258.0 * index as f64, 18.0, SIDE, SIDE);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = if low < high { [low, high] } else { [0.0, 1.0] };
            let picture = SkyImage { values: values.view(), grid: &grid, map: Colormap::Heat, range };
            picture.paint(canvas, rect)?;
            let panel = picture.panel(canvas, rect);
            panel.frame(WHITE)?;
            panel.title(title)?;
            picture.colour_bar(canvas, Rect::new(rect.right() + 4.0, rect.top, 7.0, SIDE), label)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: inverse Fourier transform of the visibilities and of their sampling, uniform weight per visibility. \
         Station gains and the holes of the coverage are still in it: it is not an image of the source.",
        observation.source
    );
    Ok(Figure::new("dirty", caption, svg))
}

/// Mean over visibilities of Re V exp(-2 pi i (u x + v y)), with V chosen by `of`.
fn transform(observation: &Observation, grid: &Grid, of: impl Fn(Complex64) -> Complex64) -> Array2<f64> {
    let rows: Vec<(f64, f64, Complex64)> =
        observation.visibilities.iter().map(|row| (row.u, row.v, of(row.value))).collect();
    let (east, north) = (grid.east(), grid.north());
    let line = |y: f64| -> Vec<f64> {
        let mut line = vec![0.0; east.len()];
        for (u, v, value) in &rows {
            // The columns are evenly spaced, so each phase is the last one turned by the same angle.
            let mut turned = value * Complex64::cis(-TAU * (u * east[0] + v * y));
            let turn = Complex64::cis(TAU * u * grid.pitch[2]);
            for pixel in &mut line {
                *pixel += turned.re;
                turned *= turn;
            }
        }
        line
    };
    let lines: Vec<f64> = north.par_iter().flat_map_iter(|y| line(*y)).collect();
    let count = rows.len().max(1) as f64;
    Array2::from_shape_fn((north.len(), east.len()), |(i, j)| lines[i * east.len() + j] / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        instrument::vlbi::{
            Visibility,
            fourier::{Pulse, visibilities},
        },
        units::MICROARCSECOND,
    };

    #[test]
    fn a_point_source_appears_where_it_is() {
        let grid = Grid::sky(32, 160.0 * MICROARCSECOND).unwrap();
        let mut pixels = vec![0.0; grid.len()];
        pixels[20 * 32 + 5] = 1.0;
        let uv: Vec<[f64; 2]> =
            (0..200).map(f64::from).map(|k| [6e9 * (1.7 * k).sin(), 5e9 * (2.9 * k).cos()]).collect();
        let values = visibilities(&pixels, &grid, Pulse::Delta, &uv).unwrap();
        let row = |(&[u, v], &value): (&[f64; 2], &Complex64)| Visibility {
            time: 0.0,
            integration: 0.0,
            stations: [0, 1],
            u,
            v,
            value,
            sigma: 1.0,
        };
        let observation = Observation {
            source: "TEST".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 1e9,
            mjd: 0.0,
            stations: Vec::new(),
            visibilities: uv.iter().zip(&values).map(row).collect(),
        };
        let image = transform(&observation, &grid, |value| value);
        assert!((image[[20, 5]] - 1.0).abs() < 1e-9, "{}", image[[20, 5]]);
        assert!(image.indexed_iter().all(|(place, value)| place == (20, 5) || *value < 0.95));
    }
}
