//! Figures of a calibration: ranks, coverage, TARP, spread against skill.

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    report::with_unit,
    style::{BLACK, COLUMN, CURVE, Colour, GREY, PAGE, POSTERIOR, REFERENCE, THIN, categorical},
};
use crate::{
    Result,
    calibration::{
        Kind, Report,
        binomial::{band, cumulative},
        report::Judged,
        rule::{ALPHA, RATIOS},
        tarp::curve,
        uniformity::Uniformity,
    },
    rng::Rng,
};

/// Panels in a row of the figure of ranks.
const ACROSS: usize = 4;
/// Side of a panel, points.
const SIDE: f64 = 84.0;
/// Steps of curves from 0 to 1.
const STEPS: usize = 200;

/// Draws all figures of a calibration; none without a replicate that gave draws.
///
/// # Errors
/// A drawing that fails.
pub fn calibration(report: &Report) -> Result<Vec<Figure>> {
    if report.functionals.is_empty() {
        return Ok(Vec::new());
    }
    let mut figures = vec![ranks(report)?, coverage(report)?];
    if let Some(tarp) = &report.tarp {
        figures.push(accuracy(&tarp.positions)?);
    }
    figures.push(spread(report)?);
    Ok(figures)
}

/// Functionals other than pixels, and the pixels.
fn parts(report: &Report) -> (Vec<&Judged>, Vec<&Judged>) {
    report.functionals.iter().partition(|functional| functional.kind != Kind::Pixel)
}

/// Values of the distribution function minus z at the steps.
fn difference(positions: &[f64]) -> Vec<[f64; 2]> {
    curve(positions, steps()).into_iter().map(|[z, below]| [z, below - z]).collect()
}

fn steps() -> impl Iterator<Item = f64> {
    (0..=STEPS).map(|k| k as f64 / STEPS as f64)
}

/// The simultaneous band around the diagonal, minus the diagonal.
fn simultaneous(count: usize) -> Vec<(f64, [f64; 2])> {
    let test = Uniformity::new(count, &mut Rng::new(0).stream("band", count as u64));
    let inner = test.band(ALPHA).into_iter().map(|(z, [low, high])| (z, [low - z, high - z]));
    [(0.0, [0.0; 2])].into_iter().chain(inner).chain([(1.0, [0.0; 2])]).collect()
}

