//! ImageJ's hyperstacks: axes and pixel size from lines `key=value`, pixels per unit from the resolution tags.

use ndarray::Array3;
use tiff::tags::Tag;

use super::super::{Channel, bounds, length::per_metre, order::plane_numbers};
use super::{Layout, pages::Pages};
use crate::{Error, Result};

/// ImageJ's private tags: the lengths of the parts of the metadata, and the parts.
const METADATA_COUNTS: Tag = Tag::Unknown(50838);
const METADATA: Tag = Tag::Unknown(50839);

/// Order and scale of a file that ImageJ wrote. Files beyond 4 GiB have one directory for all images.
pub(super) fn layout(description: &str, pages: &mut Pages) -> Result<Layout> {
    let field = |name: &str| {
        description.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('=')).map(str::trim)
    };
    let count = |name: &str, absent: usize| -> Result<usize> {
        let Some(text) = field(name) else { return Ok(absent) };
        text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            Error::format(
                &pages.path,
                name,
                format!("`{text}` is not a count; save the image again with ImageJ"),
            )
        })
    };
    let [time, channels, slices] = [count("frames", 1)?, count("channels", 1)?, count("slices", 1)?];
    let images = count("images", pages.list.len())?;
    let announced =
        time.checked_mul(channels).and_then(|planes| planes.checked_mul(slices)).unwrap_or(usize::MAX);
    // Old files count images only: a sequence of planes.
    let sizes = if announced == 1 { [1, 1, images] } else { [time, channels, slices] };
    let announced = announced.max(images);
    if pages.list.len() == 1 && announced > 1 {
        unroll(pages, announced)?;
    }
    if announced > pages.list.len() {
        let problem = format!(
            "{announced} images are announced, {} are there; the file is truncated: copy or save it again",
            pages.list.len()
        );
        return Err(Error::format(&pages.path, "ImageJ description", problem));
    }
    let numbers = plane_numbers("TZC", sizes);
    let labels = labels(pages)?;
    let mut layout = Layout::new("ImageJ TIFF", numbers);
    layout.channels = channels_of(&layout.planes, &labels);
    let unit = field("unit").and_then(per_metre);
    let per_unit = [Tag::YResolution, Tag::XResolution].map(|tag| resolution(pages, tag));
    let [y, x] = per_unit.map(|pixels| Some(1.0 / pixels? / unit?));
    let spacing = field("spacing").and_then(|text| text.parse::<f64>().ok());
    let z = unit.zip(spacing).map(|(unit, spacing)| spacing.abs() / unit);
    layout.voxel = [z, y, x].map(|pitch| pitch.filter(|pitch| pitch.is_finite() && *pitch > 0.0));
    Ok(layout)
}

/// The images that follow the only directory's one without directories of their own.
fn unroll(pages: &mut Pages, count: usize) -> Result<()> {
    let place = "ImageJ description";
    let Some((page, start)) = pages.list.first().and_then(|page| Some((page.clone(), page.offset?))) else {
        return Ok(());
    };
    let announced = bounds::announced(&pages.path, place, &[count as u64], page.bytes())?;
    let available = bounds::length(&pages.path)?.saturating_sub(start);
    bounds::fits(&pages.path, place, announced, available, bounds::expansion::NONE)?;
    let image = |number: u64| {
        let mut page = page.clone();
        page.offset = Some(start + number * page.bytes());
        page
    };
    pages.list = (0..count as u64).map(image).collect();
    Ok(())
}

/// Pixels per unit.
fn resolution(pages: &mut Pages, tag: Tag) -> Option<f64> {
    let value = pages.reader.find_tag(tag).ok()??;
    let [numerator, denominator] = value.into_u32_vec().ok()?.try_into().ok()?;
    let pixels = f64::from(numerator) / f64::from(denominator);
    (pixels.is_finite() && pixels > 0.0).then_some(pixels)
}

/// Labels of the images, in their order; none if the file has none.
fn labels(pages: &mut Pages) -> Result<Vec<String>> {
    let counts =
        pages.reader.find_tag_unsigned_vec::<usize>(METADATA_COUNTS).ok().flatten().unwrap_or_default();
    let bytes = pages.bytes(METADATA)?;
    Ok(parse_labels(&bytes, &counts).unwrap_or_default())
}

/// The parts of type `labl`: a header of types and numbers of parts, then UTF-16 texts of `counts` bytes.
fn parse_labels(bytes: &[u8], counts: &[usize]) -> Option<Vec<String>> {
    let (&header, lengths) = counts.split_first()?;
    let little = match bytes.get(..4)? {
        b"IJIJ" => false,
        b"JIJI" => true,
        _ => return None,
    };
    let (mut parts, mut start, mut labels) = (lengths.iter(), header, Vec::new());
    for entry in bytes.get(4..header)?.chunks_exact(8) {
        let mut name: [u8; 4] = entry[..4].try_into().ok()?;
        let number: [u8; 4] = entry[4..].try_into().ok()?;
        if little {
            name.reverse();
        }
        let number = if little { u32::from_le_bytes(number) } else { u32::from_be_bytes(number) };
        for length in parts.by_ref().take(number as usize) {
            let text = bytes.get(start..start.checked_add(*length)?)?;
            start += length;
            if &name == b"labl" {
                let units = text.chunks_exact(2).map(|pair| {
                    let pair = [pair[0], pair[1]];
                    if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
                });
                labels.push(char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect());
            }
        }
    }
    Some(labels)
}

/// A channel is named by its label if all its planes have the same one.
fn channels_of(planes: &Array3<usize>, labels: &[String]) -> Vec<Channel> {
    let (_, channels, _) = planes.dim();
    let name = |channel| {
        let own = planes.index_axis(ndarray::Axis(1), channel);
        let first = labels.get(own.first().copied()?)?;
        (!first.is_empty() && own.iter().all(|&plane| labels.get(plane) == Some(first)))
            .then(|| first.clone())
    };
    (0..channels).map(|channel| Channel { name: name(channel), emission: None }).collect()
}
