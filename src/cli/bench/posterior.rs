//! `antumbra bench posterior`: every solver on every exact bed.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode};

use clap::Args;

use super::table::Table;
use crate::{
    Error, Result,
    compute::Compute,
    plot::{self, Format},
    posterior::{
        SolverSettings,
        beds::{Bed, Outcome, Row, floor, measure, settings},
        catalogue,
    },
    rng::Rng,
};

/// How far the draws of each solver are from exact posteriors, and at what cost
///
/// Writes `beds.md`, `beds.json` and a figure. The rows `exact` compare exact draws with other exact draws: no solver can do better.
/// Each row is kept as soon as it is measured; with `--resume` a directory's table grows from call to call.
#[derive(Debug, Args)]
pub(in crate::cli) struct Posterior {
    /// Directory of the results
    #[arg(short, long)]
    output: PathBuf,
    /// Solvers by name, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    solvers: Vec<String>,
    /// Beds by name, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    beds: Vec<String>,
    /// Draws of each solver; several numbers, separated by commas, give a figure of convergence [default: what each bed needs]
    #[arg(long, value_delimiter = ',')]
    draws: Vec<usize>,
    /// Seed of instruments, data and solvers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where networks run: `auto`, `cpu` or `cuda:N`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Number of threads; 0 means all cores
    #[arg(short = 'j', long, default_value_t = 0)]
    threads: usize,
    /// Keep the rows that the directory holds, and measure those that are missing
    #[arg(long)]
    resume: bool,
    /// Replace results in the directory
    #[arg(long, conflicts_with = "resume")]
    force: bool,
}

impl Posterior {
    /// Runs the command.
    ///
    /// # Errors
    /// Unknown names, or a file that cannot be written.
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.draws.iter().any(|draws| !(2..=100_000).contains(draws)) {
            return Err(Error::config("--draws", "needs 2 to 100000"));
        }
        let solvers = self.chosen_solvers()?;
        let mut table = Table::open(&self.output, self.seed, self.resume, self.force)?;
        crate::cli::on_threads(self.threads, || self.measure(&solvers, &mut table))?;
        let rows = table.rows();
        let text = markdown(rows);
        let path = self.output.join("beds.md");
        fs::write(&path, &text).map_err(|source| Error::io(&path, source))?;
        let figure = if self.draws.len() > 1 { plot::convergence(rows)? } else { plot::beds(rows)? };
        plot::save(&[figure], &self.output, &[Format::Png, Format::Svg, Format::Pdf])?;
        crate::cli::print(&text);
        Ok(ExitCode::SUCCESS)
    }

    fn chosen_solvers(&self) -> Result<Vec<SolverSettings>> {
        let all: Vec<String> = catalogue().iter().map(|entry| entry.name.to_string()).collect();
        let names = if self.solvers.is_empty() { &all } else { &self.solvers };
        let known = |name: &String| {
            settings(name).ok_or_else(|| {
                Error::config("--solvers", format!("no solver `{name}`; there are {}", all.join(", ")))
            })
        };
        names.iter().map(known).collect()
    }

    fn measure(&self, solvers: &[SolverSettings], table: &mut Table) -> Result<()> {
        let (rng, compute) = (Rng::new(self.seed), Compute::named(&self.device)?);
        let all: Vec<String> = Bed::all().map(|(name, _)| name.to_string()).collect();
        let names = if self.beds.is_empty() { &all } else { &self.beds };
        let beds = names.iter().map(|name| Bed::named(name, &rng, &compute)).collect::<Result<Vec<_>>>()?;
        for bed in &beds {
            let own = rng.stream(bed.name, 1);
            let usual = [bed.draws];
            for &draws in if self.draws.is_empty() { &usual[..] } else { &self.draws } {
                table.fill([bed.name, "exact"], draws, || floor(bed, draws, &own))?;
                for solver in solvers {
                    let row = || measure(bed, solver, draws, &own, &compute);
                    if let Some(row) = table.fill([bed.name, solver.name()], draws, row)? {
                        crate::cli::note(&line(row));
                    }
                }
            }
        }
        Ok(())
    }
}

const HEADER: &str = "| bed | solver | draws | sliced W2 | MMD^2 | mode weights | spread, measured | spread, unmeasured | forwards | VJPs | seconds |\n\
                      |---|---|---|---|---|---|---|---|---|---|---|\n";

/// The table with the draws of each bed and its failures below.
fn markdown(rows: &[Row]) -> String {
    let mut text = HEADER.to_string();
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

fn line(row: &Row) -> String {
    let cost = format!("{:.0} | {:.0} | {:.2}", row.forwards, row.backwards, row.seconds);
    match &row.outcome {
        Outcome::Draws(score) => {
            let share = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
            format!(
                "| {} | {} | {} | {:.3} | {:.4} | {} | {} | {} | {cost} |",
                row.bed,
                row.solver,
                row.draws,
                score.sliced_w2,
                score.mmd2,
                share(score.mode_error),
                share(score.spread_measured),
                share(score.spread_unmeasured)
            )
        }
        Outcome::Failed(reason) => {
            format!("| {} | {} | {} | {reason} | | | | | {cost} |", row.bed, row.solver, row.draws)
        }
    }
}
