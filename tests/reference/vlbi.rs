//! Averaging, closures, Fourier transform and chi-square against eht-imaging on real and synthetic data.

use antumbra::compute::Compute;
use antumbra::instrument::Problem;
use antumbra::instrument::vlbi::{
    Observation, Vlbi,
    array::{Sky, Source},
    average::{Average, average, scans, time_stamps},
    closure::{minimal_quadrangles, minimal_triangles},
    fourier::{Pulse, visibilities},
    problem::{is_intra_site, problem},
    products::{Fits, model_visibilities},
};
use antumbra::io::uvfits::read_observation;
use antumbra::prior::Scaling;
use rustfft::num_complex::Complex64;
use serde_json::Value;

use super::uvfits::find;

/// Averages of single-precision times and values; everything else is double precision on both sides.
const RELATIVE: f64 = 1e-6;

fn each_file(mut test: impl FnMut(&Observation, &Value)) {
    let reference: Value = serde_json::from_str(include_str!("vlbi.json")).unwrap();
    for (name, expected) in reference["files"].as_object().unwrap() {
        if let Some(path) = find(name) {
            test(&read_observation(&path).unwrap(), expected);
        }
    }
}

fn both_averages(mut test: impl FnMut(&Observation, &Value)) {
    each_file(|observation, expected| {
        test(observation, &expected["none"]);
        test(&average(observation, Average::EhtimScan), &expected["scan"]);
    });
}

fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= RELATIVE * expected.abs(), "{what}: {found} instead of {expected}");
}

#[test]
fn scan_averages_agree_with_eht_imaging() {
    each_file(|observation, expected| {
        assert_eq!(scans(observation).len(), expected["n_scans"]);
    });
    both_averages(|observation, expected| {
        let rows = &observation.visibilities;
        assert_eq!(rows.len(), expected["nvis"]);
        assert_eq!(time_stamps(observation).len(), expected["n_timestamps"]);
        close(rows.iter().map(|row| row.value.norm()).sum(), &expected["sum_abs_vis"], "amplitudes");
        close(rows.iter().map(|row| row.sigma).sum(), &expected["sum_sigma"], "sigma");
        for row in ["first3", "last3"].iter().flat_map(|key| expected[key].as_array().unwrap()) {
            row_agrees(observation, row);
        }
    });
}

fn row_agrees(observation: &Observation, expected: &Value) {
    let code = |index: usize| observation.stations[index].code.as_str();
    let number = |key: &str| expected[key].as_f64().unwrap();
    let found = observation.visibilities.iter().find(|row| {
        let [a, b] = row.stations;
        (row.time / 3600.0 - number("time")).abs() < 1e-6
            && expected["t1"] == code(a)
            && expected["t2"] == code(b)
    });
    let found = found.unwrap_or_else(|| panic!("no row {expected}"));
    close(found.u, &expected["u"], "u");
    close(found.v, &expected["v"], "v");
    close(found.value.re, &expected["vre"], "real part");
    close(found.value.im, &expected["vim"], "imaginary part");
    close(found.sigma, &expected["sigma"], "sigma");
}

#[test]
fn minimal_closures_agree_with_eht_imaging() {
    both_averages(|observation, expected| {
        let codes = |stations: &[usize]| -> Vec<String> {
            stations.iter().map(|&index| observation.stations[index].code.clone()).collect()
        };
        let phases: Vec<f64> = observation.visibilities.iter().map(|row| row.value.arg()).collect();
        let triangles = minimal_triangles(observation);
        assert_eq!(triangles.len(), expected["n_cphase_min"]);
        for (triangle, expected) in triangles.iter().zip(expected["cphase_first3"].as_array().unwrap()) {
            assert_eq!(serde_json::to_value(codes(&triangle.stations)).unwrap(), expected["t"]);
            let degrees = triangle.sum(&phases).to_degrees();
            close(degrees - 360.0 * (degrees / 360.0).round(), &expected["cphase_deg"], "closure phase");
            close(triangle.sigma(observation).to_degrees(), &expected["sigmacp_deg"], "its sigma");
        }
        let quadrangles = minimal_quadrangles(observation);
        assert_eq!(quadrangles.len(), expected["n_logcamp_min"]);
        for (quadrangle, expected) in quadrangles.iter().zip(expected["logcamp_first3"].as_array().unwrap()) {
            assert_eq!(serde_json::to_value(codes(&quadrangle.stations)).unwrap(), expected["t"]);
            let (value, sigma) = quadrangle.debiased(observation);
            close(value, &expected["logcamp"], "log closure amplitude");
            close(sigma, &expected["sigmaca"], "its sigma");
        }
    });
}

