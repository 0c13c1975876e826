//! Point-spread functions of measured bead stacks: beads found, centred, resampled to another voxel and averaged.

use ndarray::{Array3, ArrayView3, Axis};

use super::{LARGEST, Psf, check_grid};
use crate::{Error, Result, grid::Grid};

/// Beads fainter than this fraction of the brightest are not used.
const FAINTEST: f64 = 0.4;
/// Half-width of the resampling kernel, voxels of the measurement.
const LANCZOS: f64 = 4.0;
/// Voxels whose smoothed value stands out by so many standard deviations of the background belong to the bead.
const SIGNIFICANT: f64 = 3.0;

/// The point-spread function of a stack of one or several beads, on `grid` with the centre at shape/2 and sum 1.
///
/// The background is the median of the lateral faces around the brightest plane. Beads closer than half of `grid`'s width to each other or
/// to an edge are left out unless there is no other. Where nothing stands out of the noise the result is 0.
///
/// # Errors
/// A stack without a bead, with voxels that are no number, or a grid that cannot be.
pub fn from_beads(stack: ArrayView3<f32>, pitch: [f64; 3], grid: &Grid) -> Result<Psf> {
    check_grid(grid)?;
    check_grid(&Grid { shape: stack.dim().into(), pitch })?;
    if stack.len() > LARGEST || stack.iter().any(|value| !value.is_finite()) {
        return Err(Error::config("bead stack", "holds values that are no numbers; export it again"));
    }
    let (background, noise) = background(&stack);
    let measured = stack.mapv(|value| f64::from(value) - background);
    let smooth = smoothed(&measured);
    // The mean of 27 voxels has less noise than one.
    let support = SIGNIFICANT * noise / 27f64.sqrt();
    let beads = find(&smooth, pitch, grid, support)?;
    let mut sum = Array3::zeros(grid.shape);
    for bead in beads {
        let centre = centroid(&smooth, bead);
        sum += &resampled(&measured, &smooth, support, pitch, centre, grid);
    }
    let total = sum.sum();
    if total <= 0.0 {
        return Err(Error::config("bead stack", "no bead stands out of the background"));
    }
    Ok(Psf { grid: *grid, values: sum / total })
}

/// Median and robust standard deviation of the voxels at the lateral faces around the brightest plane, where the bead's
/// light is gathered in the middle.
fn background(stack: &ArrayView3<f32>) -> (f64, f64) {
    let (_, rows, columns) = stack.dim();
    let brightest = stack.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |((z, _, _), _)| z);
    let at_face = |y: usize, x: usize| y == 0 || x == 0 || y == rows - 1 || x == columns - 1;
    let mut values: Vec<f64> = stack
        .indexed_iter()
        .filter(|((z, y, x), _)| z.abs_diff(brightest) <= 1 && at_face(*y, *x))
        .map(|(_, value)| f64::from(*value))
        .collect();
    let middle = median(&mut values);
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    // A Gaussian's standard deviation is 1.4826 median deviations.
    (middle, 1.4826 * median(&mut deviations))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Means over 3 voxels along each axis.
fn smoothed(values: &Array3<f64>) -> Array3<f64> {
    let mut smooth = values.clone();
    for axis in 0..3 {
        for mut lane in smooth.lanes_mut(Axis(axis)) {
            let line = lane.to_vec();
            for (i, value) in lane.iter_mut().enumerate() {
                let near = &line[i.saturating_sub(1)..(i + 2).min(line.len())];
                *value = near.iter().sum::<f64>() / near.len() as f64;
            }
        }
    }
    smooth
}

