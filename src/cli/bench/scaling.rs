//! `antumbra bench scaling`: how the parts of a step grow with image, particles, visibilities and voxels.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode, time::Instant};

use clap::Args;
use serde::Serialize;

use super::series::{self, Series};
use crate::{Error, Result, cli, compute::keep_freed_memory, manifest, memory};

/// Time the parts of a step at growing sizes; fit how they grow
#[derive(Debug, Args)]
pub(in crate::cli) struct Scaling {
    /// Folder for scaling.md and scaling.json
    #[arg(short, long, default_value = ".")]
    output: PathBuf,
    /// Longest step that is measured, s; larger sizes are left out
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Largest memory of a step, GB [default: half of what is free]
    #[arg(long)]
    memory: Option<f64>,
    /// Only series whose name holds this text
    #[arg(long, default_value = "")]
    only: String,
    /// Number of threads; 0 means all cores
    #[arg(short = 'j', long, default_value_t = 0)]
    threads: usize,
}

impl Scaling {
    /// Measures all series and writes their table.
    ///
    /// # Errors
    /// A folder that cannot be written, and those of the steps.
    pub(in crate::cli) fn run(&self) -> Result<ExitCode> {
        let free = memory::available().map(|bytes| bytes as f64 / 2e9);
        let limits =
            Limits { seconds: self.seconds, gigabytes: self.memory.or(free).unwrap_or(f64::INFINITY) };
        let (series, threads) = cli::on_threads(self.threads, || {
            let chosen = series::all().into_iter().filter(|series| series.name.contains(&self.only));
            let measured = chosen.map(|series| measure(&series, &limits)).collect::<Result<Vec<_>>>()?;
            Ok((measured, rayon::current_num_threads()))
        })?;
        let table = Table { processor: processor(), threads, load_before: load(), limits, series };
        fs::create_dir_all(&self.output).map_err(|e| Error::io(&self.output, e))?;
        manifest::write_json(&table, &self.output.join("scaling.json"))?;
        let text = table.markdown();
        crate::io::atomic::replace_bytes(&self.output.join("scaling.md"), text.as_bytes())?;
        cli::print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

/// How far the sizes go.
#[derive(Debug, Clone, Copy, Serialize)]
struct Limits {
    seconds: f64,
    gigabytes: f64,
}

/// What is written.
#[derive(Debug, Serialize)]
struct Table {
    processor: Option<String>,
    threads: usize,
    /// Processes that wanted to run, mean of the last minute, before the first measurement.
    load_before: Option<f64>,
    limits: Limits,
    series: Vec<Measured>,
}

/// One series with what was found.
#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    axis: &'static str,
    rows: Vec<Row>,
    /// Power of the size with which the processor time of the last steps grows.
    time_exponent: Option<f64>,
    /// The same of memory.
    memory_exponent: Option<f64>,
    /// Why no larger size was measured.
    limit: Option<String>,
}

/// One size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Row {
    size: usize,
    /// Fastest step, s.
    seconds: f64,
    /// Processor time of the step that took least, all threads together, s: hardly longer on a busy machine.
    processor_seconds: f64,
    /// Memory that the step and its preparation took, MB.
    memory_mb: Option<f64>,
}

/// Rows from which a growth is fitted: the largest ones, where constant costs no longer count.
const FITTED: usize = 3;

fn measure(series: &Series, limits: &Limits) -> Result<Measured> {
    let (mut rows, mut limit): (Vec<Row>, _) = (Vec::new(), None);
    for &size in &series.sizes {
        limit = beyond(&rows, size, limits);
        if limit.is_some() {
            break;
        }
        cli::note(&format!("{}: {size} {}", series.name, series.axis));
        rows.push(time(series, size)?);
    }
    let of = |value: fn(&Row) -> Option<f64>| {
        let points: Vec<[f64; 2]> =
            rows.iter().filter_map(|row| Some([row.size as f64, value(row)?])).collect();
        exponent(&points[points.len().saturating_sub(FITTED)..])
    };
    let (time_exponent, memory_exponent) = (of(|row| Some(row.processor_seconds)), of(|row| row.memory_mb));
    Ok(Measured { name: series.name, axis: series.axis, rows, time_exponent, memory_exponent, limit })
}

/// Which limit a size would go beyond, if it costs at least in proportion.
fn beyond(rows: &[Row], size: usize, limits: &Limits) -> Option<String> {
    let last = rows.last()?;
    let growth = |cost: fn(&Row) -> f64| {
        let grown =
            rows.iter().rev().nth(1).map(|before| {
                (cost(last) / cost(before)).ln() / (last.size as f64 / before.size as f64).ln()
            });
        (size as f64 / last.size as f64).powf(grown.unwrap_or(1.0).clamp(1.0, 4.0))
    };
    let seconds = last.seconds * growth(|row| row.seconds);
    if seconds > limits.seconds {
        return Some(format!("time: {size} would take about {seconds:.0} s"));
    }
    let gigabytes = last.memory_mb? / 1e3 * growth(|row| row.memory_mb.unwrap_or(1.0).max(1.0));
    (gigabytes > limits.gigabytes).then(|| format!("memory: {size} would take about {gigabytes:.1} GB"))
}

