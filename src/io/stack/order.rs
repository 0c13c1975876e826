//! In which order the planes of a stack lie in its file.

use ndarray::Array3;

/// Plane numbers `[T, C, Z]` of a file that stores time, channels and z in the order `axes`, slowest first.
///
/// An axis that `axes` does not name must have size 1. `sizes` is [T, C, Z].
pub(super) fn plane_numbers(axes: &str, sizes: [usize; 3]) -> Array3<usize> {
    let mut strides = [0; 3];
    let mut stride = 1;
    for axis in axes.chars().rev() {
        if let Some(index) = "TCZ".find(axis) {
            strides[index] = stride;
            stride *= sizes[index];
        }
    }
    Array3::from_shape_fn(sizes, |(t, c, z)| t * strides[0] + c * strides[1] + z * strides[2])
}

/// The axes that an array of so many dimensions has where its file does not say: `[T][C][Z]YX`.
pub(super) fn assumed_axes(dimensions: usize) -> Option<&'static str> {
    ["YX", "ZYX", "CZYX", "TCZYX"].into_iter().find(|axes| axes.len() == dimensions)
}

/// Sizes [T, C, Z] and [Y, X] of an array with the given axes, slowest first; `None` unless the axes are distinct, of
/// T, C, Z, Y, X, and end in YX.
pub(super) fn split_axes(axes: &str, sizes: &[usize]) -> Option<([usize; 3], [usize; 2])> {
    let leading = axes.strip_suffix("YX")?;
    let distinct = |axis| leading.matches(axis).count() <= 1;
    if axes.len() != sizes.len() || !leading.chars().all(|axis| "TCZ".contains(axis) && distinct(axis)) {
        return None;
    }
    let size = |axis| leading.find(axis).map_or(1, |index| sizes[index]);
    Some((['T', 'C', 'Z'].map(size), [sizes[sizes.len() - 2], sizes[sizes.len() - 1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_axis_runs_fastest() {
        let numbers = plane_numbers("TZC", [2, 3, 4]);
        assert_eq!(numbers[[0, 1, 0]], 1);
        assert_eq!(numbers[[0, 0, 1]], 3);
        assert_eq!(numbers[[1, 2, 3]], 23);
        assert_eq!(plane_numbers("CTZ", [2, 3, 4])[[1, 2, 3]], 23);
        assert_eq!(plane_numbers("CTZ", [2, 3, 4])[[0, 1, 0]], 8);
    }

    #[test]
    fn axes_are_split_by_name() {
        assert_eq!(split_axes("ZCYX", &[5, 2, 7, 9]), Some(([1, 2, 5], [7, 9])));
        assert_eq!(split_axes("YX", &[7, 9]), Some(([1, 1, 1], [7, 9])));
        for (axes, sizes) in
            [("XY", &[7, 9][..]), ("ZZYX", &[1, 2, 7, 9]), ("QYX", &[1, 2, 3]), ("ZYX", &[1, 2])]
        {
            assert_eq!(split_axes(axes, sizes), None, "{axes}");
        }
    }
}
