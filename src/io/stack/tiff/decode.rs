//! Pages in strips or tiles, compressed or not, decoded one by one.

use std::ops::Range;

use ndarray::Array3;
use tiff::decoder::DecodingResult;
use tiff::tags::Tag;

use super::super::Planes;
use super::pages::{Page, Pages, decoded};
use crate::Result;

/// Planes that must be decoded.
pub(super) struct CompressedPlanes {
    pages: Pages,
    /// Page of each plane, `[T, C, Z]`.
    planes: Array3<usize>,
}

impl CompressedPlanes {
    /// Planes `[T, C, Z]` of pages that are all alike.
    pub(super) fn new(pages: Pages, planes: Array3<usize>) -> Self {
        Self { pages, planes }
    }

    /// Decodes one sample of the pixels of a page into `values` `[Y, X]`.
    fn decode(&mut self, page: &Page, sample: usize, values: &mut [f32]) -> Result<()> {
        let Pages { path, reader, .. } = &mut self.pages;
        let place = format!("page {}", page.directory + 1);
        let separate =
            decoded(path, &place, reader.find_tag_unsigned::<u16>(Tag::PlanarConfiguration))? == Some(2);
        let (width, height) = reader.chunk_dimensions();
        let [chunk_y, chunk_x] = [height as usize, width as usize];
        let [y, x] = page.size;
        let across = x.div_ceil(chunk_x);
        let count = across * y.div_ceil(chunk_y);
        // Samples are stored pixel by pixel, or one after the other.
        let (skipped, step, index) =
            if separate { (sample * count, 1, 0) } else { (0, page.samples, sample) };
        let mut decoded_chunk = DecodingResult::U8(Vec::new());
        for chunk in 0..count {
            // Rows as long as those of the chunk, also at the edge of the image: the decoder then reads a chunk at
            // once. Row by row it fails on the last values of an LZW stream.
            let row_bytes = chunk_x * step * page.sample.bytes();
            let result = reader.read_chunk_to_buffer(&mut decoded_chunk, (skipped + chunk) as u32, row_bytes);
            decoded(path, &place, result)?;
            let (top, left) = (chunk / across * chunk_y, chunk % across * chunk_x);
            let [rows, columns] = [chunk_y.min(y - top), chunk_x.min(x - left)];
            let lines = (top..top + rows).map(|row| row * x + left..row * x + left + columns);
            for (row, line) in lines.enumerate() {
                copy(&decoded_chunk, row * chunk_x * step + index, step, &mut values[line]);
            }
        }
        Ok(())
    }
}

impl Planes for CompressedPlanes {
    fn read(&mut self, time: usize, channel: usize, z: Range<usize>, values: &mut [f32]) -> Result<()> {
        let planes = z.len().max(1);
        let pixels = values.len() / planes;
        for (z, values) in z.zip(values.chunks_exact_mut(pixels)) {
            let first = &self.pages.list[self.planes[[0, 0, 0]]];
            let (channel, sample) = (channel / first.samples, channel % first.samples);
            let page = self.pages.list[self.planes[[time, channel, z]]].clone();
            self.pages.seek(page.directory)?;
            self.decode(&page, sample, values)?;
        }
        Ok(())
    }
}

/// Every `step`th of the decoded values from `start` on, as many as `values` takes.
fn copy(decoded: &DecodingResult, start: usize, step: usize, values: &mut [f32]) {
    macro_rules! copy {
        ($decoded:expr, $convert:expr) => {{
            let found = $decoded.get(start..).unwrap_or_default().iter().step_by(step);
            values.iter_mut().zip(found).for_each(|(value, found)| *value = $convert(*found));
        }};
    }
    match decoded {
        DecodingResult::U8(found) => copy!(found, f32::from),
        DecodingResult::U16(found) => copy!(found, f32::from),
        DecodingResult::U32(found) => copy!(found, |value| value as f32),
        DecodingResult::U64(found) => copy!(found, |value| value as f32),
        DecodingResult::I8(found) => copy!(found, f32::from),
        DecodingResult::I16(found) => copy!(found, f32::from),
        DecodingResult::I32(found) => copy!(found, |value| value as f32),
        DecodingResult::I64(found) => copy!(found, |value| value as f32),
        DecodingResult::F16(found) => copy!(found, f32::from),
        DecodingResult::F32(found) => copy!(found, |value| value),
        DecodingResult::F64(found) => copy!(found, |value| value as f32),
    }
}
