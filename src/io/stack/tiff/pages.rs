//! The pages of a TIFF file, each checked against the length of the file.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tiff::decoder::{Decoder, Limits};
use tiff::tags::{Tag, Type, ValueBuffer};
use tiff::{TiffError, TiffResult};

use super::super::{
    bounds::{self, expansion},
    sample::{Kind, SampleType},
};
use crate::{Error, Result};

/// Most memory that one tag may take, bytes: OME-XML of many planes is long.
const LONGEST_TAG: usize = 1 << 28;
/// Longest side of a tile.
const LONGEST_TILE: u32 = 1 << 16;

/// One image of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    /// Number of its directory.
    pub directory: usize,
    /// Y, X.
    pub size: [usize; 2],
    /// Samples of one pixel.
    pub samples: usize,
    /// How a sample is stored.
    pub sample: SampleType,
    /// First byte, if the page lies uncompressed and in one piece.
    pub offset: Option<u64>,
}

impl Page {
    /// True if both have the same size and type.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.size == other.size && self.samples == other.samples && self.sample == other.sample
    }

    /// Bytes of the page, uncompressed. Opening has checked that the product does not overflow.
    pub(super) fn bytes(&self) -> u64 {
        (self.size[0] * self.size[1] * self.samples * self.sample.bytes()) as u64
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [y, x] = self.size;
        write!(f, "{x} x {y} pixels of {} {}", self.samples, self.sample)
    }
}

/// An open TIFF file and its pages.
pub(super) struct Pages {
    pub path: PathBuf,
    pub reader: Decoder<BufReader<File>>,
    pub list: Vec<Page>,
}

impl Pages {
    /// Reads every directory, no pixels.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        let length = bounds::length(path)?;
        let mut limits = Limits::default();
        limits.ifd_value_size = LONGEST_TAG;
        limits.decoding_buffer_size = LONGEST_TAG;
        let reader = Decoder::new(BufReader::new(file)).map_err(|e| damaged(path, "page 1", &e))?;
        let mut pages = Self { path: path.into(), reader: reader.with_limits(limits), list: Vec::new() };
        for directory in 0.. {
            if directory > 0 {
                if !pages.reader.more_images() {
                    break;
                }
                let next = pages.reader.next_image();
                next.map_err(|e| damaged(path, &format!("page {}", directory + 1), &e))?;
            }
            if directory == 0 || !pages.is_overview()? {
                let page = pages.page(directory, length)?;
                pages.list.push(page);
            }
        }
        pages.seek(0)?;
        Ok(pages)
    }

    /// Lets pages of so many bytes be decoded.
    pub(super) fn allow(mut self, bytes: u64) -> Self {
        let mut limits = Limits::unlimited();
        limits.decoding_buffer_size = usize::try_from(bytes).unwrap_or(usize::MAX).max(LONGEST_TAG);
        self.reader = self.reader.with_limits(limits);
        self
    }

    /// Goes to the directory with this number.
    pub(super) fn seek(&mut self, directory: usize) -> Result<()> {
        let place = format!("page {}", directory + 1);
        self.reader.seek_to_image(directory).map_err(|e| damaged(&self.path, &place, &e))
    }

    /// Text of a tag of the first page; empty if it is absent.
    pub(super) fn text(&mut self, tag: Tag) -> Result<String> {
        let mut bytes = self.bytes(tag)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        // What is not UTF-8 is Latin-1, where a byte is a character.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| e.as_bytes().iter().map(|&byte| char::from(byte)).collect()))
    }

    /// Bytes of a tag of the current page; empty if it is absent.
    pub(super) fn bytes(&mut self, tag: Tag) -> Result<Vec<u8>> {
        let mut buffer = ValueBuffer::empty(Type::ASCII);
        let found = self.reader.image_ifd().find_tag_buf(tag, &mut buffer);
        let found = found.map_err(|e| damaged(&self.path, &format!("{tag:?}"), &e))?;
        Ok(found.map(|_| buffer.as_bytes().to_vec()).unwrap_or_default())
    }

    /// True for a thumbnail or a coarser level of the image before it.
    fn is_overview(&mut self) -> Result<bool> {
        let kind: u32 = self.number(Tag::NewSubfileType, 0)?;
        Ok(kind & 1 == 1)
    }

    fn number<T: TryFrom<u64>>(&mut self, tag: Tag, default: T) -> Result<T> {
        let found = self.reader.find_tag_unsigned(tag);
        Ok(found.map_err(|e| damaged(&self.path, &format!("{tag:?}"), &e))?.unwrap_or(default))
    }

    fn numbers(&mut self, tag: Tag) -> Result<Vec<u64>> {
        let found = self.reader.find_tag_unsigned_vec(tag);
        Ok(found.map_err(|e| damaged(&self.path, &format!("{tag:?}"), &e))?.unwrap_or_default())
    }

    /// Refuses what decoding would not give back as it is stored: colour maps, inverted grey values, transparency.
    fn check_interpretation(&mut self, place: &str, samples: u16) -> Result<()> {
        const BLACK_IS_ZERO: u16 = 1;
        const RGB: u16 = 2;
        match self.number(Tag::PhotometricInterpretation, BLACK_IS_ZERO)? {
            BLACK_IS_ZERO => Ok(()),
            RGB if samples == 3 => Ok(()),
            found => {
                let problem = format!(
                    "photometric interpretation {found} with {samples} samples is not read; save grey values \
                     (BlackIsZero)"
                );
                Err(Error::format(&self.path, place, problem))
            }
        }
    }

    /// The current page, its data being where they should.
    fn page(&mut self, directory: usize, length: u64) -> Result<Page> {
        let place = format!("page {}", directory + 1);
        let (x, y) = self.reader.dimensions().map_err(|e| damaged(&self.path, &place, &e))?;
        let samples: u16 = self.number(Tag::SamplesPerPixel, 1)?;
        let bits = self.numbers(Tag::BitsPerSample)?.first().copied().unwrap_or(1);
        let format = self.numbers(Tag::SampleFormat)?.first().copied().unwrap_or(1);
        let Some(sample) = sample_type(format, bits) else {
            let problem =
                format!("samples of {bits} bits (format {format}); save 8, 16 or 32 bit integers or floats");
            return Err(Error::format(&self.path, place, problem));
        };
        let compression: u16 = self.number(Tag::Compression, 1)?;
        let Some(expansion) = expansion_of(compression) else {
            let problem = format!(
                "compression {compression} is not read; save uncompressed, or with LZW, deflate or Zstandard"
            );
            return Err(Error::format(&self.path, place, problem));
        };
        let (tile_x, tile_y) = (self.number(Tag::TileWidth, 0)?, self.number(Tag::TileLength, 0)?);
        if tile_x.max(tile_y) > LONGEST_TILE {
            let problem =
                format!("tiles of {tile_x} x {tile_y} pixels; the header is damaged: save it again");
            return Err(Error::format(&self.path, place, problem));
        }
        let tiled = tile_x > 0;
        let (starts, counts) = if tiled {
            (self.numbers(Tag::TileOffsets)?, self.numbers(Tag::TileByteCounts)?)
        } else {
            (self.numbers(Tag::StripOffsets)?, self.numbers(Tag::StripByteCounts)?)
        };
        let sizes = [u64::from(y), u64::from(x), u64::from(samples)];
        let announced = bounds::announced(&self.path, &place, &sizes, sample.bytes() as u64)?;
        let size = [y as usize, x as usize];
        let mut page = Page { directory, size, samples: samples.into(), sample, offset: None };
        if compression == 1 && !tiled && samples == 1 && in_one_piece(&starts, &counts) {
            // Byte counts may be wrong in files beyond 4 GiB; only where the data begin matters.
            let start = starts.first().copied().unwrap_or(length);
            bounds::fits(&self.path, &place, announced, length.saturating_sub(start), expansion::NONE)?;
            page.offset = Some(start);
        } else {
            self.check_interpretation(&place, samples)?;
            let end = starts.iter().zip(&counts).map(|(start, count)| start.saturating_add(*count)).max();
            bounds::fits(&self.path, &place, end.unwrap_or(0), length, expansion::NONE)?;
            let stored = counts.iter().fold(0u64, |sum, &count| sum.saturating_add(count)).min(length);
            bounds::fits(&self.path, &place, announced, stored, expansion)?;
        }
        Ok(page)
    }
}

