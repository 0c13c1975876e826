//! What is written as UVFITS reads back the same.

use antumbra::io::uvfits::{self, Hand, UvData, read_observation, write_observation};
use ndarray::Array4;
use rustfft::num_complex::Complex64;
use std::path::Path;

/// Rounding to single precision.
const SINGLE: f64 = 1.2e-7;

#[test]
fn an_observation_survives_writing() {
    let name = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let observation = read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.uvfits");
    write_observation(&observation, &path).unwrap();
    let copy = read_observation(&path).unwrap();
    assert_eq!(copy.stations, observation.stations);
    assert_eq!((copy.mjd, &copy.source), (observation.mjd, &observation.source));
    assert_eq!((copy.frequency_hz, copy.bandwidth_hz), (observation.frequency_hz, observation.bandwidth_hz));
    assert_eq!(copy.visibilities.len(), observation.visibilities.len());
    for (a, b) in copy.visibilities.iter().zip(&observation.visibilities) {
        let length = b.u.hypot(b.v);
        assert_eq!((a.stations, a.integration), (b.stations, b.integration));
        assert!((a.value - b.value).norm() <= SINGLE * b.value.norm());
        assert!((a.time - b.time).abs() < 1e-6);
        assert!((a.sigma / b.sigma - 1.0).abs() < SINGLE);
        assert!((a.u - b.u).hypot(a.v - b.v) < SINGLE * length);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays behind");
}

/// Four hands, two IFs of three channels, one of them a lower sideband, two frequency setups, a second day.
fn rich(folder: &Path) -> UvData {
    let path = folder.join("plain.uvfits");
    let name = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let observation = read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    write_observation(&observation, &path).unwrap();
    let mut data = uvfits::read(&path).unwrap();
    data.records.truncate(4);
    for (index, record) in data.records.iter_mut().enumerate() {
        record.time += 86_400.0 * index as f64;
        record.setup = index % 2;
        record.stations.swap(0, 1);
    }
    let setup =
        |base: f64| vec![vec![base, base + 5e5, base + 1e6], vec![base + 9e6, base + 8.5e6, base + 8e6]];
    data.hands = vec![Hand::RR, Hand::LL, Hand::RL, Hand::LR];
    data.frequencies = vec![setup(86e9), setup(86.5e9)];
    data.channel_width = 5e5;
    let number = |(record, intermediate, channel, hand)| {
        (((record * 2 + intermediate) * 3 + channel) * 4 + hand) as f64 + 1.0
    };
    data.values = Array4::from_shape_fn((4, 2, 3, 4), |index| Complex64::new(number(index), -0.5));
    data.weights = Array4::from_shape_fn((4, 2, 3, 4), |index| 1.0 / number(index));
    data.weights[[1, 1, 2, 3]] = 0.0;
    data.values[[1, 1, 2, 3]] = Complex64::ZERO;
    data
}

#[test]
fn hands_ifs_channels_and_setups_survive_writing() {
    let folder = tempfile::tempdir().unwrap();
    let data = rich(folder.path());
    let path = folder.path().join("rich.uvfits");
    data.write(&path).unwrap();
    let copy = uvfits::read(&path).unwrap();
    assert_eq!(copy.hands, data.hands);
    assert_eq!(copy.values, data.values);
    assert!(copy.weights.iter().zip(&data.weights).all(|(a, b)| (a - b).abs() <= SINGLE * b));
    assert_eq!(copy.frequencies, data.frequencies);
    for (a, b) in copy.records.iter().zip(&data.records) {
        assert_eq!((a.stations, a.setup), (b.stations, b.setup));
        assert!((a.time - b.time).abs() < 3e-3);
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refused.uvfits");
    let refused = |change: &dyn Fn(&mut UvData), word: &str| {
        let mut data = rich(folder.path());
        change(&mut data);
        let message = data.write(&path).unwrap_err().to_string();
        assert!(message.contains("refused.uvfits") && message.contains(word), "{message}");
        assert!(!path.exists());
    };
    refused(&|data| data.records.clear(), "none to write");
    refused(&|data| data.weights[[2, 0, 0, 0]] = f64::INFINITY, "visibility 3");
    refused(&|data| data.hands = vec![Hand::RR, Hand::LL, Hand::LR, Hand::RL], "hands");
    refused(&|data| data.stations = vec![data.stations[0].clone(); 3000], "stations");
}