/// Brightest voxels of the beads that stand alone; the brightest one of all if none does.
fn find(smooth: &Array3<f64>, pitch: [f64; 3], grid: &Grid, support: f64) -> Result<Vec<[usize; 3]>> {
    let shape: [usize; 3] = smooth.dim().into();
    // Half of the window in which a bead is read, in voxels of the stack.
    let reach = [1, 2].map(|axis| {
        (0.25 * grid.shape[axis] as f64 * grid.pitch[axis] / pitch[axis]).ceil().max(2.0) as usize
    });
    let largest = smooth.iter().fold(0.0, |m: f64, &v| m.max(v));
    if largest <= 2.0 * support {
        return Err(Error::config("bead stack", "no bead stands out of the background"));
    }
    let projection = smooth.fold_axis(Axis(0), f64::NEG_INFINITY, |m, &v| m.max(v));
    let near = |y: usize, x: usize| {
        let rows = y.saturating_sub(reach[0])..(y + reach[0] + 1).min(shape[1]);
        let columns = move || x.saturating_sub(reach[1])..(x + reach[1] + 1).min(shape[2]);
        rows.flat_map(move |y| columns().map(move |x| [y, x]))
    };
    let is_peak = |[y, x]: [usize; 2]| {
        projection[[y, x]] >= FAINTEST * largest && near(y, x).all(|at| projection[at] <= projection[[y, x]])
    };
    let peaks: Vec<[usize; 2]> =
        projection.indexed_iter().map(|((y, x), _)| [y, x]).filter(|&at| is_peak(at)).collect();
    let inside = |[y, x]: [usize; 2]| {
        y >= reach[0] && x >= reach[1] && y + reach[0] < shape[1] && x + reach[1] < shape[2]
    };
    let alone = |a: [usize; 2]| {
        peaks
            .iter()
            .all(|b| *b == a || a[0].abs_diff(b[0]) > 2 * reach[0] || a[1].abs_diff(b[1]) > 2 * reach[1])
    };
    let mut chosen: Vec<[usize; 2]> = peaks.iter().copied().filter(|&at| inside(at) && alone(at)).collect();
    if chosen.is_empty() {
        chosen.extend(peaks.iter().copied().max_by(|a, b| projection[*a].total_cmp(&projection[*b])));
    }
    let plane = |[y, x]: [usize; 2]| {
        let planes = (0..shape[0]).max_by(|&a, &b| smooth[[a, y, x]].total_cmp(&smooth[[b, y, x]]));
        [planes.unwrap_or_default(), y, x]
    };
    Ok(chosen.into_iter().map(plane).collect())
}

/// Position of a bead in voxels: the fixed point of the centroid under a Gaussian window centred on it, which the
/// voxels' place does not bias.
fn centroid(smooth: &Array3<f64>, peak: [usize; 3]) -> [f64; 3] {
    /// Standard deviation of the window, voxels.
    const WIDTH: f64 = 1.5;
    /// Half of the box that is summed, voxels.
    const REACH: usize = 5;
    const ITERATIONS: usize = 30;
    let shape: [usize; 3] = smooth.dim().into();
    let ranges =
        [0, 1, 2].map(|axis| peak[axis].saturating_sub(REACH)..(peak[axis] + REACH + 1).min(shape[axis]));
    let voxels: Vec<[usize; 3]> = ranges[0]
        .clone()
        .flat_map(|z| ranges[1].clone().map(move |y| [z, y]))
        .flat_map(|[z, y]| ranges[2].clone().map(move |x| [z, y, x]))
        .collect();
    let mut centre = peak.map(|index| index as f64);
    for _ in 0..ITERATIONS {
        let (mut total, mut moment) = (0.0, [0.0; 3]);
        for voxel in &voxels {
            let offset = [0, 1, 2].map(|axis| voxel[axis] as f64 - centre[axis]);
            let distance: f64 = offset.iter().map(|o| o * o).sum();
            let weight = smooth[*voxel].max(0.0) * (-0.5 * distance / (WIDTH * WIDTH)).exp();
            total += weight;
            (0..3).for_each(|axis| moment[axis] += weight * offset[axis]);
        }
        for axis in 0..3 {
            let moved = centre[axis] + moment[axis] / total;
            centre[axis] = moved.clamp(ranges[axis].start as f64, ranges[axis].end as f64 - 1.0);
        }
    }
    centre
}