fn ranks(report: &Report) -> Result<Figure> {
    let (scalars, pixels) = parts(report);
    let mut panels: Vec<(String, Vec<&Judged>)> =
        scalars.into_iter().map(|functional| (with_unit(&functional.name).0, vec![functional])).collect();
    if !pixels.is_empty() {
        panels.push(("On-source pixels".into(), pixels));
    }
    let rows = panels.len().div_ceil(ACROSS);
    let (wide, high) = (SIDE + 36.0, SIDE + 34.0);
    let svg = canvas::draw(PAGE, 18.0 + rows as f64 * high, |canvas| {
        for (index, (title, functionals)) in panels.iter().enumerate() {
            let (row, column) = (index / ACROSS, index % ACROSS);
            let rect = Rect::new(40.0 + column as f64 * wide, 18.0 + row as f64 * high, SIDE, SIDE);
            let below = panels.len() <= index + ACROSS;
            draw_ranks(canvas, rect, functionals, [column == 0, below])?.title(title)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "Ranks of the truths among the draws of their posteriors ({} replicates): distribution function minus that of \
         uniform ranks, and the band that holds the whole curve of a calibrated set-up with 95 % probability. A curve \
         that rises above the band on the left and falls below it on the right is over-confident; one above or below \
         throughout is biased. For pixels the band is that of a pixel with the median number of replicates.",
        report.replicates
    );
    Ok(Figure::new("ranks", caption, svg))
}

fn draw_ranks<'c, 'a>(
    canvas: &'c Canvas<'a>,
    rect: Rect,
    functionals: &[&Judged],
    [left, below]: [bool; 2],
) -> Result<Panel<'c, 'a>> {
    let mut counts: Vec<usize> = functionals.iter().map(|functional| functional.replicates).collect();
    counts.sort_unstable();
    let band = simultaneous(counts.get(counts.len() / 2).copied().unwrap_or(0));
    let curves: Vec<Vec<[f64; 2]>> =
        functionals.iter().map(|functional| difference(&functional.ranks.positions)).collect();
    let values = curves.iter().flatten().map(|[_, y]| y.abs());
    let reach = band.iter().flat_map(|(_, ends)| ends.map(f64::abs)).chain(values).fold(0.05, f64::max);
    let x = Axis::linear("Rank / draws", [0.0, 1.0], 3);
    let y = Axis::linear("ECDF − rank", [-1.1 * reach, 1.1 * reach], 4);
    let y = if left { y } else { Axis::linear("", [-1.1 * reach, 1.1 * reach], 4) };
    let panel = Panel::new(canvas, rect, if below { x } else { x.unnamed() }, y);
    panel.band(&band, GREY.faded(0.3))?;
    panel.curve(&[[0.0, 0.0], [1.0, 0.0]], THIN, GREY)?;
    let several = curves.len() > 1;
    for (curve, functional) in curves.iter().zip(functionals) {
        let failed = functional.ranks.p_adjusted < ALPHA;
        let colour = if failed { REFERENCE } else { POSTERIOR };
        panel.curve(
            curve,
            if several { 0.5 } else { CURVE },
            colour.faded(if several { 0.6 } else { 1.0 }),
        )?;
    }
    if let ([functional], false) = (functionals, several) {
        panel.note([0.96, 0.1], &format!("p {:.2}", functional.ranks.p), Align::Right, BLACK)?;
    }
    panel.frame(BLACK)?;
    Ok(panel)
}

fn coverage(report: &Report) -> Result<Figure> {
    let (scalars, pixels) = parts(report);
    let svg = canvas::draw(PAGE, 196.0, |canvas| {
        let rect = Rect::new(44.0, 8.0, 152.0, 152.0);
        let panel = unit_square(canvas, rect, "Mass of the interval", "Fraction of truths inside");
        panel.band(&pointwise(report.replicates), GREY.faded(0.3))?;
        panel.curve(&[[0.0, 0.0], [1.0, 1.0]], THIN, GREY)?;
        let pooled: Vec<f64> = pixels.iter().flat_map(|pixel| pixel.ranks.positions.clone()).collect();
        let mut curves: Vec<(String, &[f64], Colour)> = scalars
            .iter()
            .enumerate()
            .map(|(index, functional)| {
                let colour = categorical(index, scalars.len());
                (with_unit(&functional.name).0, functional.ranks.positions.as_slice(), colour)
            })
            .collect();
        if !pooled.is_empty() {
            curves.push(("On-source pixels".into(), &pooled, BLACK));
        }
        for (row, (name, positions, colour)) in curves.iter().enumerate() {
            let central: Vec<f64> = positions.iter().map(|position| (2.0 * (position - 0.5)).abs()).collect();
            panel.curve(&curve(&central, steps()), CURVE, *colour)?;
            let y = 16.0 + 13.0 * row as f64;
            canvas.line(&[[214.0, y], [230.0, y]], 1.6, *colour)?;
            let inside = |mass: f64| {
                100.0 * central.iter().filter(|c| **c <= mass).count() as f64 / central.len().max(1) as f64
            };
            let text = format!("{name}: 68 % hold {:.0} %, 95 % hold {:.0} %", inside(0.68), inside(0.95));
            canvas.text([236.0, y], &text, 7.0, Align::Left, BLACK, false)?;
        }
        panel.frame(BLACK)
    })?;
    let caption = format!(
        "Coverage of central intervals against the mass that they claim, with the 95 % band of a binomial count of {} \
         replicates at each mass. Below the diagonal the set-up is over-confident, above it too careful.",
        report.replicates
    );
    Ok(Figure::new("coverage", caption, svg))
}

/// Fractions between which a binomial count of `count` lies with 95 % probability, at every mass.
fn pointwise(count: usize) -> Vec<(f64, [f64; 2])> {
    let at = |k: usize| {
        let mass = k as f64 / 50.0;
        (mass, band(&cumulative(count, mass), ALPHA).map(|k| k as f64 / count.max(1) as f64))
    };
    (0..=50).map(at).collect()
}

fn unit_square<'c, 'a>(canvas: &'c Canvas<'a>, rect: Rect, x: &str, y: &str) -> Panel<'c, 'a> {
    Panel::new(canvas, rect, Axis::linear(x, [0.0, 1.0], 5), Axis::linear(y, [0.0, 1.0], 5))
}

fn accuracy(positions: &[f64]) -> Result<Figure> {
    let svg = canvas::draw(COLUMN, 206.0, |canvas| {
        let rect = Rect::new(44.0, 8.0, 164.0, 164.0);
        let panel = unit_square(canvas, rect, "Credibility", "Expected coverage");
        let band = simultaneous(positions.len());
        let band: Vec<_> = band.into_iter().map(|(z, ends)| (z, ends.map(|end| end + z))).collect();
        panel.band(&band, GREY.faded(0.3))?;
        panel.curve(&[[0.0, 0.0], [1.0, 1.0]], THIN, GREY)?;
        panel.curve(&curve(positions, steps()), CURVE, POSTERIOR)?;
        panel.frame(BLACK)
    })?;
    let caption = "TARP: fraction of truths that lie closer to a data-dependent reference image than the given fraction of \
                   draws, in the space of all features, with the 95 % simultaneous band.";
    Ok(Figure::new("tarp", caption, svg))
}

fn spread(report: &Report) -> Result<Figure> {
    let (scalars, pixels) = parts(report);
    let shown: Vec<&&Judged> = scalars.iter().chain(&pixels).filter(|f| f.spread.skill > 0.0).collect();
    // Each functional in units of its own error, so that all fit into one panel.
    let bins = |functional: &Judged| -> Vec<[f64; 2]> {
        functional.spread.bins.iter().map(|bin| bin.map(|value| value / functional.spread.skill)).collect()
    };
    let all: Vec<f64> = shown.iter().flat_map(|f| bins(f)).flatten().filter(|value| *value > 0.0).collect();
    let low = all.iter().copied().fold(0.5, f64::min).max(0.02) / 1.2;
    let high = all.iter().copied().fold(2.0, f64::max).min(50.0) * 1.2;
    let svg = canvas::draw(PAGE, 206.0, |canvas| {
        let axis = |label: &str| Axis::logarithmic(label, [low, high]);
        let rect = Rect::new(48.0, 8.0, 164.0, 164.0);
        let panel =
            Panel::new(canvas, rect, axis("Spread / rms error"), axis("Error of the mean / rms error"));
        let wedge = [low, high].map(|spread| (spread, RATIOS.map(|ratio| spread / ratio)));
        panel.band(&wedge.map(|(x, [a, b])| (x, [a.min(b), a.max(b)])), GREY.faded(0.3))?;
        panel.curve(&[[low, low], [high, high]], THIN, GREY)?;
        for functional in shown.iter().filter(|f| f.kind == Kind::Pixel) {
            panel.markers(&bins(functional), 1.2, BLACK.faded(0.35))?;
        }
        for (index, functional) in scalars.iter().enumerate().filter(|(_, f)| f.spread.skill > 0.0) {
            let colour = categorical(index, scalars.len());
            panel.curve(&bins(functional), 0.6, colour)?;
            panel.markers(&bins(functional), 1.8, colour)?;
            let y = 16.0 + 13.0 * index as f64;
            canvas.disk([236.0, y], 2.2, colour)?;
            let ratio = functional.spread.ratio.unwrap_or(f64::NAN);
            let text = format!("{}: spread / skill {ratio:.2}", with_unit(&functional.name).0);
            canvas.text([244.0, y], &text, 7.0, Align::Left, BLACK, false)?;
        }
        if let Some(ratio) = report.spread_over_skill {
            let y = 16.0 + 13.0 * scalars.len() as f64;
            canvas.disk([236.0, y], 2.2, BLACK.faded(0.35))?;
            let text = format!("On-source pixels; all of the image together {ratio:.2}");
            canvas.text([244.0, y], &text, 7.0, Align::Left, BLACK, false)?;
        }
        panel.frame(BLACK)
    })?;
    let caption = "Error of the posterior mean against the posterior standard deviation, in bins of replicates by their \
                   spread, each functional in units of its root-mean-square error. Points on the diagonal are calibrated; \
                   the wedge is spread over skill of 0.9 to 1.1.";
    Ok(Figure::new("spread", caption, svg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{
        bed::{Answer, records},
        judge,
    };

    /// An over-confident set-up is drawn in the colour of failures, an exact one is not.
    #[test]
    fn figures_show_what_failed() {
        let failures = format!("#{:02X}{:02X}{:02X}", REFERENCE.rgb[0], REFERENCE.rgb[1], REFERENCE.rgb[2]);
        for (answer, failed) in [(Answer::Exact, false), (Answer::Scaled(0.6), true)] {
            let figures = calibration(&judge("a", &records(answer, 200, 3))).unwrap();
            let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
            assert_eq!(names, ["ranks", "coverage", "tarp", "spread"]);
            assert!(figures[0].svg.contains("Log likelihood"));
            assert_eq!(figures[0].svg.contains(&failures), failed, "{answer:?}");
        }
        assert!(calibration(&judge("a", &[])).unwrap().is_empty());
    }
}
