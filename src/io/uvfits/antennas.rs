//! The antenna tables (AIPS AN), one for each subarray.

use std::collections::HashMap;

use crate::instrument::vlbi::Station;
use crate::io::fits::{FitsReader, Table};
use crate::{Error, Result};

/// Entries of one antenna closer than this are one station, metres.
const SAME_PLACE: f64 = 1.0;

/// Largest number of stations in one table; baselines can name 2047.
const MOST_STATIONS: usize = 4096;

/// Stations of all subarrays and their numbers in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Antennas {
    pub(super) stations: Vec<Station>,
    /// (subarray, NOSTA) to index in `stations`.
    numbers: HashMap<(i64, i64), usize>,
}

impl Antennas {
    /// Reads every table called AIPS AN; EXTVER is the number of its subarray.
    pub(super) fn read(file: &mut FitsReader) -> Result<Self> {
        let mut antennas = Self::default();
        let units: Vec<_> = file.units().iter().filter(|unit| unit.name() == "AIPS AN").cloned().collect();
        for (index, unit) in units.iter().enumerate() {
            let table = Table::read(file, unit)?;
            let subarray = table.header.integer("EXTVER").unwrap_or(index as i64 + 1);
            antennas.append(file, &table, subarray)?;
        }
        if antennas.stations.is_empty() {
            let problem =
                "no antenna table (AIPS AN) with stations; the file is cut off or was written without it";
            return Err(Error::format(file.path(), "extensions", problem));
        }
        Ok(antennas)
    }

    /// Index of station NOSTA of a subarray.
    pub(super) fn index(&self, subarray: i64, number: i64) -> Option<usize> {
        self.numbers.get(&(subarray, number)).copied()
    }

    fn append(&mut self, file: &FitsReader, table: &Table, subarray: i64) -> Result<()> {
        let missing = |name: &str| {
            let problem = format!("no usable column {name}; write the antenna table again");
            Error::format(file.path(), table.place.clone(), problem)
        };
        if table.len() > MOST_STATIONS {
            let problem = format!("{} stations; at most {MOST_STATIONS} can be read", table.len());
            return Err(Error::format(file.path(), table.place.clone(), problem));
        }
        let codes = table.text("ANNAME").ok_or_else(|| missing("ANNAME"))?;
        let positions = table.numbers("STABXYZ").ok_or_else(|| missing("STABXYZ"))?;
        let numbers = table.numbers("NOSTA").ok_or_else(|| missing("NOSTA"))?;
        let sefds = table.numbers("SEFD").unwrap_or_default();
        let centre = ["ARRAYX", "ARRAYY", "ARRAYZ"].map(|key| table.header.number(key).unwrap_or(0.0));
        for (row, code) in codes.into_iter().enumerate() {
            let [x, y, z] = positions[row][..] else { return Err(missing("STABXYZ (3 values)")) };
            let [number] = numbers[row][..] else { return Err(missing("NOSTA (1 value)")) };
            let position = [centre[0] + x, centre[1] + y, centre[2] + z];
            if position.iter().any(|component| !component.is_finite()) {
                let problem =
                    format!("the position of station {code} is not finite; correct STABXYZ or ARRAYX/Y/Z");
                return Err(Error::format(file.path(), table.place.clone(), problem));
            }
            let sefd = sefds.get(row).and_then(|values| values.first()).copied();
            let sefd = sefd.filter(|sefd| sefd.is_finite() && *sefd > 0.0);
            let index = self.place(Station { code, position, sefd }, subarray);
            self.numbers.insert((subarray, number as i64), index);
        }
        Ok(())
    }

    /// Index of a station, which is added unless an equal one of another subarray is there.
    fn place(&mut self, mut station: Station, subarray: i64) -> usize {
        let distance = |other: &Station| {
            let squares = (0..3).map(|axis| (other.position[axis] - station.position[axis]).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let same = |other: &Station| other.code == station.code && distance(other) < SAME_PLACE;
        if let Some(index) = self.stations.iter().position(same) {
            return index;
        }
        if self.stations.iter().any(|other| other.code == station.code) {
            station.code = format!("{}.{subarray}", station.code);
        }
        self.stations.push(station);
        self.stations.len() - 1
    }
}
