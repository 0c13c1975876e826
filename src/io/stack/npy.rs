//! NumPy arrays (`.npy`, format 1 to 3) as stacks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::order::{assumed_axes, plane_numbers, split_axes};
use super::sample::{ByteOrder, Kind, SampleType};
use super::{Metadata, Shape, Stack, bounds, raw::RawPlanes};
use crate::{Error, Result};

/// First bytes of every file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read, bytes.
const LONGEST_HEADER: u64 = 1 << 16;

/// Opens an array `[[[T,] C,] Z,] Y, X`.
pub(super) fn open(path: &Path) -> Result<Stack> {
    let (header, start) = header(path)?;
    let wrong = |problem: &str| Error::format(path, "NPY header", problem);
    let field = |name: &str| {
        let (_, rest) = header.split_once(&format!("'{name}':")).unwrap_or_default();
        rest.trim_start()
    };
    let descriptor = field("descr").strip_prefix('\'').and_then(|rest| rest.split('\'').next()).unwrap_or("");
    let Some((sample, order)) = sample_type(descriptor) else {
        let problem = format!(
            "values of type `{descriptor}`; save integers or floats: `numpy.save(f, a.astype('f4'))`"
        );
        return Err(wrong(&problem));
    };
    if !field("fortran_order").starts_with("False") {
        return Err(wrong("columns are stored first; save `numpy.ascontiguousarray(a)`"));
    }
    let sizes: Option<Vec<usize>> = field("shape").strip_prefix('(').and_then(|rest| {
        let inside = rest.split(')').next()?.split(',').map(str::trim).filter(|size| !size.is_empty());
        inside.map(|size| size.parse().ok()).collect()
    });
    let sizes = sizes.ok_or_else(|| wrong("no shape; the header is damaged: save the array again"))?;
    let axes = assumed_axes(sizes.len());
    let Some((axes, (planes, [y, x]))) = axes.and_then(|axes| Some((axes, split_axes(axes, &sizes)?))) else {
        return Err(wrong(&format!("{} axes; arrays of 2 to 5 axes (TCZYX) can be read", sizes.len())));
    };
    let wide: Vec<u64> = sizes.iter().map(|&size| size as u64).collect();
    let announced = bounds::announced(path, "shape", &wide, sample.bytes() as u64)?;
    let available = bounds::length(path)?.saturating_sub(start);
    bounds::fits(path, "shape", announced, available, bounds::expansion::NONE)?;
    let plane = (y * x * sample.bytes()) as u64;
    let offsets = plane_numbers(axes, planes).mapv(|number| start + number as u64 * plane);
    let [time, channels, z] = planes;
    let mut metadata = Metadata::new("NPY", Shape { time, channels, z, y, x }, sample);
    metadata.remarks.push(format!("the file does not name its axes; {axes} is assumed"));
    Ok(Stack { metadata, planes: Box::new(RawPlanes::new(path, offsets, [y, x], (sample, order))?) })
}

/// The header's dictionary, and where the data begin.
fn header(path: &Path) -> Result<(String, u64)> {
    let io = |source| Error::io(path, source);
    let mut file = File::open(path).map_err(io)?;
    let mut fixed = [0; 12];
    let wrong = |problem: &str| Error::format(path, "NPY header", problem);
    file.read_exact(&mut fixed[..10])
        .map_err(|_| wrong("the file ends in its header; save the array again"))?;
    let (length, start) = if fixed[6] == 1 {
        (u64::from(u16::from_le_bytes([fixed[8], fixed[9]])), 10)
    } else {
        file.read_exact(&mut fixed[10..])
            .map_err(|_| wrong("the file ends in its header; save the array again"))?;
        (u64::from(u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])), 12)
    };
    if length > LONGEST_HEADER {
        return Err(wrong("an absurdly long header; the file is damaged: save the array again"));
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(io)?;
    Ok((String::from_utf8_lossy(&text).into_owned(), start + length))
}

/// The type of `<u2`, `>f8`, `|i1`, ...
fn sample_type(descriptor: &str) -> Option<(SampleType, ByteOrder)> {
    let mut letters = descriptor.chars();
    let order = match letters.next()? {
        '>' => ByteOrder::Big,
        '<' | '|' => ByteOrder::Little,
        _ => return None,
    };
    let kind = match letters.next()? {
        'u' => Kind::Unsigned,
        'i' => Kind::Signed,
        'f' => Kind::Float,
        _ => return None,
    };
    let bytes: usize = letters.as_str().parse().ok()?;
    Some((SampleType::of(kind, bytes.checked_mul(8)?)?, order))
}
