//! MRC-2014 and DeltaVision (`.dv`) files: one header of 1024 bytes, an extended header, then sections.
//!
//! The two share modes and sizes but not units: cell lengths in Angstrom against a pixel size in micrometres.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::order::plane_numbers;
use super::sample::{ByteOrder, SampleType};
use super::{Channel, Metadata, Shape, Stack, bounds, raw::RawPlanes};
use crate::{Error, Result};

/// Length of the header, bytes.
pub(super) const HEADER_BYTES: u64 = 1024;
/// Stamp of MRC files, at byte 208.
const MAP_STAMP: &[u8] = b"MAP";
/// Identifier of DeltaVision files, at byte 96.
const DELTAVISION: i16 = -16224;
/// The modes of complex values: transforms and transfer functions.
const COMPLEX: [i32; 2] = [3, 4];

/// Which of the two formats a header is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MRC-2014.
    Mrc,
    /// DeltaVision.
    DeltaVision,
}

/// The header of an MRC or DeltaVision file.
#[derive(Debug, Clone)]
pub struct Header {
    /// Which of the two it is.
    pub dialect: Dialect,
    /// True if bytes run from the most significant to the least.
    pub big_endian: bool,
    bytes: Vec<u8>,
}

impl Header {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// A file that is shorter than a header, or of another kind.
    pub fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        file.take(HEADER_BYTES).read_to_end(&mut bytes).map_err(|source| Error::io(path, source))?;
        let Some((dialect, big_endian)) = dialect(&bytes) else {
            let problem =
                "neither the stamp of MRC nor that of DeltaVision; export the file as MRC-2014 or TIFF";
            return Err(Error::format(path, "header", problem));
        };
        if bytes.len() < HEADER_BYTES as usize {
            let problem = format!("the file ends after {} of 1024 bytes; copy it again", bytes.len());
            return Err(Error::format(path, "header", problem));
        }
        Ok(Self { dialect, big_endian, bytes })
    }

    /// The word of four bytes with this number, the first being 0, as an integer.
    pub fn integer(&self, word: usize) -> i32 {
        i32::from_ne_bytes(self.field(4 * word))
    }

    /// The word of four bytes with this number, the first being 0, as the shortest decimal that it stands for.
    pub fn number(&self, word: usize) -> f64 {
        let stored = f32::from_ne_bytes(self.field(4 * word));
        stored.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The integer of two bytes at `byte`.
    pub fn short(&self, byte: usize) -> i16 {
        i16::from_ne_bytes(self.field(byte))
    }

    /// How values are stored: 0 to 7, 12, 101.
    pub fn mode(&self) -> i32 {
        self.integer(3)
    }

    /// Where the data begin, behind the extended header.
    pub fn data_start(&self) -> u64 {
        HEADER_BYTES + u64::try_from(self.integer(23)).unwrap_or(0)
    }

    /// `N` bytes in the order of this machine; zeros beyond the header.
    fn field<const N: usize>(&self, byte: usize) -> [u8; N] {
        let mut field = [0; N];
        if let Some(bytes) = self.bytes.get(byte..byte + N) {
            field.copy_from_slice(bytes);
        }
        if self.big_endian != cfg!(target_endian = "big") {
            field.reverse();
        }
        field
    }

    fn sample_type(&self) -> Option<SampleType> {
        Some(match (self.mode(), self.dialect) {
            (0, Dialect::Mrc) => SampleType::I8,
            (0, Dialect::DeltaVision) => SampleType::U8,
            (1, _) => SampleType::I16,
            (2, _) => SampleType::F32,
            (6, _) => SampleType::U16,
            (7, Dialect::DeltaVision) => SampleType::I32,
            _ => return None,
        })
    }

    /// Pitch along Z, Y, X in metres where the header gives one.
    fn voxel(&self) -> [Option<f64>; 3] {
        let lengths = [2, 1, 0].map(|axis| match self.dialect {
            Dialect::DeltaVision => self.number(10 + axis) / 1e6,
            Dialect::Mrc => self.number(10 + axis) / f64::from(self.integer(7 + axis)) / 1e10,
        });
        // One Angstrom is what programs write that do not know the pixel size; no light microscope has it.
        lengths.map(|pitch| Some(pitch).filter(|pitch| pitch.is_finite() && *pitch > 1.001e-10))
    }

    /// Sizes [T, C, Z] of so many sections, and the axes they run along, slowest first.
    fn sections(&self, path: &Path, sections: usize) -> Result<([usize; 3], &'static str)> {
        if self.dialect == Dialect::Mrc {
            return Ok(([1, 1, sections], "Z"));
        }
        let count = |byte| usize::try_from(self.short(byte)).unwrap_or(0).max(1);
        let (times, waves) = (count(180), count(196));
        let axes = match self.short(182) {
            0 => "CTZ",
            1 => "TZC",
            2 => "TCZ",
            other => {
                let problem =
                    format!("image sequence {other}, known are 0 to 2; export the file as OME-TIFF");
                return Err(Error::format(path, "header, byte 182", problem));
            }
        };
        if !sections.is_multiple_of(times * waves) {
            let problem = format!(
                "{sections} sections are not {times} times x {waves} wavelengths; the acquisition was cut short: \
                 export the complete part as OME-TIFF"
            );
            return Err(Error::format(path, "header", problem));
        }
        Ok(([times, waves, sections / times / waves], axes))
    }

    fn channels(&self, count: usize) -> Vec<Channel> {
        let emission = |wave: usize| {
            let nanometres = f64::from(if wave < 5 { self.short(198 + 2 * wave) } else { 0 });
            Some(nanometres / 1e9).filter(|wavelength| *wavelength > 0.0)
        };
        let known = self.dialect == Dialect::DeltaVision;
        (0..count).map(|wave| Channel { name: None, emission: emission(wave).filter(|_| known) }).collect()
    }
}

