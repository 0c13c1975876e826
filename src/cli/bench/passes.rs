//! `antumbra bench passes`: what it costs until draws are good, with the default settings and with each saving switched off.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::reach::{Attempt, Cost};
use crate::{
    Error, Result, cli,
    compute::Compute,
    config::Layers,
    manifest,
    posterior::{
        Convergence, CorrectionSettings, Draws, SolverSettings,
        beds::{Bed, Outcome, floor, settings, sliced_w2},
        diagnostics::RHAT_LIMIT,
    },
    reconstruction::{Reconstruction, Settings},
    rng::Rng,
};

/// What runs on beds: all savings, then each of them off or another solver.
const ON_BEDS: [&str; 8] = [
    "ppm",
    "ppm matching.candidates=1",
    "ppm matching.annealing=0",
    "ppm matching.steps=30 matching.learning_rate=0.05",
    "ppm matching.steps=1",
    "ppm matching.auxiliary.updates=1",
    "langevin",
    "langevin sampling.anneal=100",
];

/// The same on visibilities.
const ON_DATA: [&str; 6] = [
    "ppm",
    "ppm matching.steps=1",
    "ppm correction.gibbs.reheats=0",
    "ppm correction.gibbs.restart.threshold=1e6",
    "ppm correction.gibbs.denoise=10",
    "gibbs",
];

/// Network passes and seconds until draws are good, with and without each saving
///
/// On exact beds: until the sliced W2 distance of the chains' latest draws from exact ones falls to a multiple of that between
/// two sets of exact draws. On a data file: until R-hat of all draws falls to a limit. The time of these checks is not counted. Writes passes.md and passes.json.
#[derive(Debug, Args)]
pub(in crate::cli) struct Passes {
    /// A data file of visibilities, to reach --rhat on [default: beds, to reach --distance on]
    data: Option<PathBuf>,
    /// Folder for passes.md and passes.json
    #[arg(short, long, default_value = ".")]
    output: PathBuf,
    /// Beds by name, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "field-psf-32,field-vlbi-32")]
    beds: Vec<String>,
    /// Chains on beds, one draw of each
    #[arg(long, default_value_t = 32)]
    draws: usize,
    /// Sliced W2 to reach, times that between two sets of exact draws
    #[arg(long, default_value_t = 1.1)]
    distance: f64,
    /// R-hat to reach
    #[arg(long, default_value_t = RHAT_LIMIT)]
    rhat: f64,
    /// What to run: a solver and settings of it that differ from the default, for example "ppm matching.candidates=1"; may be repeated
    #[arg(long, value_name = "SOLVER KEY=VALUE ...")]
    run: Vec<String>,
    /// Seconds of processor time after which a run is given up
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    /// Seed of instruments, data and solvers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where networks run: `auto`, `cpu` or `cuda:N`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Number of threads; 0 means all cores
    #[arg(short = 'j', long, default_value_t = 0)]
    threads: usize,
}

impl Passes {
    /// Measures and writes the table.
    ///
    /// # Errors
    /// Unknown names or settings, data that cannot be read, and a folder that cannot be written.
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.draws < 2 {
            return Err(Error::config("--draws", "needs at least 2; use 32"));
        }
        let rows = cli::on_threads(self.threads, || match &self.data {
            Some(data) => self.on_data(data.clone()),
            None => self.on_beds(),
        })?;
        fs::create_dir_all(&self.output).map_err(|e| Error::io(&self.output, e))?;
        manifest::write_json(&rows, &self.output.join("passes.json"))?;
        let table = rows.iter().fold(HEADER.to_string(), |text, row| text + &row.line());
        crate::io::atomic::replace_bytes(&self.output.join("passes.md"), table.as_bytes())?;
        cli::print(&table);
        Ok(ExitCode::SUCCESS)
    }

    /// The runs to make, by what was asked for and the solvers' default settings.
    fn runs(
        &self,
        usual: &[&str],
        default: impl Fn(&str) -> Option<SolverSettings>,
    ) -> Result<Vec<(String, SolverSettings)>> {
        let asked: Vec<&str> = self.run.iter().map(String::as_str).collect();
        let names = if asked.is_empty() { usual } else { &asked };
        names.iter().map(|run| Ok((run.to_string(), changed(run, &default)?))).collect()
    }

    fn on_beds(&self) -> Result<Vec<Row>> {
        let (rng, compute) = (Rng::new(self.seed), Compute::named(&self.device)?);
        let mut rows = Vec::new();
        for name in &self.beds {
            let bed = Bed::named(name, &rng, &compute)?;
            let own = rng.stream(bed.name, 1);
            let Outcome::Draws(between) = floor(&bed, self.draws, &own)?.outcome else { continue };
            let target = self.distance * between.sliced_w2;
            for (run, mut settings) in self.runs(&ON_BEDS, followed)? {
                settings.set_chains(self.draws);
                let attempt = Attempt {
                    problem: &bed.problem,
                    prior: bed.prior.as_ref(),
                    settings: &settings,
                    rng: &own,
                    compute: &compute,
                    limit: self.seconds,
                };
                let cost = attempt.until(target, |draws| distance(&bed, draws, &own))?;
                rows.push(noted(Row { on: bed.name.into(), run, target: ("sliced W2", target), cost }));
            }
        }
        Ok(rows)
    }

    fn on_data(&self, data: PathBuf) -> Result<Vec<Row>> {
        let on = data.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let settings = Settings {
            data: Some(data),
            seed: self.seed,
            device: self.device.clone(),
            ..Settings::default()
        };
        let Reconstruction { problem, prior, compute, .. } = Reconstruction::prepare(settings)?;
        let (rng, prior) = (Rng::new(self.seed), prior.as_ref());
        let mut rows = Vec::new();
        for (run, settings) in self.runs(&ON_DATA, SolverSettings::named)? {
            let attempt = Attempt {
                problem: &problem,
                prior,
                settings: &settings,
                rng: &rng,
                compute: &compute,
                limit: self.seconds,
            };
            let cost = attempt.until(self.rhat, |draws| Ok(Convergence::under(&problem, draws)?.rhat_max))?;
            rows.push(noted(Row { on: on.clone(), run, target: ("R-hat", self.rhat), cost }));
        }
        Ok(rows)
    }
}