/// The bead at `centre` on another grid: band-limited interpolation along each axis, averaged over voxels that are
/// larger than those of the measurement.
fn resampled(
    measured: &Array3<f64>,
    smooth: &Array3<f64>,
    support: f64,
    pitch: [f64; 3],
    centre: [f64; 3],
    grid: &Grid,
) -> Array3<f64> {
    let kept = ndarray::Zip::from(measured)
        .and(smooth)
        .map_collect(|&value, &near| if near > support { value } else { 0.0 });
    let mut values = kept;
    for axis in 0..3 {
        let rows: Vec<Vec<(usize, f64)>> = (0..grid.shape[axis])
            .map(|index| {
                let offset = (index as f64 - (grid.shape[axis] / 2) as f64) * grid.pitch[axis] / pitch[axis];
                stencil(centre[axis] + offset, grid.pitch[axis] / pitch[axis], measured.shape()[axis])
            })
            .collect();
        let mut shape = values.raw_dim();
        shape[axis] = grid.shape[axis];
        let mut next = Array3::zeros(shape);
        ndarray::Zip::from(next.lanes_mut(Axis(axis))).and(values.lanes(Axis(axis))).for_each(
            |mut to, from| {
                for (value, stencil) in to.iter_mut().zip(&rows) {
                    *value = stencil.iter().map(|(index, weight)| weight * from[*index]).sum();
                }
            },
        );
        values = next;
    }
    values.mapv(|value| value.max(0.0))
}