/// True for the beginning of an MRC-2014 or DeltaVision file.
pub(super) fn is_mrc(head: &[u8]) -> bool {
    dialect(head).is_some()
}

/// Dialect and byte order (true = big-endian).
fn dialect(head: &[u8]) -> Option<(Dialect, bool)> {
    let identifier = head.get(96..98)?;
    for big_endian in [false, true] {
        let stamp = if big_endian { DELTAVISION.to_be_bytes() } else { DELTAVISION.to_le_bytes() };
        if identifier == stamp {
            return Some((Dialect::DeltaVision, big_endian));
        }
    }
    (head.get(208..211)? == MAP_STAMP).then(|| (Dialect::Mrc, head.get(212) == Some(&0x11)))
}

/// Opens an MRC or DeltaVision file.
pub(super) fn open(path: &Path) -> Result<Stack> {
    let header = Header::read(path)?;
    let mode = header.mode();
    if COMPLEX.contains(&mode) {
        let problem =
            format!("mode {mode}: complex values, a transform or transfer function and not an image");
        return Err(Error::format(path, "header", problem + "; give an image"));
    }
    let Some(sample) = header.sample_type() else {
        let problem =
            format!("mode {mode} is not read; save it as 16-bit integers (mode 6) or floats (mode 2)");
        return Err(Error::format(path, "header", problem));
    };
    let side = |word: usize| bounds::size(path, "header", i64::from(header.integer(word)));
    let [x, y, sections] = [side(0)?, side(1)?, side(2)?];
    let axes = [16, 17, 18].map(|word| header.integer(word));
    if axes != [1, 2, 3] && axes != [0, 0, 0] {
        let problem =
            format!("axes are stored in the order {axes:?}; save the volume with columns along X (1, 2, 3)");
        return Err(Error::format(path, "header, words 17 to 19", problem));
    }
    let plane = bounds::announced(path, "header", &[x as u64, y as u64], sample.bytes() as u64)?;
    let announced = bounds::announced(path, "header", &[sections as u64], plane)?;
    let available = bounds::length(path)?.saturating_sub(header.data_start());
    bounds::fits(path, "data", announced, available, bounds::expansion::NONE)?;
    let (planes, order) = header.sections(path, sections)?;
    let offsets = plane_numbers(order, planes).mapv(|number| header.data_start() + number as u64 * plane);
    let [time, channels, z] = planes;
    let name = if header.dialect == Dialect::Mrc { "MRC" } else { "DeltaVision" };
    let mut metadata = Metadata::new(name, Shape { time, channels, z, y, x }, sample);
    metadata.voxel = header.voxel();
    metadata.channels = header.channels(channels);
    let byte_order = if header.big_endian { ByteOrder::Big } else { ByteOrder::Little };
    Ok(Stack { metadata, planes: Box::new(RawPlanes::new(path, offsets, [y, x], (sample, byte_order))?) })
}
