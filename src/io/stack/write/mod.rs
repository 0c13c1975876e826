//! Stacks of single-precision values as OME-TIFF or as ImageJ's hyperstack.

mod imagej;
mod ome;

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use ndarray::ArrayView2;
use tiff::TiffResult;
use tiff::encoder::{Rational, TiffEncoder, TiffKind, colortype::Gray32Float};
use tiff::tags::{ResolutionUnit, Tag};

use super::Metadata;
use crate::io::atomic;
use crate::{Error, Result};

/// Bytes beyond which offsets do not fit into 32 bits, with room for directories.
const CLASSIC_LIMIT: u64 = (1 << 32) - (1 << 25);

/// How a stack is written as TIFF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// OME-TIFF, planes in the order T, C, Z (slowest first); BigTIFF beyond 4 GiB.
    Ome,
    /// ImageJ's hyperstack, planes in the order T, Z, C; at most 4 GiB.
    ImageJ,
}

/// What a stack is called.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Title {
    /// Name of the image.
    pub name: String,
    /// Description in a sentence.
    pub words: String,
}

/// Writes a stack whose plane (time, channel, z) is `plane(t, c, z)`, `[Y, X]`.
///
/// ImageJ's format has no place for the title, wavelengths and the objective.
///
/// # Errors
/// Sizes or planes that do not fit together, a hyperstack beyond 4 GiB, or a file that cannot be written.
pub fn write<'a>(
    metadata: &Metadata,
    container: Container,
    title: &Title,
    plane: impl Fn(usize, usize, usize) -> ArrayView2<'a, f32>,
    file: &Path,
) -> Result<()> {
    write_within(CLASSIC_LIMIT, metadata, container, title, plane, file)
}

/// [`write`] with BigTIFF beyond so many bytes.
fn write_within<'a>(
    limit: u64,
    metadata: &Metadata,
    container: Container,
    title: &Title,
    plane: impl Fn(usize, usize, usize) -> ArrayView2<'a, f32>,
    file: &Path,
) -> Result<()> {
    let shape = metadata.shape;
    let sizes = shape.sizes().map(|size| size as u64);
    let bytes = sizes.iter().try_fold(4u64, |product, &size| product.checked_mul(size));
    let big = bytes.is_none_or(|bytes| bytes > limit);
    if big && container == Container::ImageJ {
        let problem =
            "more than 4 GiB, which ImageJ's hyperstack cannot hold; write OME-TIFF (Fiji opens it too)";
        return Err(Error::format(file, "ImageJ hyperstack", problem));
    }
    let mut tags = Vec::new();
    let text = match container {
        Container::Ome => ome::xml(metadata, title),
        Container::ImageJ => {
            tags = imagej::label_tags(metadata);
            imagej::description(metadata)
        }
    };
    let pages = Pages { metadata, container, text: &text, tags: &tags, plane: &plane };
    atomic::replace(file, |temporary| {
        let writer = BufWriter::new(File::create(temporary).map_err(|source| Error::io(file, source))?);
        let written = if big {
            TiffEncoder::new_big(writer).and_then(|encoder| pages.encode(encoder))
        } else {
            TiffEncoder::new(writer).and_then(|encoder| pages.encode(encoder))
        };
        written.map_err(|e| Error::format(file, "writing", format!("{e}; check space and permissions")))
    })
}

/// A tag of unsigned integers.
enum Numbers {
    Bytes(Vec<u8>),
    Longs(Vec<u32>),
}

/// All that the pages need.
struct Pages<'m, P> {
    metadata: &'m Metadata,
    container: Container,
    /// Description of the first page.
    text: &'m str,
    /// Further tags of the first page.
    tags: &'m [(Tag, Numbers)],
    plane: P,
}

impl<'a, P: Fn(usize, usize, usize) -> ArrayView2<'a, f32>> Pages<'_, P> {
    fn encode<W: Write + Seek, K: TiffKind>(&self, mut encoder: TiffEncoder<W, K>) -> TiffResult<()> {
        for (number, (time, channel, z)) in self.order().enumerate() {
            let plane = (self.plane)(time, channel, z);
            let (rows, columns) = plane.dim();
            let mut image =
                encoder.new_image::<Gray32Float>(u32::try_from(columns)?, u32::try_from(rows)?)?;
            image.rows_per_strip(u32::try_from(rows)?)?;
            let resolutions = [Tag::XResolution, Tag::YResolution].into_iter().zip([2, 1]);
            for (tag, axis) in resolutions {
                image.encoder().write_tag(tag, per_micrometre(self.metadata.voxel[axis]))?;
            }
            // Pixels per unit of the description.
            image.encoder().write_tag(Tag::ResolutionUnit, ResolutionUnit::None.to_u16())?;
            if number == 0 {
                image.encoder().write_tag(Tag::ImageDescription, self.text)?;
                for (tag, numbers) in self.tags {
                    match numbers {
                        Numbers::Bytes(bytes) => image.encoder().write_tag(*tag, &bytes[..])?,
                        Numbers::Longs(longs) => image.encoder().write_tag(*tag, &longs[..])?,
                    }
                }
            }
            let values: Vec<f32> = plane.iter().copied().collect();
            image.write_data(&values)?;
        }
        Ok(())
    }

    /// Planes (time, channel, z) in the order of the container.
    fn order(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let shape = self.metadata.shape;
        let inner = shape.channels * shape.z;
        (0..shape.time * inner).map(move |number| {
            let (time, rest) = (number / inner, number % inner);
            match self.container {
                Container::Ome => (time, rest / shape.z, rest % shape.z),
                Container::ImageJ => (time, rest % shape.channels, rest / shape.channels),
            }
        })
    }
}

