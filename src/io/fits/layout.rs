//! Where every header-data unit of a FITS file lies, checked against the file's length before anything is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::Header;
use crate::{Error, Result};

/// FITS files are made of blocks of this many bytes.
const BLOCK: u64 = 2880;
/// Longest header that is read, blocks (36 000 cards).
const HEADER_BLOCKS: usize = 1000;
/// Largest number of axes that the FITS standard allows.
const MOST_AXES: i64 = 999;

/// One header-data unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hdu {
    /// Number of the unit, the primary one being 1.
    pub number: usize,
    /// Its keywords.
    pub header: Header,
    /// NAXIS1, NAXIS2, ...
    pub axes: Vec<u64>,
    /// Length of the data, bytes, without padding.
    pub bytes: u64,
}

impl Hdu {
    /// EXTNAME, or `primary`.
    pub fn name(&self) -> String {
        match self.header.text("EXTNAME") {
            Some(name) if !name.is_empty() => name.to_ascii_uppercase(),
            _ if self.number == 1 => "primary".to_string(),
            _ => format!("extension {}", self.number - 1),
        }
    }

    /// `HDU 2 (AIPS AN)`, for messages.
    pub fn place(&self) -> String {
        format!("HDU {} ({})", self.number, self.name())
    }

    /// True for the random-groups structure: NAXIS1 = 0 and GROUPS = T.
    pub fn has_groups(&self) -> bool {
        self.header.logical("GROUPS") == Some(true) && self.axes.first() == Some(&0)
    }
}

/// Reads the structure of a FITS file.
///
/// # Errors
/// A file that cannot be read, is empty, is not FITS, or ends before the data that its headers announce.
pub fn layout(path: &Path) -> Result<Vec<Hdu>> {
    let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
    let length = file.metadata().map_err(|source| Error::io(path, source))?.len();
    check_beginning(path, &mut file)?;
    let mut units = Vec::new();
    let mut start = 0;
    loop {
        let number = units.len() + 1;
        let (header, data_start) = read_header(path, &mut file, start, number)?;
        let axes = axes(path, &header, number)?;
        let bytes = data_bytes(path, &header, &axes, number)?;
        let unit = Hdu { number, header, axes, bytes };
        let end = data_start.saturating_add(bytes);
        if end > length {
            let problem = format!(
                "the header announces {bytes} bytes of data from byte {data_start} on, but the file ends at byte \
                 {length}; it is truncated: copy or download it again"
            );
            return Err(Error::format(path, unit.place(), problem));
        }
        units.push(unit);
        start = end.next_multiple_of(BLOCK);
        if !extension_follows(path, &mut file, start)? {
            return Ok(units);
        }
    }
}

fn check_beginning(path: &Path, file: &mut File) -> Result<()> {
    let mut bytes = Vec::new();
    file.take(30).read_to_end(&mut bytes).map_err(|source| Error::io(path, source))?;
    let starts = |pattern: &[u8]| bytes.starts_with(pattern);
    let problem = if starts(b"SIMPLE  =") {
        return Ok(());
    } else if bytes.is_empty() {
        "the file is empty; copy or download it again"
    } else if starts(b"ISPMEL") || starts(b"PMIS") {
        "the bytes are swapped: the file was written with the wrong byte order; convert it back first"
    } else if starts(&[0x1f, 0x8b]) {
        "the file is compressed; run gunzip on it first"
    } else {
        "this is not a FITS file (it does not begin with `SIMPLE  =`); give a UVFITS or FITS file"
    };
    Err(Error::format(path, "byte 0", problem))
}

/// Reads blocks from byte `start` to the END card; returns the keywords and where the data begin.
fn read_header(path: &Path, file: &mut File, start: u64, number: usize) -> Result<(Header, u64)> {
    let place = || format!("HDU {number}, header from byte {start}");
    file.seek(SeekFrom::Start(start)).map_err(|source| Error::io(path, source))?;
    let mut header = Header::default();
    let mut block = [0; BLOCK as usize];
    for index in 0..HEADER_BLOCKS {
        if let Err(source) = file.read_exact(&mut block) {
            if source.kind() != std::io::ErrorKind::UnexpectedEof {
                return Err(Error::io(path, source));
            }
            let problem =
                "the file ends inside the header (no END card); it is truncated: copy or download it again";
            return Err(Error::format(path, place(), problem));
        }
        if header.append(&block) {
            return Ok((header, start + (index as u64 + 1) * BLOCK));
        }
    }
    let problem = format!("no END card within {HEADER_BLOCKS} blocks; the header is damaged");
    Err(Error::format(path, place(), problem))
}

fn axes(path: &Path, header: &Header, number: usize) -> Result<Vec<u64>> {
    let wrong = |key: &str, what: &str| {
        let found = header.text(key).unwrap_or("missing");
        Error::format(
            path,
            format!("HDU {number}, {key}"),
            format!("{what}, found {found}; the header is damaged"),
        )
    };
    let count = header.integer("NAXIS").filter(|count| (0..=MOST_AXES).contains(count));
    let count = count.ok_or_else(|| wrong("NAXIS", "the number of axes must be 0 to 999"))?;
    let axis = |index: i64| {
        let key = format!("NAXIS{index}");
        let length = header.integer(&key).and_then(|length| u64::try_from(length).ok());
        length.ok_or_else(|| wrong(&key, "the length of an axis must be a whole number"))
    };
    (1..=count).map(axis).collect()
}

/// |BITPIX|/8 x GCOUNT x (PCOUNT + NAXIS1 x NAXIS2 ...), without NAXIS1 for random groups.
fn data_bytes(path: &Path, header: &Header, axes: &[u64], number: usize) -> Result<u64> {
    let place = |key: &str| format!("HDU {number}, {key}");
    let bitpix = header.integer("BITPIX").unwrap_or(0);
    if ![8, 16, 32, 64, -32, -64].contains(&bitpix) {
        let problem = "must be 8, 16, 32, 64, -32 or -64; the header is damaged";
        return Err(Error::format(path, place("BITPIX"), problem));
    }
    let count = |key: &str, default: i64| {
        u64::try_from(header.integer(key).unwrap_or(default))
            .map_err(|_| Error::format(path, place(key), "must not be negative; the header is damaged"))
    };
    let (parameters, groups) = (count("PCOUNT", 0)?, count("GCOUNT", 1)?);
    let used = match axes {
        [] => return Ok(0),
        [0, rest @ ..] if header.logical("GROUPS") == Some(true) => rest,
        all => all,
    };
    used.iter()
        .try_fold(1_u64, |product, length| product.checked_mul(*length))
        .and_then(|elements| elements.checked_add(parameters)?.checked_mul(groups))
        .and_then(|elements| elements.checked_mul(bitpix.unsigned_abs() / 8))
        .filter(|bytes| *bytes < i64::MAX as u64)
        .ok_or_else(|| {
            Error::format(path, place("NAXISn, GCOUNT"), "the announced size overflows; damaged header")
        })
}

fn extension_follows(path: &Path, file: &mut File, start: u64) -> Result<bool> {
    file.seek(SeekFrom::Start(start)).map_err(|source| Error::io(path, source))?;
    let mut beginning = Vec::new();
    file.take(8).read_to_end(&mut beginning).map_err(|source| Error::io(path, source))?;
    Ok(beginning == b"XTENSION")
}
