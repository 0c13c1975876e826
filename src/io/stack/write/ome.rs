//! The OME-XML of a stack of single-precision values (schema 2016-06).

use std::fmt::Write as _;

use super::super::{Channel, Metadata};
use super::Title;

/// The XML, in ASCII as TIFF wants descriptions to be.
pub(super) fn xml(metadata: &Metadata, title: &Title) -> String {
    const SCHEMA: &str = "http://www.openmicroscopy.org/Schemas/OME/2016-06";
    const CREATOR: &str = concat!("antumbra ", env!("CARGO_PKG_VERSION"));
    let [time, channels, z, y, x] = metadata.shape.sizes();
    let [pitch_z, pitch_y, pitch_x] = metadata.voxel;
    let (instrument, settings) = objective(metadata);
    let sizes: String = [("X", pitch_x), ("Y", pitch_y), ("Z", pitch_z)]
        .into_iter()
        .filter_map(|(axis, pitch)| Some(length(&format!("PhysicalSize{axis}"), pitch?, 1e6, "&#181;m")))
        .collect();
    let names: String =
        metadata.channels.iter().enumerate().map(|(i, channel)| element(i, channel)).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <OME xmlns=\"{SCHEMA}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:schemaLocation=\"{SCHEMA} {SCHEMA}/ome.xsd\" Creator=\"{CREATOR}\">{instrument}\
         <Image ID=\"Image:0\" Name=\"{}\"><Description>{}</Description>{settings}\
         <Pixels ID=\"Pixels:0\" DimensionOrder=\"XYZCT\" Type=\"float\" SizeX=\"{x}\" SizeY=\"{y}\" SizeZ=\"{z}\" \
         SizeC=\"{channels}\" SizeT=\"{time}\"{sizes}>{names}\
         <TiffData IFD=\"0\" PlaneCount=\"{}\"/></Pixels></Image></OME>",
        escaped(&title.name),
        escaped(&title.words),
        time * channels * z
    )
}

/// The instrument, and the image's reference to it; empty if nothing is known.
fn objective(metadata: &Metadata) -> (String, String) {
    let attribute = |name: &str, value: Option<f64>| {
        value.map(|value| format!(" {name}=\"{value}\"")).unwrap_or_default()
    };
    let aperture = attribute("LensNA", metadata.numerical_aperture);
    let index = attribute("RefractiveIndex", metadata.refractive_index);
    if aperture.is_empty() && index.is_empty() {
        return (String::new(), String::new());
    }
    let instrument =
        format!("<Instrument ID=\"Instrument:0\"><Objective ID=\"Objective:0\"{aperture}/></Instrument>");
    let settings =
        format!("<InstrumentRef ID=\"Instrument:0\"/><ObjectiveSettings ID=\"Objective:0\"{index}/>");
    (instrument, settings)
}

fn element(index: usize, channel: &Channel) -> String {
    let name = channel.name.as_ref().map(|name| format!(" Name=\"{}\"", escaped(name))).unwrap_or_default();
    let emission = channel.emission.map(|emission| length("EmissionWavelength", emission, 1e9, "nm"));
    format!("<Channel ID=\"Channel:0:{index}\"{name} SamplesPerPixel=\"1\"{}/>", emission.unwrap_or_default())
}

/// A length as an attribute with its unit, of which there are `per_metre` in a metre.
fn length(name: &str, metres: f64, per_metre: f64, unit: &str) -> String {
    // The conversion makes up the last digits.
    const DIGITS: f64 = 1e9;
    let value = (metres * per_metre * DIGITS).round() / DIGITS;
    format!(" {name}=\"{value}\" {name}Unit=\"{unit}\"")
}

/// Text as XML in ASCII.
fn escaped(text: &str) -> String {
    let mut xml = String::new();
    for character in text.chars() {
        match character {
            ' '..='~' if !"<>&\"'".contains(character) => xml.push(character),
            // XML 1.0 has no control characters but these.
            '\t' | '\n' | '\r' | ' '.. => {
                // Writing to a String cannot fail.
                let _ = write!(xml, "&#{};", u32::from(character));
            }
            _ => xml.push('?'),
        }
    }
    xml
}