/// The fastest of some repetitions.
fn time(series: &Series, size: usize) -> Result<Row> {
    const REPETITIONS: usize = 5;
    const ENOUGH: f64 = 2.0;
    memory::forget_peak();
    let before = memory::peak();
    let mut step = (series.prepare)(size)?;
    step()?;
    let memory_mb = memory::peak().and_then(|after| Some(after.saturating_sub(before?) as f64 / 1e6));
    keep_freed_memory();
    let (mut seconds, mut processor_seconds, first) = (f64::INFINITY, f64::INFINITY, Instant::now());
    for _ in 0..REPETITIONS {
        let (start, used) = (Instant::now(), processor_time());
        step()?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
        processor_seconds = processor_seconds.min(processor_time() - used);
        if first.elapsed().as_secs_f64() > ENOUGH {
            break;
        }
    }
    Ok(Row { size, seconds, processor_seconds, memory_mb })
}

/// Processor time of all threads so far, s.
pub(super) fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    if status == 0 { time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64 } else { f64::NAN }
}

/// Slope of ln y against ln x by least squares.
fn exponent(points: &[[f64; 2]]) -> Option<f64> {
    let logarithms: Vec<[f64; 2]> = points.iter().map(|point| point.map(f64::ln)).collect();
    let count = logarithms.len() as f64;
    let mean = |axis: usize| logarithms.iter().map(|point| point[axis]).sum::<f64>() / count;
    let (x, y) = (mean(0), mean(1));
    let product = |a: [f64; 2], other: usize| (a[0] - x) * (a[other] - [x, y][other]);
    let sum = |other: usize| logarithms.iter().map(|&point| product(point, other)).sum::<f64>();
    let slope = sum(1) / sum(0);
    slope.is_finite().then_some(slope)
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

impl Table {
    fn markdown(&self) -> String {
        let load = self.load_before.map_or("unknown".into(), |load| format!("{load:.1}"));
        let mut text = format!(
            "{}, {} threads, load of the last minute {load}. At most {:.0} s and {:.1} GB a step; fastest of at most 5.\n",
            self.processor.as_deref().unwrap_or("unknown processor"),
            self.threads,
            self.limits.seconds,
            self.limits.gigabytes
        );
        for series in &self.series {
            series.write(&mut text);
        }
        text
    }
}

impl Measured {
    fn write(&self, text: &mut String) {
        let memory = |row: &Row| row.memory_mb.map_or("".into(), |mb| format!("{mb:.0}"));
        let row = |row: &Row| {
            let [elapsed, used] = [row.seconds, row.processor_seconds].map(|seconds| 1e3 * seconds);
            format!("| {} | {elapsed:.2} | {used:.2} | {} |\n", row.size, memory(row))
        };
        let rows: String = self.rows.iter().map(row).collect();
        let power = |value: Option<f64>| value.map_or("unknown".into(), |value| format!("{value:.2}"));
        let limit = self.limit.as_deref().unwrap_or("none up to here");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n### {}\n\n| {} | ms | processor ms | MB |\n|---|---|---|---|\n{rows}\nProcessor time grows with power {}, memory with {}. First limit: {limit}.\n",
            self.name,
            self.axis,
            power(self.time_exponent),
            power(self.memory_exponent)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_gives_its_power() {
        let points = [10.0, 20.0, 40.0].map(|x: f64| [x, 3.0 * x.powf(1.7)]);
        assert!((exponent(&points).unwrap() - 1.7).abs() < 1e-9);
        assert_eq!(exponent(&points[..1]), None);
    }

    #[test]
    fn sizes_end_at_the_first_limit() {
        let row = |size, seconds, mb| Row { size, seconds, processor_seconds: seconds, memory_mb: Some(mb) };
        let limits = Limits { seconds: 20.0, gigabytes: 1.0 };
        let rows = [row(10, 1.0, 10.0), row(20, 4.0, 20.0)];
        assert_eq!(beyond(&rows, 40, &limits), None);
        assert!(beyond(&rows, 80, &limits).unwrap().starts_with("time"));
        assert!(beyond(&[row(10, 1e-3, 300.0)], 40, &limits).unwrap().starts_with("memory"));
        assert_eq!(beyond(&[], 1000, &limits), None);
    }

    #[test]
    fn every_series_makes_a_step_of_its_smallest_size() {
        for series in series::all().into_iter().filter(|series| series.axis != "particles") {
            let row = time(&series, series.sizes[0]).unwrap();
            assert!(row.seconds > 0.0, "{}", series.name);
        }
    }
}
