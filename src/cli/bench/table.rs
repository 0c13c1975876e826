//! The rows of `antumbra bench posterior` in its directory, each kept as soon as it is measured.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, manifest,
    posterior::{
        beds::{Bed, Row},
        catalogue,
    },
};

/// What `beds.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// Seed of instruments, data and solvers of all rows.
    seed: u64,
    /// In the order of beds, numbers of draws, and solvers; exact draws first.
    rows: Vec<Row>,
}

/// The rows of a directory.
#[derive(Debug)]
pub(super) struct Table {
    file: PathBuf,
    content: Content,
}

impl Table {
    /// The table of a directory, which is made if it does not exist: its rows if they are to be kept, none otherwise.
    ///
    /// # Errors
    /// A table that is neither kept nor replaced, one of another seed, or a file that cannot be read or written.
    pub(super) fn open(directory: &Path, seed: u64, kept: bool, replaced: bool) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
        let file = directory.join("beds.json");
        if !(kept && file.exists()) {
            crate::cli::refuse_to_replace(&file, replaced)?;
            return Ok(Self { file, content: Content { seed, rows: Vec::new() } });
        }
        let content: Content = manifest::read_json(&file)?;
        if content.seed != seed {
            let problem = format!("holds rows of seed {}; give that seed, or another --output", content.seed);
            return Err(Error::format(&file, "seed", problem));
        }
        Ok(Self { file, content })
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[Row] {
        &self.content.rows
    }

    /// Adds the row of a bed and a solver with so many draws unless it is there, and returns it if it is new.
    ///
    /// # Errors
    /// Those of `measure`, or a file that cannot be written.
    pub(super) fn fill(
        &mut self,
        [bed, solver]: [&str; 2],
        draws: usize,
        measure: impl FnOnce() -> Result<Row>,
    ) -> Result<Option<&Row>> {
        let rows = &mut self.content.rows;
        if rows.iter().any(|row| row.bed == bed && row.solver == solver && row.draws == draws) {
            return Ok(None);
        }
        let row = measure()?;
        let place = rows.partition_point(|other| place(other) < place(&row));
        rows.insert(place, row);
        manifest::write_json(&self.content, &self.file)?;
        Ok(Some(&self.content.rows[place]))
    }
}

/// Numbers of bed, draws and solver by which rows are ordered.
fn place(row: &Row) -> [usize; 3] {
    let bed = Bed::all().position(|(name, _)| name == row.bed);
    let solver = catalogue().iter().position(|entry| entry.name == row.solver);
    [bed, Some(row.draws), solver].map(|number| number.map_or(0, |number| number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posterior::beds::Outcome;

    fn row(bed: &str, solver: &str) -> Row {
        let outcome = Outcome::Failed("for a test".into());
        let (bed, solver) = (bed.into(), solver.into());
        Row { bed, solver, draws: 2, outcome, forwards: 0.0, backwards: 0.0, seconds: 0.0 }
    }

    #[test]
    fn a_resumed_table_measures_what_is_missing_and_keeps_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let open = |seed, kept, replaced| Table::open(directory.path(), seed, kept, replaced);
        let mut table = open(1, true, false).unwrap();
        for pair in [["grid-2d", "dps"], ["grid-2d", "exact"]] {
            assert!(table.fill(pair, 2, || Ok(row(pair[0], pair[1]))).unwrap().is_some());
        }
        assert!(open(1, false, false).unwrap_err().to_string().contains("--force"));
        assert!(open(2, true, false).unwrap_err().to_string().contains("seed 1"));
        let mut table = open(1, true, false).unwrap();
        assert!(table.fill(["grid-2d", "dps"], 2, || panic!("it is there")).unwrap().is_none());
        table.fill(["gaussian-1d", "ppm"], 2, || Ok(row("gaussian-1d", "ppm"))).unwrap();
        let order: Vec<&str> = table.rows().iter().map(|row| row.solver.as_str()).collect();
        assert_eq!(order, ["ppm", "exact", "dps"]);
        assert!(open(1, false, true).unwrap().rows().is_empty());
    }
}
