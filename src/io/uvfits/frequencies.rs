//! The frequency table (AIPS FQ): offsets of the IFs in every frequency setup.

use super::axes::Axes;
use crate::io::fits::{FitsReader, Table};
use crate::{Error, Result};

/// Largest number of frequency setups in one file.
const MOST_SETUPS: usize = 1000;

/// Channel frequencies by setup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frequencies {
    /// FRQSEL of each setup.
    selections: Vec<i64>,
    /// Hz, `[setup][IF][channel]`.
    pub(super) channels: Vec<Vec<Vec<f64>>>,
}

impl Frequencies {
    /// Reads the table; without one, a single IF lies at the frequency of the FREQ axis.
    pub(super) fn read(file: &mut FitsReader, axes: &Axes) -> Result<Self> {
        let ifs = axes.intermediate.length;
        let unit = file.units().iter().find(|unit| unit.name() == "AIPS FQ").cloned();
        let Some(unit) = unit else {
            if ifs > 1 {
                let problem =
                    format!("{ifs} IFs but no frequency table (AIPS FQ); write the file again with it");
                return Err(Error::format(file.path(), "extensions", problem));
            }
            return Ok(Self { selections: vec![1], channels: vec![vec![channels(axes, 0.0, 1.0)]] });
        };
        let table = Table::read(file, &unit)?;
        let wrong = |problem: String| Error::format(file.path(), unit.place(), problem);
        let offsets = table.numbers("IF FREQ").ok_or_else(|| wrong("no column IF FREQ".to_string()))?;
        let selections = table.numbers("FRQSEL").unwrap_or_default();
        let sidebands = table.numbers("SIDEBAND").unwrap_or_default();
        if offsets.is_empty() || offsets.len() > MOST_SETUPS {
            let problem =
                format!("{} rows; a frequency table has 1 to {MOST_SETUPS}: write it again", offsets.len());
            return Err(wrong(problem));
        }
        let mut frequencies = Self { selections: Vec::new(), channels: Vec::new() };
        for (row, offsets) in offsets.iter().enumerate() {
            let value = |column: &[Vec<f64>], index: usize| {
                column.get(row).and_then(|values| values.get(index)).copied()
            };
            let setup: Vec<_> = (0..ifs.min(offsets.len()))
                .map(|index| channels(axes, offsets[index], value(&sidebands, index).unwrap_or(1.0)))
                .collect();
            if setup.len() < ifs
                || setup.iter().flatten().any(|frequency| !(frequency.is_finite() && *frequency > 0.0))
            {
                let problem = format!(
                    "row {}: IF FREQ must hold {ifs} offsets in Hz that keep frequencies above 0",
                    row + 1
                );
                return Err(wrong(problem));
            }
            frequencies.selections.push(value(&selections, 0).unwrap_or(row as f64 + 1.0) as i64);
            frequencies.channels.push(setup);
        }
        Ok(frequencies)
    }

    /// Index of the setup that FREQSEL names; the first one where the file does not say.
    pub(super) fn setup(&self, selection: i64) -> Option<usize> {
        if selection <= 0 { Some(0) } else { self.selections.iter().position(|known| *known == selection) }
    }
}

/// Frequencies of one IF's channels; a negative sideband counts them downwards.
fn channels(axes: &Axes, offset: f64, sideband: f64) -> Vec<f64> {
    let axis = axes.channel;
    let step = if sideband < 0.0 { -axis.step.abs() } else { axis.step };
    (0..axis.length).map(|index| axis.value + offset + (index as f64 + 1.0 - axis.reference) * step).collect()
}
