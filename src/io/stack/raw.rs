//! Planes that lie uncompressed in a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array3;

use super::sample::{ByteOrder, SampleType};
use super::{Planes, bounds};
use crate::{Error, Result};

/// Planes of equal size at known places.
#[derive(Debug)]
pub(super) struct RawPlanes {
    path: PathBuf,
    file: File,
    /// First byte of each plane, `[T, C, Z]`.
    offsets: Array3<u64>,
    sample: SampleType,
    order: ByteOrder,
    /// Bytes of one plane.
    plane: usize,
}

impl RawPlanes {
    /// Planes of `size` values that begin at `offsets` `[T, C, Z]`.
    ///
    /// # Errors
    /// A plane beyond the end of the file.
    pub(super) fn new(
        path: &Path,
        offsets: Array3<u64>,
        size: [usize; 2],
        (sample, order): (SampleType, ByteOrder),
    ) -> Result<Self> {
        let plane = bounds::announced(path, "planes", &size.map(|n| n as u64), sample.bytes() as u64)?;
        let length = bounds::length(path)?;
        let last = offsets.iter().copied().max().unwrap_or(0);
        let end = last.saturating_add(plane);
        bounds::fits(path, "planes", end, length, bounds::expansion::NONE)?;
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        Ok(Self { path: path.into(), file, offsets, sample, order, plane: plane as usize })
    }
}

impl Planes for RawPlanes {
    fn read(&mut self, time: usize, channel: usize, z: Range<usize>, values: &mut [f32]) -> Result<()> {
        let pixels = self.plane / self.sample.bytes();
        let mut buffer = vec![0; self.plane];
        for (z, values) in z.zip(values.chunks_exact_mut(pixels)) {
            let offset = self.offsets[[time, channel, z]];
            self.file
                .seek(SeekFrom::Start(offset))
                .and_then(|_| self.file.read_exact(&mut buffer))
                .map_err(|source| Error::io(&self.path, source))?;
            self.sample.convert(&buffer, self.order, values);
        }
        Ok(())
    }
}
