//! The intensity that a pupil makes around its focus: radial integrals, tabulated once and averaged over each voxel.

use std::f64::consts::TAU;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex64;

use super::{
    pupil::{ORDER_WEIGHTS, Pupil},
    quadrature::gauss_legendre,
    zernike::{Aberrations, harmonics},
};
use crate::{Error, Result, grid::Grid};

/// Points per voxel and axis over which the intensity is averaged: exact to 1e-5 of the peak at the Nyquist pitch.
const SUBPIXELS: usize = 3;
/// Table entries per wavelength / NA; cubic interpolation between them is good to 1e-5 of the peak.
const ENTRIES: f64 = 64.0;
/// Largest table of field values.
const LARGEST_TABLE: usize = 1 << 26;

/// Voxel averages of the intensity, with the centre at shape/2, as fractions of the light that crosses each plane.
///
/// The central plane lies `focus` metres from the nominal focus.
pub(super) fn intensity(
    pupil: &Pupil,
    aberrations: &Aberrations,
    grid: &Grid,
    focus: f64,
) -> Result<Array3<f64>> {
    let [planes, rows, columns] = grid.shape;
    let field = Field::new(pupil, aberrations)?;
    let heights = (0..planes).map(|z| (z as f64 - (planes / 2) as f64) * grid.pitch[0] + focus);
    let waves: Vec<Vec<Complex64>> = heights.map(|z| pupil.wave(z)).collect();
    let points = points(grid);
    let step = TAU / (pupil.wavenumber * pupil.edge * ENTRIES);
    let radius = points.iter().map(|point| point.radius).fold(0.0, f64::max);
    // Interpolation reaches two entries beyond.
    let entries = (radius / step).ceil() as usize + 3;
    let width = if field.is_symmetric() { 1 } else { 2 * field.terms() };
    if entries.saturating_mul(planes).saturating_mul(width) > LARGEST_TABLE {
        return Err(Error::config(
            "shape",
            "the point-spread function is too large; make it narrower or thinner",
        ));
    }
    let table: Vec<Vec<Sample>> =
        (0..entries).into_par_iter().map(|entry| field.at_radius(entry as f64 * step, &waves)).collect();
    let scale = grid.pitch[1] * grid.pitch[2] / pupil.energy();
    let mut values = vec![0.0; grid.len()];
    values.par_chunks_mut(rows * columns).enumerate().for_each(|(z, slice)| {
        let plane = field.plane(table.iter().map(|row| &row[z]), step);
        for (value, points) in slice.iter_mut().zip(points.chunks_exact(SUBPIXELS * SUBPIXELS)) {
            *value = scale * points.iter().map(|point| point.weight * plane.intensity(point)).sum::<f64>();
        }
    });
    Array3::from_shape_vec((planes, rows, columns), values)
        .map_err(|error| Error::config("shape", error.to_string()))
}

/// A point of the focal planes in polar coordinates, and its share in the average over its voxel.
struct Point {
    radius: f64,
    angle: f64,
    weight: f64,
}

/// Points of all voxels of a plane, row by row, [`SUBPIXELS`]^2 each.
fn points(grid: &Grid) -> Vec<Point> {
    let rule = gauss_legendre(SUBPIXELS);
    let offset = |index: usize, axis: usize, x: f64| {
        (index as f64 - (grid.shape[axis] / 2) as f64 + 0.5 * x) * grid.pitch[axis]
    };
    let mut points = Vec::with_capacity(grid.shape[1] * grid.shape[2] * rule.len() * rule.len());
    for row in 0..grid.shape[1] {
        for column in 0..grid.shape[2] {
            for (v, weight_y) in &rule {
                for (u, weight_x) in &rule {
                    let (y, x) = (offset(row, 1, *v), offset(column, 2, *u));
                    points.push(Point {
                        radius: y.hypot(x),
                        angle: y.atan2(x),
                        weight: 0.25 * weight_y * weight_x,
                    });
                }
            }
        }
    }
    points
}

/// One wave of the field behind the pupil: its azimuthal order and complex amplitude at the quadrature nodes.
struct Term {
    order: i32,
    amplitude: Vec<Complex64>,
}

/// The field of all dipole directions as components whose weighted squared moduli make the intensity.
///
/// The component of dipole order l is the sum over the pupil's harmonics m of
/// i^(l+m) e^(i (l+m) psi) int A_l P_m J_(l+m)(k a r) e^(i phase) a da.
struct Field<'a> {
    pupil: &'a Pupil,
    components: Vec<(f64, Vec<Term>)>,
}

/// What the table holds at one radius and height.
enum Sample {
    /// The intensity of a rotationally symmetric pupil.
    Intensity(f64),
    /// The field's terms, component by component.
    Field(Vec<Complex64>),
}

