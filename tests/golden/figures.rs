//! Files that figures become: structure and size, not pixels.

use std::path::Path;

use antumbra::{
    instrument::vlbi::{
        Observation,
        average::{Average, average},
    },
    io::uvfits,
    plot::{self, Figure, Format},
    units::MICROARCSECOND,
};

fn m87() -> Observation {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits");
    average(&uvfits::read_observation(&path).unwrap(), Average::Scan)
}

fn attribute<'a>(text: &'a str, name: &str) -> &'a str {
    text.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0
}

/// Width and height of a figure's page, points.
fn size(figure: &Figure) -> [f64; 2] {
    ["width", "height"].map(|name| attribute(&figure.svg, name).strip_suffix("pt").unwrap().parse().unwrap())
}

#[test]
fn data_figures_fit_a_journal_page_and_name_their_axes() {
    let figures = plot::data_figures(&m87(), 160.0 * MICROARCSECOND).unwrap();
    let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(names, ["uv_coverage", "amplitude", "closure_phase", "dirty"]);
    let labels = ["u (Gλ)", "Visibility amplitude (Jy)", "Closure phase (deg)", "Relative RA (µas)"];
    for (figure, label) in figures.iter().zip(labels) {
        let [width, height] = size(figure);
        assert!(width <= 511.3 && height <= 700.0, "{} is {width} x {height} pt", figure.name);
        assert!(figure.svg.contains(label), "{} lacks {label}", figure.name);
        assert!(figure.svg.matches("<text").count() > 10);
        let sizes =
            figure.svg.match_indices("font-size=").map(|(at, _)| attribute(&figure.svg[at..], "font-size"));
        let smallest = sizes.map(|size| size.parse::<f64>().unwrap()).fold(f64::INFINITY, f64::min);
        assert!(smallest >= 69.9, "text of {} units of 0.1 pt in {}", smallest, figure.name);
    }
    let disks = figures[0].svg.matches("<circle").count();
    let baselines = 21;
    assert_eq!(
        disks,
        2 * m87().visibilities.len() + baselines,
        "each visibility and its conjugate, and the legend"
    );
}

#[test]
fn png_and_pdf_have_the_size_of_the_page() {
    let figure = plot::coverage(&m87()).unwrap();
    let [width, height] = size(&figure);
    let png = Format::Png.encode(&figure.svg).unwrap();
    let pixels = |at: usize| f64::from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap()));
    assert!((pixels(16) / width * 72.0 - 300.0).abs() < 1.0, "{} pixels for {width} pt", pixels(16));
    assert!((pixels(20) / height * 72.0 - 300.0).abs() < 1.0, "{} pixels for {height} pt", pixels(20));
    let pdf = Format::Pdf.encode(&figure.svg).unwrap();
    let text = String::from_utf8_lossy(&pdf);
    assert_eq!(text.matches("/Type /Page\n").count(), 1);
    assert!(text.contains("/FontFile2"), "the font is not embedded");
    let page = text.split_once("/MediaBox [").unwrap().1.split_once(']').unwrap().0;
    let page: Vec<f64> = page.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!((page[2] - width).abs() < 0.1 && (page[3] - height).abs() < 0.1, "{page:?}");
}
