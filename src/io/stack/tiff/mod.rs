//! TIFF and BigTIFF: the pages, and what OME-XML, ImageJ or nobody says about their order.

mod decode;
mod imagej;
mod ome;
mod pages;
mod plain;

use std::path::Path;

use ndarray::Array3;
use tiff::tags::{ByteOrder as TiffByteOrder, Tag};

use self::{decode::CompressedPlanes, pages::Pages};
use super::raw::RawPlanes;
use super::sample::ByteOrder;
use super::{Channel, Metadata, Planes, Shape, Stack};
use crate::{Error, Result};

/// First bytes: both byte orders, classic and BigTIFF.
pub(super) const MAGIC: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];

/// What a description says about the pages of a file.
struct Layout {
    /// In words.
    format: &'static str,
    /// Page of each plane, `[T, C, Z]`; the samples of a page are further channels.
    planes: Array3<usize>,
    /// Pitch along Z, Y, X, metres.
    voxel: [Option<f64>; 3],
    /// As many as there are channels, or none.
    channels: Vec<Channel>,
    numerical_aperture: Option<f64>,
    refractive_index: Option<f64>,
    remarks: Vec<String>,
}

impl Layout {
    fn new(format: &'static str, planes: Array3<usize>) -> Self {
        Self {
            format,
            planes,
            voxel: [None; 3],
            channels: Vec::new(),
            numerical_aperture: None,
            refractive_index: None,
            remarks: Vec::new(),
        }
    }
}

/// Opens a TIFF file.
pub(super) fn open(path: &Path) -> Result<Stack> {
    let mut pages = Pages::open(path)?;
    let description = pages.text(Tag::ImageDescription)?;
    let layout = if description.contains("<OME") {
        ome::layout(path, &description, &pages)?
    } else if description.starts_with("ImageJ=") {
        imagej::layout(&description, &mut pages)?
    } else {
        plain::layout(&description, &pages)
    };
    assemble(path, pages, layout)
}

/// Checks that all pages of a stack are alike, and joins them.
fn assemble(path: &Path, pages: Pages, layout: Layout) -> Result<Stack> {
    let page = |number: usize| {
        pages.list.get(number).ok_or_else(|| {
            let problem = format!("page {} is missing; the file is truncated: copy it again", number + 1);
            Error::format(path, "pages", problem)
        })
    };
    let first = page(layout.planes.first().copied().unwrap_or_default())?.clone();
    let mut offsets = Some(Vec::new());
    for &number in &layout.planes {
        let page = page(number)?;
        if !page.is_like(&first) {
            let problem = format!(
                "page {} holds {page}, others {first}; export the image alone, without overviews or labels",
                number + 1
            );
            return Err(Error::format(path, "pages", problem));
        }
        offsets = offsets.zip(page.offset).map(|(mut offsets, offset)| {
            offsets.push(offset);
            offsets
        });
    }
    let (time, channels, z) = layout.planes.dim();
    let [y, x] = first.size;
    let shape = Shape { time, channels: channels * first.samples, z, y, x };
    let mut metadata = Metadata::new(layout.format, shape, first.sample);
    if layout.channels.len() == shape.channels {
        metadata.channels = layout.channels;
    }
    metadata.voxel = layout.voxel;
    metadata.numerical_aperture = layout.numerical_aperture;
    metadata.refractive_index = layout.refractive_index;
    metadata.remarks = layout.remarks;
    let offsets = offsets.and_then(|offsets| Array3::from_shape_vec(layout.planes.dim(), offsets).ok());
    let planes: Box<dyn Planes> = match offsets {
        Some(offsets) => {
            let order = match pages.reader.byte_order() {
                TiffByteOrder::BigEndian => ByteOrder::Big,
                TiffByteOrder::LittleEndian => ByteOrder::Little,
            };
            Box::new(RawPlanes::new(path, offsets, [y, x], (first.sample, order))?)
        }
        None => Box::new(CompressedPlanes::new(pages.allow(first.bytes()), layout.planes)),
    };
    Ok(Stack { metadata, planes })
}
