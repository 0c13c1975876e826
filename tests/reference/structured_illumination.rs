//! Real raw frames of structured illumination: the stripes that were measured in them independently.

use antumbra::{
    instrument::microscope::{
        Microscope,
        problem::{Settings, stripes},
        sim::Layout,
    },
    io::stack::Stack,
};

use super::psf::shared;

/// Least and largest period of the three angles, measured by another program and written to 0.1 nm.
const PERIODS: [f64; 2] = [180.0e-9, 180.2e-9];
const ROUNDING: f64 = 0.05e-9;

#[test]
fn stripes_in_real_microtubules_have_the_known_periods() {
    let (Some(data), Some(otf)) = (shared("mt_sim_raw9.mrc"), shared("otf2d_radial_488nm.csv")) else {
        return;
    };
    let yaml = format!(
        "kind: widefield\nsummary: test\nemission: 525 nm\nobjective: {{numerical_aperture: 1.3, immersion_index: 1.515}}\n\
         psf: {{measured: {{radial_otf: {}}}}}\n",
        otf.display()
    );
    let microscope = Microscope::parse(&yaml, "test").unwrap();
    let frames = Stack::open(&data).unwrap().volume(0, 0).unwrap().mapv(f64::from);
    let settings = Settings { sim: Some(Layout { angles: 3, phases: 3 }), ..Settings::default() };
    let found = stripes(frames.view(), [160e-9, 62.6e-9, 62.6e-9], &microscope, &settings).unwrap();
    for pattern in &found {
        println!("{:.3} nm {:.2} {pattern:?}", pattern.period() * 1e9, pattern.angle().to_degrees());
        let period = pattern.period();
        assert!((PERIODS[0] - ROUNDING..PERIODS[1] + ROUNDING).contains(&period), "{period}");
    }
}

/// `inspect` of the raw frames prints the stripes; another number of frames is refused with the setting's name.
#[test]
fn inspect_tells_the_stripes_and_refuses_a_wrong_number_of_frames() {
    let (Some(data), Some(_)) = (shared("mt_sim_raw9.mrc"), shared("otf2d_radial_488nm.csv")) else { return };
    let run = |arguments: &[&str]| {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_antumbra"));
        command.current_dir(root).args(arguments).output().unwrap()
    };
    let data = data.to_str().unwrap();
    let instrument = ["--instrument", "data/microtubules/microscope_sim.yaml"];
    let output = run(&["inspect", data, instrument[0], instrument[1], "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let angles = found["stripes"][0]["angles"].as_array().unwrap();
    assert_eq!(angles.len(), 3);
    for angle in angles {
        let period = angle["period_nm"].as_f64().unwrap() * 1e-9;
        assert!((PERIODS[0] - ROUNDING..PERIODS[1] + ROUNDING).contains(&period), "{period}");
        assert_eq!(angle["phases_deg"].as_array().unwrap().len(), 3);
    }
    let setting = "microscope.sim={angles: 5, phases: 3}";
    let output = run(&["reconstruct", data, instrument[0], instrument[1], "--dry-run", "--set", setting]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for words in ["microscope.sim", "5 angles x 3 phases are 15 frames", "have 9"] {
        assert!(message.contains(words), "{message}");
    }
}
