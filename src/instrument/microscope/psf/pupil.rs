//! What the exit pupil of an objective holds at each radius: amplitude, phase and defocus, on quadrature nodes.

use std::f64::consts::TAU;

use rustfft::num_complex::Complex64;

use super::{Model, quadrature::gauss_legendre};
use crate::instrument::microscope::Optics;

/// Weights of |I0|^2, |I1|^2 and |I2|^2 in the intensity of a freely rotating dipole.
pub(super) const ORDER_WEIGHTS: [f64; 3] = [1.0, 2.0, 1.0];

/// A rotationally symmetric pupil on quadrature nodes over a = n sin(theta), which is the same in every layer.
#[derive(Debug)]
pub(super) struct Pupil {
    /// Wavenumber in vacuum, rad/m.
    pub(super) wavenumber: f64,
    /// Largest a, the numerical aperture.
    pub(super) edge: f64,
    /// a at the nodes.
    pub(super) frequency: Vec<f64>,
    /// Quadrature weight of a da.
    pub(super) area: Vec<f64>,
    /// Amplitudes of the integrals I0, I1 and I2; scalar models have the first alone.
    pub(super) amplitude: [Vec<Complex64>; 3],
    /// Phase at the nominal focus, rad; the imaginary part damps waves that are evanescent in the sample.
    pub(super) phase: Vec<Complex64>,
    /// Change of the phase with the focus, rad/m.
    pub(super) defocus: Vec<f64>,
}

impl Pupil {
    /// A pupil fit for points up to `radius` from the axis and `reach` from the focus, metres.
    pub(super) fn fit(optics: &Optics, model: Model, radius: f64, reach: f64) -> Self {
        Self::new(optics, model, sufficient_nodes(optics, model, radius, reach))
    }

    /// A pupil on so many nodes, and as many again for waves beyond the critical angle where there are such.
    pub(super) fn new(optics: &Optics, model: Model, nodes: usize) -> Self {
        let mut pupil = Self {
            wavenumber: optics.wavenumber(),
            edge: optics.numerical_aperture,
            frequency: Vec::new(),
            area: Vec::new(),
            amplitude: Default::default(),
            phase: Vec::new(),
            defocus: Vec::new(),
        };
        for (a, area) in radial_rule(optics, nodes) {
            pupil.frequency.push(a);
            pupil.area.push(area);
            let amplitudes = match model {
                Model::Vectorial => dipole(optics, a),
                _ => [Complex64::ONE, Complex64::ZERO, Complex64::ZERO],
            };
            for (list, amplitude) in pupil.amplitude.iter_mut().zip(amplitudes) {
                list.push(amplitude);
            }
            let (phase, defocus) = match model {
                Model::BornWolf => {
                    (Complex64::ZERO, -pupil.wavenumber * a * a / (2.0 * optics.immersion.index))
                }
                _ => aberration_of_layers(optics, a),
            };
            pupil.phase.push(phase);
            pupil.defocus.push(defocus);
        }
        pupil
    }

    /// exp(i phase) at the nodes for the focus at `z`, m.
    pub(super) fn wave(&self, z: f64) -> Vec<Complex64> {
        let phases = self.phase.iter().zip(&self.defocus);
        phases.map(|(phase, defocus)| (Complex64::I * (phase + defocus * z)).exp()).collect()
    }

    /// Light that crosses a plane, in the unit of intensity times m^2 (Parseval's theorem).
    pub(super) fn energy(&self) -> f64 {
        let power = |node: usize| -> f64 {
            let orders = self.amplitude.iter().zip(ORDER_WEIGHTS);
            let emitted: f64 = orders.map(|(list, weight)| weight * list[node].norm_sqr()).sum();
            emitted * (-2.0 * self.phase[node].im).exp()
        };
        let sum: f64 = self.area.iter().enumerate().map(|(node, area)| area * power(node)).sum();
        TAU * sum / self.wavenumber.powi(2)
    }

    /// Position of the brightest point of the axis within `reach` of the nominal focus, m.
    pub(super) fn best_focus(&self, reach: f64, step: f64) -> f64 {
        /// Each refinement makes the step four times finer.
        const REFINEMENTS: usize = 6;
        let on_axis = |z: f64| {
            let wave = self.wave(z);
            let terms = self.area.iter().zip(&self.amplitude[0]).zip(wave);
            terms.map(|((area, amplitude), wave)| wave * area * amplitude).sum::<Complex64>().norm_sqr()
        };
        let steps = (reach / step).ceil() as i64;
        let candidates = (-steps..=steps).map(|k| k as f64 * step).map(|z| (on_axis(z), z));
        let (_, mut z) = candidates.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        let mut step = step;
        for _ in 0..REFINEMENTS {
            // The vertex of the parabola through three points.
            let [left, middle, right] = [-step, 0.0, step].map(|offset| on_axis(z + offset));
            let curvature = left - 2.0 * middle + right;
            if curvature < 0.0 {
                z += (0.5 * step * (left - right) / curvature).clamp(-step, step);
            }
            step *= 0.25;
        }
        z
    }
}