/// Weights of the measured voxels in the value at a fractional place, averaged over `width` voxels if that is above 1.
fn stencil(place: f64, width: f64, count: usize) -> Vec<(usize, f64)> {
    let parts = width.ceil().max(1.0) as usize;
    let mut weights = std::collections::BTreeMap::new();
    for part in 0..parts {
        let spread = if parts == 1 { 0.0 } else { ((part as f64 + 0.5) / parts as f64 - 0.5) * width };
        let place = place + spread;
        let first = (place - LANCZOS).ceil().max(0.0) as usize;
        let last = ((place + LANCZOS).floor().min(count as f64 - 1.0)).max(-1.0);
        let near: Vec<(usize, f64)> =
            (first..(last + 1.0) as usize).map(|index| (index, lanczos(place - index as f64))).collect();
        // Beyond the measurement there is nothing; inside, a flat signal stays flat.
        let sum: f64 = near.iter().map(|(_, weight)| weight).sum();
        let inside = (0.0..=count as f64 - 1.0).contains(&place);
        for (index, weight) in near.into_iter().filter(|_| inside) {
            *weights.entry(index).or_insert(0.0) += weight / (sum * parts as f64);
        }
    }
    weights.into_iter().collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc =
        |x: f64| if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    if x.abs() < LANCZOS { sinc(x) * sinc(x / LANCZOS) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Focus, Recipe},
        *,
    };
    use crate::{instrument::microscope::Optics, rng::Rng};

    const PITCH: [f64; 3] = [0.3e-6, 0.11e-6, 0.11e-6];
    /// Fine samples per voxel, so that beads lie between voxels.
    const FINE: [usize; 3] = [2, 3, 3];

    /// The exact function on fine samples, each averaged over a voxel of the measurement across.
    fn fine(shape: [usize; 3]) -> Array3<f64> {
        let pitch = [0, 1, 2].map(|axis| PITCH[axis] / FINE[axis] as f64);
        let optics = Optics::matched(0.85, 1.0, 520e-9);
        let recipe = Recipe { focus: Focus::Nominal, ..Recipe::new(optics) };
        let values = recipe.psf(&Grid { shape, pitch }).unwrap().values;
        // Means over three samples along Y and X, which are one voxel.
        let mut planes = smoothed(&values);
        for (mut plane, values) in planes.outer_iter_mut().zip(values.outer_iter()) {
            let values = values.insert_axis(Axis(0)).to_owned();
            plane.assign(&smoothed(&values).index_axis(Axis(0), 0));
        }
        planes
    }

    /// Beads of 3000 counts on a background of 100 with noise of 5, at places in fine samples.
    fn stack(shape: [usize; 3], beads: &[[usize; 3]]) -> Array3<f32> {
        let size = [0, 1, 2].map(|axis| 2 * FINE[axis] * shape[axis] + 1);
        let psf = fine(size);
        let peak = psf.iter().fold(0.0, |m: f64, &v| m.max(v));
        let mut rng = Rng::new(1);
        Array3::from_shape_fn(shape, |(z, y, x)| {
            let voxel = [z * FINE[0], y * FINE[1], x * FINE[2]];
            let light: f64 = beads
                .iter()
                .map(|bead| psf[[0, 1, 2].map(|axis| voxel[axis] + size[axis] / 2 - bead[axis])])
                .sum();
            (100.0 + 3000.0 * light / peak + 5.0 * rng.normal()) as f32
        })
    }

    /// Compares with the exact function at every `step`-th fine sample.
    fn assert_is_exact(found: &Psf, step: [usize; 3]) {
        let shape = found.grid.shape;
        let size = [0, 1, 2].map(|axis| shape[axis] * step[axis] + 1);
        let fine = fine(size);
        let expected = Array3::from_shape_fn(shape, |(z, y, x)| {
            let index = [z, y, x];
            fine[[0, 1, 2]
                .map(|axis| (size[axis] / 2 + index[axis] * step[axis]) - shape[axis] / 2 * step[axis])]
        });
        let (total, peak) = (expected.sum(), expected.iter().fold(0.0, |m: f64, &v| m.max(v)));
        let differences = found.values.iter().zip(&expected).map(|(a, b)| (a * total - b).abs() / peak);
        let worst = differences.fold(0.0, f64::max);
        println!("largest difference {worst:.4} of the peak");
        assert!(worst < 0.03, "{worst}");
        assert!((found.values.sum() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_bead_between_voxels_is_centred_and_freed_of_its_background() {
        let measured = stack([15, 33, 33], &[[14, 49, 50]]);
        let grid = Grid { shape: [11, 21, 21], pitch: PITCH };
        assert_is_exact(&from_beads(measured.view(), PITCH, &grid).unwrap(), FINE);
    }

    #[test]
    fn a_bead_is_resampled_to_the_voxel_of_the_data() {
        let measured = stack([15, 33, 33], &[[15, 49, 50]]);
        let step = [1, 2, 2];
        let pitch = [0, 1, 2].map(|axis| PITCH[axis] * step[axis] as f64 / FINE[axis] as f64);
        let grid = Grid { shape: [13, 25, 25], pitch };
        assert_is_exact(&from_beads(measured.view(), PITCH, &grid).unwrap(), step);
    }

    #[test]
    fn beads_are_averaged_and_those_at_the_edge_left_out() {
        let measured = stack([11, 33, 72], &[[10, 50, 49], [10, 49, 165], [10, 6, 107]]);
        let grid = Grid { shape: [7, 15, 15], pitch: PITCH };
        let smooth = smoothed(&measured.mapv(|v| f64::from(v) - 100.0));
        let found = find(&smooth, PITCH, &grid, 3.0).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_is_exact(&from_beads(measured.view(), PITCH, &grid).unwrap(), FINE);
    }

    #[test]
    fn stacks_without_a_bead_are_refused() {
        let grid = Grid { shape: [5, 9, 9], pitch: PITCH };
        assert!(from_beads(stack([5, 20, 20], &[]).view(), PITCH, &grid).is_err());
        assert!(from_beads(Array3::from_elem((3, 9, 9), f32::NAN).view(), PITCH, &grid).is_err());
        assert!(from_beads(Array3::zeros((3, 9, 9)).view(), PITCH, &grid).is_err());
    }
}
