//! Measured radial optical transfer functions: MRC files as structured-illumination software writes them, or CSV.

use std::{fs, path::Path};

use crate::{Error, Result};

/// Length of the MRC header, bytes.
const HEADER: usize = 1024;
/// Largest file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 24;
/// MRC mode of complex values in single precision.
const COMPLEX: i32 = 4;

/// A transfer function that depends on the distance from frequency 0 alone.
#[derive(Debug, Clone, PartialEq)]
pub struct RadialOtf {
    /// Distance between values, 1/m.
    pub step: f64,
    /// Real parts from frequency 0 on, 1 at frequency 0.
    pub values: Vec<f64>,
}

impl RadialOtf {
    /// Value at a spatial frequency in 1/m: linear between the values, 0 beyond them.
    pub fn at(&self, frequency: f64) -> f64 {
        let place = frequency / self.step;
        let index = place as usize;
        match (self.values.get(index), self.values.get(index + 1)) {
            (Some(below), Some(above)) => below + (above - below) * (place - index as f64),
            (Some(last), None) if place == index as f64 => *last,
            _ => 0.0,
        }
    }

    /// Frequency above which nothing stands out of the noise of the outermost quarter, 1/m.
    pub fn cut_off(&self) -> f64 {
        /// Standard deviations of that noise that a value must exceed.
        const SIGNIFICANT: f64 = 5.0;
        let tail = &self.values[self.values.len() * 3 / 4..];
        let count = tail.len().max(1) as f64;
        let mean = tail.iter().sum::<f64>() / count;
        let sd = (tail.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
        let last = self.values.iter().rposition(|&v| v > mean + SIGNIFICANT * sd);
        last.unwrap_or_default() as f64 * self.step
    }
}

/// Reads a radial transfer function: CSV with spatial frequency in 1/um and value, anything else as MRC.
///
/// # Errors
/// A file of another kind, damaged, or with values that are no transfer function.
pub fn read(file: &Path) -> Result<RadialOtf> {
    let size = fs::metadata(file).map_err(|e| Error::io(file, e))?.len();
    if size > LARGEST_FILE {
        return Err(Error::format(file, "file", format!("{size} bytes; a radial OTF has a few thousand")));
    }
    let bytes = fs::read(file).map_err(|e| Error::io(file, e))?;
    let (step, values) = match file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        true => from_csv(file, &bytes)?,
        false => from_mrc(file, &bytes)?,
    };
    let first = values.first().copied().unwrap_or_default();
    if values.len() < 8 || values.iter().any(|v| !v.is_finite()) || first <= 0.0 {
        let problem = "at least 8 finite values are needed, the first above 0";
        return Err(Error::format(file, "values", problem));
    }
    if !(step.is_finite() && step > 0.0) {
        return Err(Error::format(file, "frequencies", "must ascend in equal steps from 0"));
    }
    Ok(RadialOtf { step: step * 1e6, values: values.iter().map(|v| v / first).collect() })
}

/// Frequency step in 1/um and real parts.
///
/// Word 10 of an image's header is the pixel size in um. In a transfer function it is the frequency step in 1/um; taken
/// for a pixel size it makes the transfer function too wide.
fn from_mrc(file: &Path, bytes: &[u8]) -> Result<(f64, Vec<f64>)> {
    let word = |index: usize| -> Result<[u8; 4]> {
        let found = bytes.get(4 * index..4 * index + 4).and_then(|word| word.try_into().ok());
        found.ok_or_else(|| Error::format(file, "header", "the file ends inside the header"))
    };
    let integer = |index: usize| word(index).map(i32::from_le_bytes);
    let [columns, rows, sections, mode] = [integer(0)?, integer(1)?, integer(2)?, integer(3)?];
    if mode != COMPLEX {
        let problem = format!("mode {mode}; a transfer function has mode 4 (complex), little-endian");
        return Err(Error::format(file, "header word 3", problem));
    }
    let count = match (usize::try_from(columns), rows, sections) {
        (Ok(count), 1, 1) => count,
        _ => {
            let problem = format!("{columns} x {rows} x {sections} values; a radial OTF has one row");
            return Err(Error::format(file, "header words 0 to 2", problem));
        }
    };
    let extended = usize::try_from(integer(23)?).unwrap_or(usize::MAX);
    let start = HEADER.saturating_add(extended);
    let values = bytes.get(start..start.saturating_add(count.saturating_mul(8)));
    let Some(values) = values else {
        let problem = format!("{count} complex values are announced, {} bytes are there", bytes.len());
        return Err(Error::format(file, "values", problem));
    };
    let real = |pair: &[u8]| f64::from(f32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]));
    Ok((f64::from(f32::from_le_bytes(word(10)?)), values.chunks_exact(8).map(real).collect()))
}

