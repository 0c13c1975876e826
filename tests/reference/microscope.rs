//! The camera noise of a real frame against the same measurement in numpy.

use antumbra::{
    instrument::microscope::noise::{NoiseEstimate, Verdict},
    io::stack::Stack,
};
use ndarray::{Axis, s};

use super::psf::shared;

/// Standard deviations of twelve equal groups of the first frame from dark to bright: frequencies above 5.7/um, local power
/// in Gaussians of 8 pixels, numpy. Our windows are squares, which mixes the extremes a little differently.
const NUMPY: [f64; 12] =
    [1801.0, 2201.0, 2354.0, 2410.0, 2462.0, 2531.0, 2641.0, 2753.0, 2877.0, 3050.0, 3178.0, 3404.0];

#[test]
fn noise_of_a_real_frame_is_that_above_the_cut_off_and_grows_with_the_light() {
    let Some(path) = shared("mt_sim_raw9.mrc") else { return };
    let frames = Stack::open(&path).unwrap().read(0).unwrap();
    let frame = frames.slice(s![0, 0, .., ..]).insert_axis(Axis(0)).mapv(f64::from);
    let estimate = NoiseEstimate::measure(frame.view(), [62.6e-9; 2], 5.37e6).unwrap();
    println!("sigma {:.0}, {}", estimate.sigma, estimate.reason());
    for (group, expected) in estimate.groups.iter().zip(NUMPY) {
        assert!((group[1].sqrt() / expected - 1.0).abs() < 0.05, "{} {expected}", group[1].sqrt());
    }
    assert_eq!(estimate.verdict(), Verdict::Growing);
}
