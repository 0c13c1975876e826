//! Several runs of one problem joined into one run directory, with the checks of all chains together.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Directory, Outcome, Reconstruction, Settings, finish, outcome::draws};
use crate::{
    Error, Result,
    instrument::vlbi::held_out::HoldOut,
    io::atomic,
    manifest::{self, Manifest, Merged, Stopwatch},
    posterior::Draws,
};

/// Settings in which runs of the same problem may differ. The data are compared by their hash.
const FREE: [&str; 6] = ["seed", "samples", "data", "device", "threads", "plots"];

/// Joins the finished runs in `roots` in the run directory `output`: one outcome for every reconstruction of a file.
///
/// # Errors
/// A run that is not finished, runs that differ in more than their seeds, or a file that cannot be written.
pub fn merge(roots: &[PathBuf], output: &Path) -> Result<Vec<Outcome>> {
    if roots.iter().any(|root| root == output) {
        return Err(Error::config("-o", format!("{} is one of the runs; name another", output.display())));
    }
    let (mut outcomes, mut folders, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for name in common_parts(roots)? {
        let part = |root: &PathBuf| Shard::read(&Directory::below(root, &name));
        let shards = roots.iter().map(part).collect::<Result<Vec<_>>>()?;
        let folder = Directory::below(output, &name);
        let (settings, outcome) = join(shards, &folder)?;
        outcomes.push(outcome);
        folders.push(folder);
        all.push(settings);
    }
    if let Some(settings) = of_all_parts(all) {
        finish(&settings, &folders, output)?;
    }
    Ok(outcomes)
}

/// The folders below each of `roots` that hold a run: the root itself, or those of a stack's channels and times.
fn common_parts(roots: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = roots.iter().map(|root| Directory::runs(root));
    let first = found.next().transpose()?.unwrap_or_default();
    for (other, root) in found.zip(&roots[1..]) {
        if let Some(odd) = first.symmetric_difference(&other?).next() {
            let problem =
                format!("{} is in one of it and {}, but not in both", odd.display(), roots[0].display());
            return Err(Error::format(root, "runs", problem));
        }
    }
    Ok(first)
}

/// The settings of the whole file from those of its reconstructions.
fn of_all_parts(parts: Vec<Settings>) -> Option<Settings> {
    let chosen = |of: fn(&Settings) -> &Vec<usize>| {
        parts.iter().flat_map(of).copied().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let (times, channels) = (chosen(|part| &part.stack.times), chosen(|part| &part.stack.channels));
    let mut settings = parts.into_iter().next()?;
    (settings.stack.times, settings.stack.channels) = (times, channels);
    Some(settings)
}

/// A finished run.
struct Shard {
    directory: Directory,
    settings: Settings,
    manifest: Manifest,
}

impl Shard {
    fn read(root: &Path) -> Result<Self> {
        let (directory, settings) = Directory::read(root)?;
        let file = directory.manifest();
        if !file.is_file() {
            let problem =
                "is missing, so the run is not finished; repeat its command with --resume, or leave it out";
            return Err(Error::format(root, "manifest.json", problem));
        }
        Ok(Self { manifest: manifest::read_json(&file)?, directory, settings })
    }

    fn name(&self) -> String {
        self.directory.root().display().to_string()
    }

    /// The independent runs that it consists of.
    fn runs(&self) -> Vec<Merged> {
        if !self.manifest.merged.is_empty() {
            return self.manifest.merged.clone();
        }
        let Manifest { seed, config_sha256, .. } = self.manifest.clone();
        vec![Merged { directory: self.name(), seed, config_sha256 }]
    }

    /// Refuses a run of another problem than `first`, and names the difference.
    fn check(&self, first: &Self) -> Result<()> {
        let refuse = |what: &str, here: &str, there: &str| {
            let problem = format!(
                "is {here} here and {there} in {}; only runs that differ in nothing but their seeds can be merged",
                first.name()
            );
            Err(Error::format(self.directory.root(), what, problem))
        };
        let data =
            |shard: &Self| shard.manifest.inputs.iter().map(|input| input.sha256.clone()).collect::<Vec<_>>();
        let prior = |shard: &Self| shard.manifest.prior_sha256.clone().unwrap_or_default();
        for (what, here, there) in [
            ("version", self.manifest.version.clone(), first.manifest.version.clone()),
            ("SHA-256 of the data", data(self).join(", "), data(first).join(", ")),
            ("SHA-256 of the prior", prior(self), prior(first)),
        ] {
            if here != there {
                return refuse(what, &here, &there);
            }
        }
        match difference(&fixed(&self.settings)?, &fixed(&first.settings)?, "") {
            Some([place, here, there]) => refuse(&place, &here, &there),
            None => Ok(()),
        }
    }
}

/// The settings that must agree.
fn fixed(settings: &Settings) -> Result<Value> {
    let mut value = serde_json::to_value(settings).map_err(|e| Error::config("settings", e.to_string()))?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, _| !FREE.contains(&name.as_str()));
    }
    Ok(value)
}

/// Dotted path and both values of the first place where two settings differ.
fn difference(here: &Value, there: &Value, path: &str) -> Option<[String; 3]> {
    let (Value::Object(fields), Value::Object(others)) = (here, there) else {
        return (here != there).then(|| [path.to_string(), here.to_string(), there.to_string()]);
    };
    let names: BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
    names.into_iter().find_map(|name| {
        let [here, there] = [fields, others].map(|of| of.get(name).unwrap_or(&Value::Null));
        difference(here, there, format!("{path}.{name}").trim_start_matches('.'))
    })
}