/// Nodes of a = n sin(theta) and weights of a da over the aperture.
///
/// With the lowest index n, a = n sin(t) makes every sqrt(index^2 - a^2) smooth up to the critical angle of that layer
/// and a = n cosh(t) beyond it.
fn radial_rule(optics: &Optics, nodes: usize) -> Vec<(f64, f64)> {
    let Optics { immersion, coverslip, sample_index, numerical_aperture, .. } = optics;
    let lowest =
        [immersion.index, immersion.design_index, coverslip.index, coverslip.design_index, *sample_index]
            .into_iter()
            .fold(f64::INFINITY, f64::min);
    let mut rule = Vec::new();
    let edge = (numerical_aperture / lowest).min(1.0).asin();
    for (x, weight) in gauss_legendre(nodes) {
        let (sin, cos) = (0.5 * edge * (x + 1.0)).sin_cos();
        rule.push((lowest * sin, 0.5 * edge * weight * lowest * lowest * sin * cos));
    }
    if *numerical_aperture > lowest {
        let edge = (numerical_aperture / lowest).acosh();
        for (x, weight) in gauss_legendre(nodes) {
            let t = 0.5 * edge * (x + 1.0);
            rule.push((lowest * t.cosh(), 0.5 * edge * weight * lowest * lowest * t.sinh() * t.cosh()));
        }
    }
    rule
}

/// Gauss-Legendre needs two nodes per wave of the integrand; so many more make up for its uneven pace.
const SPARE_NODES: usize = 40;
/// Points at which the span of the phase is taken.
const PHASE_POINTS: usize = 48;

/// Nodes after which more change nothing, for points up to `radius` off the axis and `reach` out of focus.
pub(super) fn sufficient_nodes(optics: &Optics, model: Model, radius: f64, reach: f64) -> usize {
    let coarse = Pupil::new(optics, model, PHASE_POINTS);
    let span = |values: &[f64]| {
        let (low, high) =
            values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        high - low
    };
    let phase: Vec<f64> = coarse.phase.iter().map(|phase| phase.re).collect();
    let waves = (coarse.wavenumber * optics.numerical_aperture * radius
        + span(&phase)
        + span(&coarse.defocus) * reach)
        / TAU;
    SPARE_NODES + (2.0 * waves).ceil() as usize
}

/// Amplitudes of I0, I1 and I2: aplanatic factor times Fresnel transmission of s and p waves through both surfaces of
/// the coverslip.
///
/// Source: Aguet 2009, thesis EPFL 4418, chapter 2; Richards and Wolf 1959 for equal indices.
fn dipole(optics: &Optics, a: f64) -> [Complex64; 3] {
    let [ni, ng, ns] = [optics.immersion.index, optics.coverslip.index, optics.sample_index];
    // n cos(theta) in each layer.
    let [ci, cg, cs] = [ni, ng, ns].map(|n| axial(n, a));
    let ts = 4.0 * ci * cg / ((ci + cg) * (cg + cs));
    let tp = 4.0 * ci * cg / ((ng / ni * ci + ni / ng * cg) * (ns / ng * cg + ng / ns * cs));
    let aplanatic = (ni / ci).sqrt();
    [aplanatic * (ts + tp * cs / ns), aplanatic * tp * a / ns, aplanatic * (ts - tp * cs / ns)]
}

/// n cos(theta) of a wave with n sin(theta) = a, imaginary beyond the critical angle.
fn axial(index: f64, a: f64) -> Complex64 {
    Complex64::from(index * index - a * a).sqrt()
}

/// Phase at the nominal focus and its change per metre of focus: the optical path difference of Gibson and Lanni.
///
/// The immersion layer's thickness follows the focus, t = -z + n (tg0/ng0 + t0/n0 - tg/ng - depth/ns).
/// Source: Gibson and Lanni 1992, J. Opt. Soc. Am. A 9, 154.
fn aberration_of_layers(optics: &Optics, a: f64) -> (Complex64, f64) {
    let Optics { immersion, coverslip, sample_index, depth, .. } = optics;
    let nominal = immersion.index
        * (coverslip.design_thickness / coverslip.design_index
            + immersion.design_thickness / immersion.design_index
            - coverslip.thickness / coverslip.index
            - depth / sample_index);
    let difference = *depth * axial(*sample_index, a) + nominal * axial(immersion.index, a)
        - immersion.design_thickness * axial(immersion.design_index, a)
        + coverslip.thickness * axial(coverslip.index, a)
        - coverslip.design_thickness * axial(coverslip.design_index, a);
    let wavenumber = optics.wavenumber();
    (wavenumber * difference, -wavenumber * axial(immersion.index, a).re)
}