/// True if strips follow each other without gaps.
fn in_one_piece(starts: &[u64], counts: &[u64]) -> bool {
    let ends = starts.iter().zip(counts).map(|(start, count)| start.saturating_add(*count));
    ends.zip(starts.iter().skip(1)).all(|(end, start)| end == *start)
}

fn sample_type(format: u64, bits: u64) -> Option<SampleType> {
    let kind = match format {
        1 => Kind::Unsigned,
        2 => Kind::Signed,
        3 => Kind::Float,
        _ => return None,
    };
    SampleType::of(kind, usize::try_from(bits).ok()?)
}

/// Largest expansion of a compression by its TIFF number; `None` for those that are not read.
fn expansion_of(compression: u16) -> Option<u64> {
    Some(match compression {
        1 => expansion::NONE,
        5 => expansion::LZW,
        8 | 32946 => expansion::DEFLATE,
        32773 => expansion::PACKBITS,
        50000 => expansion::ZSTD,
        _ => return None,
    })
}

/// What the decoder says about a file, with a remedy.
pub(super) fn damaged(path: &Path, place: &str, error: &TiffError) -> Error {
    let problem = match error {
        TiffError::UnsupportedError(_) => {
            format!("{error}; save it uncompressed, or with LZW, deflate or Zstandard, as grey values")
        }
        _ => format!("{error}; the file is damaged or truncated: copy or export it again"),
    };
    Error::format(path, place, problem)
}

/// Shorthand for results of the decoder.
pub(super) fn decoded<T>(path: &Path, place: &str, result: TiffResult<T>) -> Result<T> {
    result.map_err(|e| damaged(path, place, &e))
}