/// Settings named as "SOLVER KEY=VALUE ...".
fn changed(run: &str, default: impl Fn(&str) -> Option<SolverSettings>) -> Result<SolverSettings> {
    let mut words = run.split_whitespace();
    let name = words.next().unwrap_or_default();
    let settings = default(name)
        .ok_or_else(|| Error::config("--run", format!("no solver `{name}`; see `antumbra solvers list`")))?;
    let mut layers = Layers::defaults(&settings)?;
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            Error::config("--run", format!("`{word}` is not KEY=VALUE, for example matching.candidates=1"))
        })?;
        layers.set(key, value, "--run")?;
    }
    layers.resolve()
}

/// The settings that all beds share, with a draw of every Langevin step, so that the first good one is seen.
fn followed(name: &str) -> Option<SolverSettings> {
    let mut settings = settings(name)?;
    if let SolverSettings::Ppm { correction: CorrectionSettings { langevin, .. }, .. }
    | SolverSettings::Langevin { sampling: langevin, .. } = &mut settings
    {
        (langevin.burn_in, langevin.draws) = (0.0, langevin.iterations);
    }
    Some(settings)
}

/// Sliced W2 between the latest draws of the chains and as many exact ones.
fn distance(bed: &Bed, draws: &Draws, rng: &Rng) -> Result<Option<f64>> {
    let latest = draws.latest()?;
    if latest.len() < 2 {
        return Ok(None);
    }
    let exact = bed.draws(latest.len(), &mut rng.stream("reference", 0))?;
    Ok(Some(sliced_w2(&latest.images.flatten_from(1)?, &exact.flatten_from(1)?)?))
}

const HEADER: &str = "| on | run | to reach | found | steps | forwards | VJPs | seconds | processor seconds |\n\
                      |---|---|---|---|---|---|---|---|---|\n";

/// One run.
#[derive(Debug, Serialize)]
struct Row {
    on: String,
    run: String,
    /// Name and value of what is to be reached.
    target: (&'static str, f64),
    cost: Cost,
}

impl Row {
    fn line(&self) -> String {
        let ((what, target), cost) = (self.target, &self.cost);
        let mut found = cost.nearest.map_or("nothing".into(), |nearest| format!("{nearest:.3}"));
        if !cost.reached {
            found = format!("not reached: {found}");
        }
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            line,
            "| {} | {} | {what} {target:.3} | {found} | {} | {} | {} | {:.1} | {:.1} |",
            self.on,
            self.run,
            cost.steps,
            cost.forwards,
            cost.backwards,
            cost.seconds,
            cost.processor_seconds
        );
        line
    }
}

fn noted(row: Row) -> Row {
    cli::note(row.line().trim_end());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_runs_differ_from_the_default_by_what_they_say() {
        for usual in ON_BEDS {
            changed(usual, followed).unwrap();
        }
        for usual in ON_DATA {
            changed(usual, SolverSettings::named).unwrap();
        }
        let SolverSettings::Ppm { matching, .. } = changed("ppm matching.candidates=1", followed).unwrap()
        else {
            panic!()
        };
        let SolverSettings::Ppm { matching: default, .. } = followed("ppm").unwrap() else { panic!() };
        assert_eq!((matching.candidates, matching.steps), (1, default.steps));
        assert_ne!(default.candidates, 1);
    }

    #[test]
    fn unknown_solvers_and_settings_are_refused_by_name() {
        for (run, named) in [("pmp", "pmp"), ("ppm matching", "matching"), ("ppm matching.stepz=1", "stepz")]
        {
            let error = changed(run, followed).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    /// Chains that start at draws of the prior come nearer to the posterior, and no passes are counted after that.
    #[test]
    fn a_run_ends_with_the_first_good_draws() {
        let (rng, compute) = (Rng::new(1), Compute::cpu());
        let bed = Bed::named("gaussian-1d", &rng, &compute).unwrap();
        let mut settings = changed("langevin sampling.anneal=0", followed).unwrap();
        settings.set_chains(64);
        let until = |target: f64, limit: f64| {
            let (problem, prior) = (&bed.problem, bed.prior.as_ref());
            let attempt =
                Attempt { problem, prior, settings: &settings, rng: &rng, compute: &compute, limit };
            attempt.until(target, |draws| distance(&bed, draws, &rng)).unwrap()
        };
        let (early, late) = (until(f64::INFINITY, 60.0), until(0.4, 60.0));
        assert!(early.nearest.unwrap() > 0.4, "{early:?}");
        assert!(late.reached && late.nearest.unwrap() <= 0.4 && late.steps > early.steps, "{late:?}");
        assert!(
            late.forwards - early.forwards >= 64 * (late.steps - early.steps) as u64,
            "{early:?} {late:?}"
        );
        let given_up = until(0.0, 0.0);
        assert!(!given_up.reached && given_up.steps == 0, "{given_up:?}");
    }
}
