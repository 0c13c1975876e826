//! Where the raw frames of structured illumination lie in a file: along the planes, or along the times of a single plane.

use ndarray::{Array3, Axis, concatenate};

use crate::{
    Error, Result,
    instrument::microscope::sim::Layout,
    io::stack::{Shape, Stack},
};

/// Times of a stack that are images of their own.
///
/// # Errors
/// A stack whose planes and times are not the raw frames of `layout`.
pub(super) fn times(shape: Shape, layout: Option<Layout>) -> Result<usize> {
    let Some(layout) = layout else { return Ok(shape.time) };
    if shape.z == 1 && shape.time > 1 {
        layout.check(shape.time)?;
        return Ok(1);
    }
    layout.check(shape.z)?;
    Ok(shape.time)
}

/// One channel at one time: planes, or raw frames, `[Z, Y, X]`.
///
/// # Errors
/// Those of the file, or another number of frames.
pub(super) fn volume(
    stack: &mut Stack,
    time: usize,
    channel: usize,
    layout: Option<Layout>,
) -> Result<Array3<f32>> {
    let shape = stack.metadata.shape;
    if times(shape, layout)? == shape.time {
        return stack.volume(time, channel);
    }
    let frames = (0..shape.time).map(|time| stack.volume(time, channel)).collect::<Result<Vec<_>>>()?;
    let views: Vec<_> = frames.iter().map(|frame| frame.view()).collect();
    concatenate(Axis(0), &views).map_err(|error| Error::config("stack", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_along_planes_or_times_and_a_wrong_number_is_refused() {
        let shape = |time, z| Shape { time, channels: 1, z, y: 4, x: 4 };
        let sim = Some(Layout { angles: 3, phases: 3 });
        assert_eq!(times(shape(4, 9), sim).unwrap(), 4);
        assert_eq!(times(shape(9, 1), sim).unwrap(), 1);
        assert_eq!(times(shape(9, 1), None).unwrap(), 9);
        for (time, z) in [(1, 8), (3, 1), (9, 2), (1, 1)] {
            let message = times(shape(time, z), sim).unwrap_err().to_string();
            assert!(message.contains("microscope.sim") && message.contains("9 frames"), "{message}");
        }
    }
}
