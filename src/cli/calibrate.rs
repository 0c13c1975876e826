//! `antumbra calibrate`: is the uncertainty of a whole set-up as large as it says?

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{progress::Replicates, settings::RunArguments};
use crate::{
    Error, Result,
    calibration::{Kind, Report, coverage::Coverage},
    reconstruction::{self, Campaign, Settings},
};

/// Simulation-based calibration of a whole set-up
///
/// Draws truths from the prior, simulates data with the coverage and noise of the data file, reconstructs them, and compares
/// truths with draws. Exit status 1 if the set-up is not calibrated, or if too few replicates were made to tell.
#[derive(Debug, Args)]
pub(super) struct Calibrate {
    /// Data file, or a run file (YAML) that names one
    input: PathBuf,
    #[command(flatten)]
    run: RunArguments,
    /// Number of replicates; a verdict needs 200
    #[arg(long)]
    replicates: u64,
    /// Number of the first replicate, so that shards made apart do not repeat each other
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Directory of another shard whose replicates count too; may be repeated
    #[arg(long, value_name = "DIR")]
    merge: Vec<PathBuf>,
    /// Directory of the calibration
    #[arg(short, long)]
    output: PathBuf,
    /// Keep the replicates that the directory holds and make those that are missing
    #[arg(long)]
    resume: bool,
    /// Replace what the directory holds
    #[arg(long, conflicts_with = "resume")]
    force: bool,
}

impl Calibrate {
    /// Runs the command.
    ///
    /// # Errors
    /// Settings, files or computations that fail.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let settings: Settings = self.run.layers(&self.input)?.resolve()?;
        super::on_threads(settings.threads, || self.calibrate(&settings))
    }

    fn calibrate(&self, settings: &Settings) -> Result<ExitCode> {
        super::refuse_to_mix(&self.output, self.force || self.resume)?;
        let mut parts = reconstruction::split(settings)?;
        let (Some((_, part)), true) = (parts.pop(), parts.is_empty()) else {
            let problem =
                "the file has several channels or times; choose one, for example --set stack.channels=[1]";
            return Err(Error::config("stack.channels", problem));
        };
        let stop = super::stop_on_interrupt()?;
        let campaign = Campaign {
            replicates: self.replicates,
            first: self.first,
            merge: self.merge.clone(),
            directory: self.output.clone(),
            resume: self.resume,
        };
        let mut progress = Replicates::new();
        let report =
            campaign.run(part, &stop, &mut |done, total, record| progress.show(done, total, record))?;
        super::print(&summary(&report));
        super::print(&format!("report: {}\n", self.output.join("report.html").display()));
        Ok(if report.calibrated == Some(true) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// The verdict in a few lines.
fn summary(report: &Report) -> String {
    let mut lines = vec![
        report.verdict().to_string(),
        format!(
            "{} replicates, {} failed; {} draws each, {} as good as independent",
            report.replicates,
            report.failed.len(),
            report.draws,
            report.independent_draws
        ),
    ];
    let inside = |coverage: &[Coverage]| {
        let held = |c: &Coverage| format!("{:.0} % intervals hold {:.0} %", 100.0 * c.mass, 100.0 * c.inside);
        coverage.iter().map(held).collect::<Vec<_>>().join(", ")
    };
    for functional in report.functionals.iter().filter(|functional| functional.kind != Kind::Pixel) {
        let (truths, p) = (functional.replicates, functional.ranks.p);
        let held = inside(&functional.coverage);
        lines.push(format!("{}: ranks of {truths} truths p {p:.3}, {held}", functional.name));
    }
    if !report.pixels_on_source.is_empty() {
        lines.push(format!("on-source pixels: {}", inside(&report.pixels_on_source)));
    }
    lines.extend(report.spread_over_skill.map(|ratio| format!("spread over skill {ratio:.2}")));
    lines.extend(report.reasons.iter().map(|reason| format!("reason: {reason}")));
    lines.iter().map(|line| format!("{line}\n")).collect()
}