fn from_csv(file: &Path, bytes: &[u8]) -> Result<(f64, Vec<f64>)> {
    let text = String::from_utf8_lossy(bytes);
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line
            .split_once(',')
            .and_then(|(f, v)| Some((f.trim().parse::<f64>().ok()?, v.trim().parse::<f64>().ok()?)));
        rows.push(pair.ok_or_else(|| {
            let problem = format!("`{line}` is not `frequency in 1/um,value`");
            Error::format(file, format!("line {}", index + 1), problem)
        })?);
    }
    let step = rows.last().map_or(0.0, |(last, _)| last / (rows.len() as f64 - 1.0));
    let even =
        |(index, (frequency, _)): (usize, &(f64, f64))| (frequency - index as f64 * step).abs() < 0.01 * step;
    match rows.iter().enumerate().all(even) {
        true => Ok((step, rows.into_iter().map(|(_, value)| value).collect())),
        false => Err(Error::format(file, "frequencies", "must ascend in equal steps from 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of `count` complex values with step 0.03/um in word 10, and values 1, 1/2, 1/3 ...
    fn mrc(count: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for (index, value) in [count as i32, 1, 1, COMPLEX].iter().enumerate() {
            bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&0.03f32.to_le_bytes());
        for index in 0..count {
            bytes.extend((2.0 / (1.0 + index as f32)).to_le_bytes());
            bytes.extend(0f32.to_le_bytes());
        }
        bytes
    }

    fn written(name: &str, bytes: &[u8]) -> Result<RadialOtf> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        read(&file)
    }

    #[test]
    fn word_10_of_an_mrc_header_is_the_frequency_step() {
        let otf = written("otf.mrc", &mrc(16)).unwrap();
        assert!((otf.step / 0.03e6 - 1.0).abs() < 1e-6, "{}", otf.step);
        assert!((otf.values[3] - 0.25).abs() < 1e-6 && otf.values[0] == 1.0);
        assert!((otf.at(0.045e6) - 0.5 * (0.5 + 1.0 / 3.0)).abs() < 1e-5);
        assert_eq!(otf.at(1e6), 0.0);
    }

    #[test]
    fn csv_holds_the_same() {
        let otf = written("otf.csv", b"# f,otf\n0,2\n0.5,1\n1,1\n1.5,1\n2,1\n2.5,1\n3,1\n3.5,0.5\n").unwrap();
        assert_eq!((otf.step, otf.values[1], otf.values[7]), (0.5e6, 0.5, 0.25));
    }

    #[test]
    fn damaged_files_are_refused_with_their_place() {
        let refused = |name: &str, bytes: &[u8], word: &str| {
            let message = written(name, bytes).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(word), "{message}");
        };
        let mut announced = mrc(16);
        announced[0..4].copy_from_slice(&i32::MAX.to_le_bytes());
        refused("a.mrc", &announced, "announced");
        refused("b.mrc", &mrc(16)[..30], "header");
        let mut image = mrc(16);
        image[12] = 6;
        refused("c.mrc", &image, "mode 6");
        refused("d.csv", b"0,1\n1,x\n", "line 2");
        refused("e.csv", b"0,1\n1,1\n3,1\n4,1\n5,1\n6,1\n7,1\n8,1\n", "equal steps");
        refused("f.mrc", &mrc(3), "at least 8");
    }
}
