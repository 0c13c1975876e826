//! The UVFITS reader against eht-imaging's loader and the collaboration's own table of the same data.

use std::path::{Path, PathBuf};

use antumbra::instrument::vlbi::{Observation, Visibility};
use antumbra::io::uvfits::read_observation;
use serde_json::Value;

/// Both programs read the same single-precision numbers, so that only the order of operations differs.
const RELATIVE: f64 = 1e-6;

fn reference() -> Value {
    serde_json::from_str(include_str!("uvfits.json")).unwrap()
}

/// The file in `data/`, or in the folder of data that may not be shipped; `None` where that is absent.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("SHARED_DATA").map_or(root.join("../shared"), PathBuf::from);
    let places = [root.join("data").join(name), shared.join("data/eht").join(name)];
    let found = places.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not here");
    }
    found
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= RELATIVE * expected.abs(), "{what}: {found} instead of {expected}");
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn observations_agree_with_eht_imaging() {
    for (name, expected) in reference()["files"].as_object().unwrap() {
        let Some(path) = find(name) else { continue };
        let observation = read_observation(&path).unwrap();
        let number = |key: &str| expected[key].as_f64().unwrap();
        assert_eq!(observation.source, expected["source"]);
        close(observation.ra_deg, number("ra_hours") * 15.0, "right ascension");
        close(observation.dec_deg, number("dec_deg"), "declination");
        close(observation.frequency_hz, number("rf_hz"), "frequency");
        close(observation.bandwidth_hz, number("bw_hz"), "bandwidth");
        assert_eq!(observation.mjd, number("mjd"));
        for (station, expected) in observation.stations.iter().zip(expected["stations"].as_array().unwrap()) {
            assert_eq!(station.code, expected["site"]);
            let position: [f64; 3] = serde_json::from_value(expected["xyz"].clone()).unwrap();
            (0..3).for_each(|axis| close(station.position[axis], position[axis], "station position"));
        }
        sums_agree(&observation.visibilities, &expected["none"]);
        for row in ["first3", "last3"].iter().flat_map(|key| expected["none"][key].as_array().unwrap()) {
            row_agrees(&observation, row);
        }
    }
}

fn sums_agree(visibilities: &[Visibility], expected: &Value) {
    let number = |key: &str| expected[key].as_f64().unwrap();
    let sum = |term: &dyn Fn(&Visibility) -> f64| visibilities.iter().map(term).sum::<f64>();
    assert_eq!(visibilities.len() as f64, number("nvis"));
    assert_eq!(distinct(visibilities.iter().map(|v| v.time.to_bits())) as f64, number("n_timestamps"));
    assert_eq!(distinct(visibilities.iter().map(|v| v.stations)) as f64, number("n_baselines"));
    close(sum(&|v| v.value.norm()), number("sum_abs_vis"), "sum of amplitudes");
    close(sum(&|v| v.value.re), expected["sum_vis"][0].as_f64().unwrap(), "sum of real parts");
    close(sum(&|v| v.value.im), expected["sum_vis"][1].as_f64().unwrap(), "sum of imaginary parts");
    close(sum(&|v| v.sigma), number("sum_sigma"), "sum of sigma");
    let mut sigmas: Vec<_> = visibilities.iter().map(|v| v.sigma).collect();
    sigmas.sort_by(f64::total_cmp);
    let middle = sigmas.len() / 2;
    let median =
        if sigmas.len() % 2 == 0 { (sigmas[middle - 1] + sigmas[middle]) / 2.0 } else { sigmas[middle] };
    close(median, number("median_sigma"), "median sigma");
    let distances = || visibilities.iter().map(|v| v.u.hypot(v.v));
    close(distances().fold(f64::INFINITY, f64::min), number("uvdist_min"), "shortest baseline");
    close(distances().fold(0.0, f64::max), number("uvdist_max"), "longest baseline");
}

fn row_agrees(observation: &Observation, expected: &Value) {
    let number = |key: &str| expected[key].as_f64().unwrap();
    let code = |index: usize| observation.stations[index].code.as_str();
    let same = |v: &&Visibility| {
        (v.time - number("time") * 3600.0).abs() < 1e-3
            && code(v.stations[0]) == expected["t1"]
            && code(v.stations[1]) == expected["t2"]
    };
    let found = observation.visibilities.iter().find(same).unwrap();
    for (value, key) in [
        (found.u, "u"),
        (found.v, "v"),
        (found.value.re, "vre"),
        (found.value.im, "vim"),
        (found.sigma, "sigma"),
        (found.integration, "tint"),
    ] {
        close(value, number(key), key);
    }
}

/// The first 200 rows of the table that the collaboration published beside the UVFITS file.
#[test]
fn visibilities_agree_with_the_published_table() {
    let observation =
        read_observation(&find("SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits").unwrap()).unwrap();
    let table = include_str!("SR1_M87_2017_095_lo_first200.csv");
    let rows: Vec<Vec<&str>> =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').collect()).collect();
    assert!(rows.len() >= 199);
    for row in rows {
        let number = |column: usize| row[column].parse::<f64>().unwrap();
        let station =
            |column: usize| observation.stations.iter().position(|s| s.code == row[column]).unwrap();
        let stations = [station(1), station(2)];
        let same = |v: &&Visibility| (v.time - number(0) * 3600.0).abs() < 0.1 && v.stations == stations;
        let found = observation.visibilities.iter().find(same).unwrap();
        assert!((found.u - number(3)).abs() < 0.02 + 1e-7 * found.u.abs(), "u {} {}", found.u, number(3));
        assert!((found.v - number(4)).abs() < 0.02 + 1e-7 * found.v.abs(), "v {} {}", found.v, number(4));
        assert!(
            (found.value.norm() - number(5)).abs() < 6e-7,
            "amplitude {} {}",
            found.value.norm(),
            number(5)
        );
        let phase = (found.value.arg().to_degrees() - number(6) + 180.0).rem_euclid(360.0) - 180.0;
        assert!(phase.abs() < 6e-4, "phase differs by {phase}");
        assert!((found.sigma - number(7)).abs() < 6e-7, "sigma {} {}", found.sigma, number(7));
    }
}

/// Pixel counts, pixel sizes and fluxes of the model images that eht-imaging's reference values were made with.
#[test]
fn model_images_agree_with_eht_imaging() {
    for (name, pixels, pitch, flux) in [
        ("models/avery_m87_1_eofn.txt", 100, 8.823608996191328e-12, 2.3141285083000005),
        ("models/dpi_interferometry1_gt.fits", 128, 5.984418876194247e-12, 1.9951929630322192),
    ] {
        let Some(path) = find(name) else { continue };
        let image = antumbra::io::image::read(&path).unwrap();
        assert_eq!(image.grid.shape, [1, pixels, pixels]);
        assert!((image.grid.pitch[1] / pitch - 1.0).abs() < 1e-12);
        assert!((image.total_flux() / flux - 1.0).abs() < 1e-12);
        assert_eq!(image.offset, [0.0, 0.0]);
    }
}
