//! Many replicates, one after the other, each kept as soon as it is finished.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::record::{Record, Replicate};
use crate::{Error, Result, rng::Rng};

/// Largest file of records that is read, bytes.
const LARGEST_FILE: u64 = 1 << 32;

/// Where replicates come from: a truth of the prior, data simulated from it, and draws of the posterior of these data.
pub trait Source {
    /// Replicate `number`; all randomness comes from `rng`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is set, and whatever makes a replicate fail.
    fn replicate(&mut self, number: u64, rng: &Rng, stop: &AtomicBool) -> Result<Replicate>;
}

/// Which replicates are made and where they are kept.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// SHA-256 of the settings that the replicates share.
    pub setup: &'a str,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Numbers of the replicates.
    pub numbers: Range<u64>,
    /// One JSON object a line for each.
    pub file: &'a Path,
}

impl Plan<'_> {
    /// Makes the replicates that the file does not hold yet and returns all that it then holds; `watch` sees each new
    /// one with how many of how many are done.
    ///
    /// A replicate that fails is recorded with its error.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is set (the unfinished replicate is made again on resumption), a file that
    /// cannot be written, or one that holds replicates of another set-up.
    pub fn run(
        &self,
        source: &mut dyn Source,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(usize, usize, &Record),
    ) -> Result<Vec<Record>> {
        let (mut records, length) = read_whole_lines(self.file)?;
        check(&records, self.setup, self.file)?;
        let made: BTreeSet<[u64; 2]> = records.iter().map(|record| [record.seed, record.replicate]).collect();
        let failed = |error| Error::io(self.file, error);
        let mut file = OpenOptions::new().create(true).append(true).open(self.file).map_err(failed)?;
        file.set_len(length).map_err(failed)?;
        let total = (self.numbers.end - self.numbers.start) as usize;
        let mut done = 0;
        for number in self.numbers.clone() {
            done += 1;
            if made.contains(&[self.seed, number]) {
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let record = self.record(source, number, stop)?;
            let line = serde_json::to_string(&record)
                .map_err(|e| Error::format(self.file, format!("replicate {number}"), e.to_string()))?;
            writeln!(file, "{line}").map_err(failed)?;
            watch(done, total, &record);
            records.push(record);
        }
        Ok(records)
    }

    fn record(&self, source: &mut dyn Source, number: u64, stop: &AtomicBool) -> Result<Record> {
        let clock = Instant::now();
        let rng = Rng::new(self.seed).stream("replicate", number);
        let (result, error) = match source.replicate(number, &rng, stop) {
            Ok(replicate) if replicate.is_whole() => (Some(replicate), None),
            Ok(_) => (None, Some("it has no draws".to_string())),
            Err(error @ (Error::Interrupted | Error::Io { .. })) => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        let seconds = clock.elapsed().as_secs_f64();
        Ok(Record { setup: self.setup.into(), seed: self.seed, replicate: number, seconds, error, result })
    }
}

/// The records of several files, of one set-up, each replicate once.
///
/// # Errors
/// A file that cannot be read, or replicates of another set-up.
pub fn merged(records: Vec<Record>, setup: &str, files: &[&Path]) -> Result<Vec<Record>> {
    let mut all = records;
    for file in files {
        if !file.is_file() {
            return Err(Error::config("--merge", format!("there is no {}", file.display())));
        }
        let (more, _) = read_whole_lines(file)?;
        check(&more, setup, file)?;
        all.extend(more);
    }
    let mut seen = BTreeSet::new();
    all.retain(|record| seen.insert([record.seed, record.replicate]));
    Ok(all)
}

fn check(records: &[Record], setup: &str, file: &Path) -> Result<()> {
    match records.iter().position(|record| record.setup != setup) {
        Some(index) => Err(Error::format(
            file,
            format!("line {}", index + 1),
            "a replicate of other settings; repeat those settings, or start again with --force",
        )),
        None => Ok(()),
    }
}

/// The records of a file and the length of its whole lines: a killed run may leave a part of the last one. None without
/// a file.
fn read_whole_lines(file: &Path) -> Result<(Vec<Record>, u64)> {
    if !file.exists() {
        return Ok((Vec::new(), 0));
    }
    let failed = |error| Error::io(file, error);
    if fs::metadata(file).map_err(failed)?.len() > LARGEST_FILE {
        return Err(Error::format(file, "size", "more than 4 GiB is too large for records of replicates"));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let record = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            let problem = format!("{e}; not a replicate, start again with --force");
            Error::format(file, format!("line {}", index + 1), problem)
        })
    };
    let records: Vec<Record> = whole.lines().enumerate().map(record).collect::<Result<_>>()?;
    match records.iter().position(|record| record.result.as_ref().is_some_and(|r| !r.is_whole())) {
        Some(index) => Err(Error::format(file, format!("line {}", index + 1), "arrays of different lengths")),
        None => Ok((records, whole.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::bed::{Answer, Bed};

    fn plan<'a>(file: &'a Path, numbers: Range<u64>) -> Plan<'a> {
        Plan { setup: "abc", seed: 1, numbers, file }
    }

    fn made(source: &mut dyn Source, plan: &Plan) -> Result<Vec<Record>> {
        let records = plan.run(source, &AtomicBool::new(false), &mut |_, _, _| ())?;
        Ok(records.into_iter().map(|record| Record { seconds: 0.0, ..record }).collect())
    }

    /// A bed whose odd replicates fail.
    struct Fragile(Bed);

    impl Source for Fragile {
        fn replicate(&mut self, number: u64, rng: &Rng, stop: &AtomicBool) -> Result<Replicate> {
            match number % 2 {
                0 => self.0.replicate(number, rng, stop),
                _ => Err(Error::Diverged { what: "chain".into(), step: 3 }),
            }
        }
    }

    #[test]
    fn an_interrupted_campaign_continues_to_the_same_records() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, parted] = ["whole", "parted"].map(|name| folder.path().join(name));
        let mut bed = Bed::new(Answer::Exact);
        let all = made(&mut bed, &plan(&whole, 0..6)).unwrap();
        made(&mut bed, &plan(&parted, 0..3)).unwrap();
        // A killed run leaves half a line.
        let mut text = fs::read_to_string(&parted).unwrap();
        text.push_str("{\"setup\": \"ab");
        fs::write(&parted, text).unwrap();
        assert_eq!(made(&mut bed, &plan(&parted, 0..6)).unwrap().len(), 6);
        let (read, _) = read_whole_lines(&parted).unwrap();
        assert_eq!(
            read.iter().map(|r| &r.result).collect::<Vec<_>>(),
            all.iter().map(|r| &r.result).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_set_flag_interrupts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records");
        let stopped =
            plan(&file, 0..3).run(&mut Bed::new(Answer::Exact), &AtomicBool::new(true), &mut |_, _, _| ());
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    #[test]
    fn failed_replicates_are_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records");
        let records = made(&mut Fragile(Bed::new(Answer::Exact)), &plan(&file, 0..4)).unwrap();
        let errors: Vec<bool> = records.iter().map(|record| record.error.is_some()).collect();
        assert_eq!(errors, [false, true, false, true]);
        assert!(records[1].error.as_ref().unwrap().contains("chain"));
    }

    #[test]
    fn shards_are_merged_once_and_foreign_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        let mut bed = Bed::new(Answer::Exact);
        let records = made(&mut bed, &plan(&first, 0..3)).unwrap();
        made(&mut bed, &plan(&second, 2..5)).unwrap();
        assert_eq!(merged(records.clone(), "abc", &[&second]).unwrap().len(), 5);
        assert!(merged(records, "abd", &[&second]).unwrap_err().to_string().contains("line 1"));
        let other = Plan { setup: "abd", ..plan(&first, 0..3) };
        assert!(made(&mut bed, &other).is_err());
    }
}