impl<'a> Field<'a> {
    fn new(pupil: &'a Pupil, aberrations: &Aberrations) -> Result<Self> {
        let rho: Vec<f64> = pupil.frequency.iter().map(|a| a / pupil.edge).collect();
        let harmonics = harmonics(aberrations, pupil.wavenumber, &rho)?;
        let symmetric = harmonics.iter().all(|(m, _)| *m == 0);
        let component = |dipole: i32, weight: f64| {
            let amplitude = &pupil.amplitude[dipole.unsigned_abs() as usize];
            let term = |(m, disturbance): &(i32, Vec<Complex64>)| {
                let order = dipole + m;
                let nodes = pupil.area.iter().zip(amplitude).zip(disturbance);
                let amplitude = nodes.map(|((area, a), p)| p * area * a * Complex64::I.powi(order)).collect();
                Term { order, amplitude }
            };
            (weight, harmonics.iter().map(term).collect())
        };
        let lit = |order: usize| pupil.amplitude[order].iter().any(|a| a.norm_sqr() > 0.0);
        let components = (0..3usize).filter(|&order| lit(order)).flat_map(|order| {
            let (dipole, weight) = (order as i32, ORDER_WEIGHTS[order]);
            // Orders +l and -l differ only if the pupil depends on the angle.
            let both: &[(i32, f64)] =
                if symmetric || order == 0 { &[(1, 1.0)] } else { &[(1, 0.5), (-1, 0.5)] };
            both.iter().map(move |(sign, share)| (sign * dipole, share * weight))
        });
        Ok(Self { pupil, components: components.map(|(dipole, weight)| component(dipole, weight)).collect() })
    }

    fn is_symmetric(&self) -> bool {
        self.components.iter().all(|(_, terms)| terms.len() == 1)
    }

    fn terms(&self) -> usize {
        self.components.iter().map(|(_, terms)| terms.len()).sum()
    }

    /// The radial integrals at one radius for each wave (plane).
    fn at_radius(&self, radius: f64, waves: &[Vec<Complex64>]) -> Vec<Sample> {
        let integral = |term: &Term| -> Vec<Complex64> {
            let nodes = self.pupil.frequency.iter().zip(&term.amplitude);
            let weighted: Vec<Complex64> = nodes
                .map(|(a, amplitude)| amplitude * bessel(term.order, self.pupil.wavenumber * a * radius))
                .collect();
            waves.iter().map(|wave| wave.iter().zip(&weighted).map(|(w, a)| w * a).sum()).collect()
        };
        let fields: Vec<Vec<Complex64>> =
            self.components.iter().flat_map(|(_, terms)| terms).map(integral).collect();
        let at = |plane: usize| -> Vec<Complex64> { fields.iter().map(|field| field[plane]).collect() };
        match self.is_symmetric() {
            false => (0..waves.len()).map(|plane| Sample::Field(at(plane))).collect(),
            true => {
                let intensity = |plane: usize| {
                    let terms = self.components.iter().zip(at(plane));
                    terms.map(|((weight, _), field)| weight * field.norm_sqr()).sum()
                };
                (0..waves.len()).map(|plane| Sample::Intensity(intensity(plane))).collect()
            }
        }
    }

    /// The table of one plane from the samples along the radius.
    fn plane<'s>(&self, samples: impl Iterator<Item = &'s Sample>, step: f64) -> Plane<'_> {
        let mut intensity = Vec::new();
        let mut terms = vec![Vec::new(); self.terms()];
        for sample in samples {
            match sample {
                Sample::Intensity(value) => intensity.push(*value),
                Sample::Field(fields) => {
                    terms.iter_mut().zip(fields).for_each(|(list, field)| list.push(*field));
                }
            }
        }
        Plane { components: &self.components, intensity, terms, step }
    }
}

/// Radial tables of one plane.
struct Plane<'a> {
    components: &'a [(f64, Vec<Term>)],
    intensity: Vec<f64>,
    terms: Vec<Vec<Complex64>>,
    step: f64,
}

impl Plane<'_> {
    fn intensity(&self, point: &Point) -> f64 {
        let place = point.radius / self.step;
        if !self.intensity.is_empty() {
            return interpolate(&self.intensity, place, 1.0);
        }
        let mut tables = self.terms.iter();
        let component = |(weight, terms): &(f64, Vec<Term>)| {
            let field: Complex64 = terms
                .iter()
                .zip(&mut tables)
                .map(|(term, table)| {
                    let parity = if term.order % 2 == 0 { 1.0 } else { -1.0 };
                    interpolate(table, place, parity) * Complex64::cis(f64::from(term.order) * point.angle)
                })
                .sum();
            weight * field.norm_sqr()
        };
        self.components.iter().map(component).sum()
    }
}

/// Cubic Lagrange interpolation at a fractional index; below index 0 the table continues as an even (parity 1) or odd
/// (parity -1) function.
fn interpolate<T>(table: &[T], place: f64, parity: f64) -> T
where
    T: Copy + std::ops::Mul<f64, Output = T> + std::ops::Add<Output = T>,
{
    let index = (place as usize).min(table.len() - 3);
    let t = place - index as f64;
    let before = if index == 0 { table[1] * parity } else { table[index - 1] };
    before * (-t * (t - 1.0) * (t - 2.0) / 6.0)
        + table[index] * ((t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0)
        + table[index + 1] * (-(t + 1.0) * t * (t - 2.0) / 2.0)
        + table[index + 2] * ((t + 1.0) * t * (t - 1.0) / 6.0)
}

/// The Bessel function of the first kind of any integer order.
fn bessel(order: i32, x: f64) -> f64 {
    match order {
        0 => libm::j0(x),
        1 => libm::j1(x),
        _ => libm::jn(order, x),
    }
}