#[test]
fn chi_square_agrees_with_eht_imaging() {
    let reference: Value = serde_json::from_str(include_str!("vlbi.json")).unwrap();
    for (name, expected) in reference["files"].as_object().unwrap() {
        let model = format!("models/{}", expected["model"]["file"].as_str().unwrap());
        let (Some(data), Some(model)) = (find(name), find(&model)) else { continue };
        let (observation, image) =
            (read_observation(&data).unwrap(), antumbra::io::image::read(&model).unwrap());
        for (average_as, key) in [(Average::None, "none"), (Average::EhtimScan, "scan")] {
            let observation = average(&observation, average_as);
            let pixels: Vec<f64> = image.pixels.iter().copied().collect();
            let model = model_visibilities(&observation, &pixels, &image.grid, Pulse::Triangle).unwrap();
            let fits = Fits::new(&observation, &model);
            for (fit, name) in [
                (fits.visibility, "vis"),
                (fits.amplitude, "amp"),
                (fits.closure_phase, "cphase"),
                (fits.log_closure_amplitude, "logcamp"),
            ] {
                close(fit.unwrap().chi2, &expected[key]["chisq"][name], name);
            }
            for row in expected[key]["model_vis_first20"].as_array().unwrap() {
                let [u, v, re, im]: [f64; 4] = serde_json::from_value(row.clone()).unwrap();
                let found = visibilities(&pixels, &image.grid, Pulse::Triangle, &[[u, v]]).unwrap()[0];
                assert!((found - Complex64::new(re, im)).norm() < 1e-10, "{found} {row}");
            }
        }
    }
}

/// Where the Earth has turned the stations of the antenna table, and the sign of u and v.
#[test]
fn uv_tracks_agree_with_the_real_files() {
    for name in
        ["SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits", "SR1_M87_2017_101_hi_hops_netcal_StokesI.uvfits"]
    {
        let Some(path) = find(name) else { continue };
        let data = read_observation(&path).unwrap();
        let source =
            Source { name: data.source.clone(), ra_deg: data.ra_deg, dec_deg: data.dec_deg, mjd: data.mjd };
        // Intra-site baselines are left out: centimetres in a position, or two names for one array, matter there.
        for row in data.visibilities.iter().filter(|row| !is_intra_site(row)).step_by(13) {
            let [a, b] = row.stations.map(|s| data.stations[s].position);
            let [u, v] = Sky::new(&source, data.mjd + row.time / 86400.0).uv(a, b, data.frequency_hz);
            let miss = (u - row.u).hypot(v - row.v) / row.u.hypot(row.v);
            assert!(miss < 1e-4, "{miss} {row:?}: {u} {v}");
        }
    }
}

/// What is fitted by default: closures between sites, scan-averaged, the flux and the centroid.
#[test]
fn the_default_problem_of_m87_has_full_rank_closure_sets() {
    let Some(path) = find("SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits") else { return };
    let data = read_observation(&path).unwrap();
    let settings = Vlbi::default();
    let scaling = Scaling { unit: 1e-3, dark: -0.5 };
    let build = |settings: &Vlbi| problem(&data, settings, scaling, &Compute::cpu()).unwrap();
    let problem = build(&settings);
    let fitted = settings.fitted(&data).unwrap();
    let counts = |problem: &Problem| -> Vec<_> {
        problem.likelihoods.iter().map(|likelihood| (likelihood.name(), likelihood.count())).collect()
    };
    println!("{:?} of {} visibilities", counts(&problem), fitted.visibilities.len());
    assert_eq!(time_stamps(&fitted).len(), 18);
    assert!((problem.scaling.unit - 0.6e-3).abs() < 1e-12);
    // Without a cut each time stamp has a phase for every baseline, but for one less than it has stations.
    let independent = |stamp: std::ops::Range<usize>| {
        let rows = &fitted.visibilities[stamp];
        let stations: std::collections::BTreeSet<_> = rows.iter().flat_map(|row| row.stations).collect();
        rows.len() + 1 - stations.len()
    };
    let expected: usize = time_stamps(&fitted).into_iter().map(independent).sum();
    let all = counts(&build(&Vlbi { snr_cut: 0.0, amplitude_snr_cut: 0.0, ..settings.clone() }));
    assert_eq!(all[0], ("closure_phase", expected));
    assert_eq!(all[1].0, "log_closure_amplitude");
    assert_eq!(all[2..], [("flux", 1), ("centroid", 2)]);
    // With the baselines within sites a log closure amplitude for every baseline, but for as many as there are stations.
    let prepared = settings.prepare(&data).unwrap();
    let amplitudes = |stamp: std::ops::Range<usize>| {
        let rows = &prepared.visibilities[stamp];
        let stations: std::collections::BTreeSet<_> = rows.iter().flat_map(|row| row.stations).collect();
        rows.len().saturating_sub(stations.len())
    };
    assert_eq!(all[1].1, time_stamps(&prepared).into_iter().map(amplitudes).sum::<usize>());
}