/// Pixels per micrometre as a fraction, exact for pitches of whole femtometres; 1 where the pitch is unknown.
fn per_micrometre(pitch: Option<f64>) -> Rational {
    const MOST: f64 = u32::MAX as f64;
    let Some(pitch) = pitch else { return Rational { n: 1, d: 1 } };
    let micrometres = pitch * 1e6;
    let scale = [1e9, 1e6, 1e3, 1.0].into_iter().find(|scale| micrometres * scale < MOST).unwrap_or(1.0);
    Rational { n: scale as u32, d: ((micrometres * scale).round() as u32).max(1) }
}

#[cfg(test)]
mod tests {
    use ndarray::Array5;

    use super::super::{Channel, SampleType, Shape, Stack};
    use super::*;

    fn example() -> (Metadata, Array5<f32>) {
        let shape = Shape { time: 2, channels: 3, z: 4, y: 5, x: 6 };
        let mut metadata = Metadata::new("OME-TIFF", shape, SampleType::F32);
        metadata.voxel = [Some(0.25e-6), Some(31.3e-9), Some(31.3e-9)];
        let names = ["MT-488", "a < b & \"c\"", "\u{3b2}-tubulin"];
        for (channel, name) in metadata.channels.iter_mut().zip(names) {
            channel.name = Some(name.into());
        }
        metadata.channels[0].emission = Some(525e-9);
        metadata.numerical_aperture = Some(1.4);
        metadata.refractive_index = Some(1.515);
        let values = Array5::from_shape_fn(shape.sizes(), |(t, c, z, y, x)| {
            -1.5 + (t * 10_000 + c * 1000 + z * 100 + y * 10 + x) as f32
        });
        (metadata, values)
    }

    fn round_trip(limit: u64, container: Container) -> (Metadata, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stack.tif");
        let (metadata, values) = example();
        let plane = |t, c, z| values.slice(ndarray::s![t, c, z, .., ..]);
        write_within(limit, &metadata, container, &Title::default(), plane, &file).unwrap();
        let mut stack = Stack::open(&file).unwrap();
        for t in 0..2 {
            assert_eq!(stack.read(t).unwrap(), values.index_axis(ndarray::Axis(0), t));
        }
        (stack.metadata, std::fs::read(&file).unwrap())
    }

    #[test]
    fn ome_tiff_reads_back_as_it_was() {
        let (metadata, bytes) = round_trip(CLASSIC_LIMIT, Container::Ome);
        assert_eq!(metadata, example().0);
        assert_eq!(bytes[2], 42);
    }

    #[test]
    fn large_files_are_bigtiff() {
        let (metadata, bytes) = round_trip(100, Container::Ome);
        assert_eq!(metadata, example().0);
        assert_eq!(bytes[2], 43);
    }

    #[test]
    fn hyperstacks_read_back_with_names_and_scale() {
        let (found, _) = round_trip(CLASSIC_LIMIT, Container::ImageJ);
        let (written, _) = example();
        assert_eq!((found.format.as_str(), found.shape), ("ImageJ TIFF", written.shape));
        for (found, written) in found.voxel.iter().zip(written.voxel) {
            assert!((found.unwrap() / written.unwrap() - 1.0).abs() < 1e-12);
        }
        let names = |channels: &[Channel]| channels.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found.channels), names(&written.channels));
    }

    #[test]
    fn a_hyperstack_beyond_4_gib_is_refused_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stack.tif");
        let (metadata, values) = example();
        let plane = |t, c, z| values.slice(ndarray::s![t, c, z, .., ..]);
        let refused =
            write_within(100, &metadata, Container::ImageJ, &Title::default(), plane, &file).unwrap_err();
        assert!(refused.to_string().contains("OME-TIFF"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_unknown_pitch_stays_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let (mut metadata, values) = example();
        metadata.voxel = [None; 3];
        for container in [Container::Ome, Container::ImageJ] {
            let file = folder.path().join("stack.tif");
            let plane = |t, c, z| values.slice(ndarray::s![t, c, z, .., ..]);
            write(&metadata, container, &Title::default(), plane, &file).unwrap();
            assert_eq!(Stack::open(&file).unwrap().metadata.voxel, [None; 3]);
        }
    }
}
