//! OME-TIFF: axes, pixel size, channels, wavelengths and objective from the OME-XML of the first page.

use std::path::Path;

use ndarray::Array3;
use roxmltree::{Document, Node};

use super::super::{Channel, length::per_metre, order::plane_numbers};
use super::{Layout, pages::Pages};
use crate::{Error, Result};

/// A plane that no `TiffData` element has placed yet.
const ABSENT: usize = usize::MAX;

/// Order, scale and optics of the first image that the XML describes.
pub(super) fn layout(path: &Path, description: &str, pages: &Pages) -> Result<Layout> {
    let wrong = |place: &str, problem: String| Error::format(path, place, problem);
    let document = Document::parse(description)
        .map_err(|e| wrong("OME-XML", format!("{e}; the description is damaged: export the file again")))?;
    let root = document.root_element();
    if let Some(elsewhere) = child(root, "BinaryOnly") {
        let file = elsewhere.attribute("MetadataFile").unwrap_or("another file");
        return Err(wrong("OME-XML", format!("the metadata are in {file}; give that file")));
    }
    let image = child(root, "Image");
    let Some((image, pixels)) = image.and_then(|image| Some((image, child(image, "Pixels")?))) else {
        return Err(wrong("OME-XML", "no image is described; export the file again".into()));
    };
    let size = |name: &str| {
        let found =
            pixels.attribute(name).and_then(|text| text.parse::<usize>().ok()).filter(|size| *size > 0);
        found.ok_or_else(|| wrong(name, "missing or not a positive number; export the file again".into()))
    };
    let [time, channels, z] = [size("SizeT")?, size("SizeC")?, size("SizeZ")?];
    // Samples of one pixel count as channels in the XML, and share a page in the file.
    let samples = pages.list.first().map_or(1, |page| page.samples);
    if !channels.is_multiple_of(samples) {
        return Err(wrong(
            "SizeC",
            format!("{channels} channels, but pixels of {samples} samples; export it again"),
        ));
    }
    let sizes = [time, channels / samples, z];
    let announced = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if announced.is_none_or(|announced| announced > pages.list.len()) {
        let problem = format!(
            "{time} times x {channels} channels x {z} planes are announced, but the file has {} pages; it is \
             truncated, or the rest is in other files: save all as one file",
            pages.list.len()
        );
        return Err(wrong("OME-XML", problem));
    }
    let planes = planes(path, root, pixels, sizes)?;
    let mut layout = Layout::new("OME-TIFF", planes);
    layout.voxel = ["Z", "Y", "X"].map(|axis| length(pixels, &format!("PhysicalSize{axis}"), 1e6));
    layout.channels = channels_of(pixels, channels);
    (layout.numerical_aperture, layout.refractive_index) = objective(root, image);
    let images = root.children().filter(|node| node.tag_name().name() == "Image").count();
    if images > 1 {
        layout.remarks.push(format!("the file holds {images} images; the first one is read"));
    }
    Ok(layout)
}

/// Page of each plane, `[T, C, Z]`.
fn planes(path: &Path, root: Node, pixels: Node, sizes: [usize; 3]) -> Result<Array3<usize>> {
    let order = pixels.attribute("DimensionOrder").unwrap_or("XYZCT");
    // The XML names the fastest axis first.
    let axes: String = order.chars().rev().filter(|axis| "TCZ".contains(*axis)).collect();
    if axes.len() != 3 || ['T', 'C', 'Z'].iter().any(|axis| !axes.contains(*axis)) {
        let problem = format!("`{order}` does not name X, Y, Z, C and T; export the file again");
        return Err(Error::format(path, "DimensionOrder", problem));
    }
    let numbers = plane_numbers(&axes, sizes);
    let count = numbers.len();
    let mut pages = vec![ABSENT; count];
    let mut next = 0;
    let blocks: Vec<Node> = pixels.children().filter(|node| node.tag_name().name() == "TiffData").collect();
    for block in &blocks {
        if let Some(file) = other_file(root, *block) {
            let problem = format!("some planes are in the file {file}; save all as one file");
            return Err(Error::format(path, "TiffData", problem));
        }
        let number = |name: &str| block.attribute(name).and_then(|text| text.parse::<usize>().ok());
        let first = ["FirstT", "FirstC", "FirstZ"].map(|name| number(name).unwrap_or(0));
        let Some(&start) = numbers.get(first) else {
            let problem = format!("a plane at {first:?} (T, C, Z) of {sizes:?}; export the file again");
            return Err(Error::format(path, "TiffData", problem));
        };
        // Without a directory number a block goes on with the next one, without a count it is the whole rest.
        let directory = number("IFD").unwrap_or(next);
        let alone = if block.attribute("IFD").is_some() { 1 } else { count - start };
        let length = number("PlaneCount").unwrap_or(alone).min(count - start);
        for (offset, page) in pages[start..start + length].iter_mut().enumerate() {
            *page = directory.saturating_add(offset);
        }
        next = directory.saturating_add(length);
    }
    if blocks.is_empty() {
        pages = (0..count).collect();
    }
    if pages.contains(&ABSENT) {
        let problem = "planes without a page; the acquisition was cut short: export the complete part";
        return Err(Error::format(path, "TiffData", problem));
    }
    Ok(numbers.mapv(|number| pages[number]))
}

/// Name of the file that holds a block of planes, if it is not this one.
fn other_file<'a>(root: Node, block: Node<'a, '_>) -> Option<&'a str> {
    let identity = child(block, "UUID").filter(|identity| identity.text() != root.attribute("UUID"))?;
    identity.attribute("FileName")
}

/// Names and wavelengths, each channel as often as it has samples; none if their number is not `count`.
fn channels_of(pixels: Node, count: usize) -> Vec<Channel> {
    let mut channels = Vec::new();
    for node in pixels.children().filter(|node| node.tag_name().name() == "Channel") {
        let name = node.attribute("Name").filter(|name| !name.is_empty()).map(String::from);
        let channel = Channel { name, emission: length(node, "EmissionWavelength", 1e9) };
        let samples = node.attribute("SamplesPerPixel").and_then(|text| text.parse().ok()).unwrap_or(1usize);
        channels.extend(std::iter::repeat_n(channel, samples.clamp(1, count)));
    }
    channels.truncate(count);
    channels.resize(count, Channel::default());
    channels
}

/// Numerical aperture and refractive index of the objective that the image refers to.
fn objective(root: Node, image: Node) -> (Option<f64>, Option<f64>) {
    let settings = child(image, "ObjectiveSettings");
    let identity = settings.and_then(|settings| settings.attribute("ID"));
    let mut objectives = root.descendants().filter(|node| node.tag_name().name() == "Objective");
    let objective = match identity {
        Some(identity) => objectives.find(|node| node.attribute("ID") == Some(identity)),
        None => objectives.next().filter(|_| objectives.next().is_none()),
    };
    let number = |node: Option<Node>, name: &str| {
        let value: f64 = node?.attribute(name)?.parse().ok()?;
        (value.is_finite() && value > 0.0).then_some(value)
    };
    (number(objective, "LensNA"), number(settings, "RefractiveIndex"))
}

/// A length attribute in metres; of its unit, if that is not written, `unit` are a metre.
fn length(node: Node, name: &str, unit: f64) -> Option<f64> {
    let value: f64 = node.attribute(name)?.parse().ok()?;
    let unit = match node.attribute(format!("{name}Unit").as_str()) {
        Some(name) => per_metre(name)?,
        None => unit,
    };
    Some(value / unit).filter(|length| length.is_finite() && *length > 0.0)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}