/// Refuses runs that are not independent runs of one problem; gives back what they consist of.
fn independent(shards: &[Shard]) -> Result<Vec<Merged>> {
    let Settings { vlbi, stack, .. } = &shards[0].settings;
    let by_chance = [
        (
            "vlbi.hold_out",
            matches!(vlbi.hold_out, Some(HoldOut::Fraction(_))),
            "name a station or a baseline",
        ),
        ("stack.hold_out", stack.hold_out != 0.0, "fit all data, or give one run more chains"),
    ];
    if let Some((place, _, remedy)) = by_chance.into_iter().find(|(_, chosen, _)| *chosen) {
        let problem =
            format!("the seed chose what each run leaves out, so they fit different data; {remedy}");
        return Err(Error::format(shards[0].directory.root(), place, problem));
    }
    let mut runs: Vec<Merged> = Vec::new();
    for shard in shards {
        shard.check(&shards[0])?;
        for run in shard.runs() {
            if let Some(same) = runs.iter().find(|other| other.seed == run.seed) {
                let problem = format!("is {} as in {}: the same draws twice", run.seed, same.directory);
                return Err(Error::format(shard.directory.root(), "seed", problem));
            }
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Writes the run directory of all `shards` together; returns its settings too.
fn join(shards: Vec<Shard>, folder: &Path) -> Result<(Settings, Outcome)> {
    let runs = independent(&shards)?;
    let samples = shards.iter().map(|shard| shard.settings.samples).sum();
    let settings = Settings { samples, ..shards[0].settings.clone() };
    let mut watch = Stopwatch::start();
    let mut run = Reconstruction::prepare(settings.clone())?;
    let known = &shards[0].manifest;
    if known.inputs.iter().all(|input| input.sha256 != run.input.sha256) {
        let problem = format!("have changed since the run in {}; restore them", shards[0].name());
        return Err(Error::format(settings.data()?, "data", problem));
    }
    let drawn = shards.iter().map(|shard| draws(&mut run, &shard.directory)).collect::<Result<Vec<_>>>()?;
    let joint = Draws::of_runs(drawn)?;
    let directory = Directory::open(folder, &settings, false)?;
    joint.write(&directory.draws())?;
    let metrics: Vec<PathBuf> = shards.iter().map(|shard| shard.directory.metrics()).collect();
    atomic::replace_bytes(&directory.metrics(), mean_metrics(&metrics)?.as_bytes())?;
    let lines = runs.iter().map(|run| format!("merged {}, seed {}\n", run.directory, run.seed));
    let log = concat!("antumbra ", env!("CARGO_PKG_VERSION"), "\n").to_string() + &lines.collect::<String>();
    atomic::replace_bytes(&directory.file("log.txt"), log.as_bytes())?;
    watch.lap("merging");
    let outcome = Outcome::write(&run, &joint, runs, &directory, watch)?;
    Ok((settings, outcome))
}

/// The records of all runs as one: of every step the mean of each number.
fn mean_metrics(files: &[PathBuf]) -> Result<String> {
    let records = files.iter().map(|file| records(file)).collect::<Result<Vec<_>>>()?;
    let steps = records.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |step: usize, (name, first): (&String, &Value)| {
        let numbers: Option<Vec<f64>> = records.iter().map(|run| run[step].get(name)?.as_f64()).collect();
        let value = match numbers {
            Some(numbers) if name != "step" => (numbers.iter().sum::<f64>() / numbers.len() as f64).into(),
            _ => first.clone(),
        };
        (name.clone(), value)
    };
    let line = |step: usize| {
        let record: Map<String, Value> = records[0][step].iter().map(|field| mean(step, field)).collect();
        format!("{}\n", Value::Object(record))
    };
    Ok((0..steps).map(line).collect())
}

fn records(file: &Path) -> Result<Vec<Map<String, Value>>> {
    let text = fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
    let record = |(index, line): (usize, &str)| {
        let wrong = |e: serde_json::Error| Error::format(file, format!("line {}", index + 1), e.to_string());
        serde_json::from_str(line).map_err(wrong)
    };
    text.lines().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let settings = json!({"a": {"b": 1, "c": [2]}, "d": "x"});
        assert_eq!(difference(&settings, &settings, ""), None);
        let other = json!({"a": {"b": 1, "c": [3]}, "d": "x"});
        assert_eq!(difference(&settings, &other, ""), Some(["a.c", "[2]", "[3]"].map(String::from)));
        let fewer = json!({"a": {"b": 1, "c": [2]}});
        assert_eq!(difference(&fewer, &settings, ""), Some(["d", "null", "\"x\""].map(String::from)));
    }

    #[test]
    fn records_of_runs_become_their_mean() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a", 1.0), ("b", 4.0)].map(|(name, value)| {
            let file = folder.path().join(name);
            fs::write(&file, format!("{}\n", json!({"step": 7, "stage": "ppm", "kl_bound": value}))).unwrap();
            file
        });
        let joint = mean_metrics(&files).unwrap();
        assert_eq!(joint, "{\"step\":7,\"stage\":\"ppm\",\"kl_bound\":2.5}\n");
    }
}
