//! Attributes and coordinates that depend on what a cube shows: the sky, or an object under a microscope.

use hdf5::File;

use super::{number_attribute, read_number, read_text, text_attribute};
use crate::{
    grid::Grid,
    io::cube::{Frame, MicroscopeFrame, SkyFrame},
    io::stack::Channel,
    units::MICROARCSECOND,
};

/// Values of the attribute `frame`.
const SKY: &str = "sky";
const MICROSCOPE: &str = "microscope";

/// A coordinate: name, values, unit and meaning.
type Coordinate = (&'static str, Vec<f64>, &'static str, &'static str);

/// Writes the frame as attributes; what is unknown is left out. The caller writes the source.
pub(super) fn write(hdf5: &File, frame: &Frame) -> hdf5::Result<()> {
    let (kind, numbers) = match frame {
        Frame::Sky(sky) => (
            SKY,
            vec![
                ("ra_deg", Some(sky.ra_deg)),
                ("dec_deg", Some(sky.dec_deg)),
                ("frequency_hz", Some(sky.frequency_hz)),
                ("mjd", Some(sky.mjd)),
            ],
        ),
        Frame::Microscope(microscope) => (
            MICROSCOPE,
            vec![
                ("emission_wavelength_m", microscope.channel.emission),
                ("numerical_aperture", microscope.numerical_aperture),
                ("refractive_index", microscope.refractive_index),
            ],
        ),
    };
    text_attribute(hdf5, "frame", kind)?;
    for (name, value) in numbers {
        value.map_or(Ok(()), |value| number_attribute(hdf5, name, value))?;
    }
    match frame {
        Frame::Microscope(MicroscopeFrame { channel: Channel { name: Some(name), .. }, .. }) => {
            text_attribute(hdf5, "channel", name)
        }
        _ => Ok(()),
    }
}

/// Reads what [`write`] wrote, and the source.
pub(super) fn read(hdf5: &File) -> hdf5::Result<Frame> {
    let number = |name: &str| read_number(hdf5, name);
    let source = read_text(hdf5, "source")?;
    match read_text(hdf5, "frame")?.as_str() {
        SKY => Ok(Frame::Sky(SkyFrame {
            source,
            ra_deg: number("ra_deg")?,
            dec_deg: number("dec_deg")?,
            frequency_hz: number("frequency_hz")?,
            mjd: number("mjd")?,
        })),
        MICROSCOPE => Ok(Frame::Microscope(MicroscopeFrame {
            source,
            channel: Channel {
                name: read_text(hdf5, "channel").ok(),
                emission: number("emission_wavelength_m").ok(),
            },
            numerical_aperture: number("numerical_aperture").ok(),
            refractive_index: number("refractive_index").ok(),
        })),
        other => Err(format!("attribute frame is `{other}`, known are {SKY} and {MICROSCOPE}").into()),
    }
}

/// Coordinates of the voxels: angular offsets on the sky, distances from the first voxel in a stack.
pub(super) fn axes(frame: &Frame, grid: &Grid) -> [Coordinate; 3] {
    let [planes, rows, columns] = grid.shape;
    let steps = |count: usize, pitch: f64| (0..count).map(|i| i as f64 * pitch).collect::<Vec<_>>();
    match frame {
        Frame::Sky(_) => {
            let angle = |offsets: Vec<f64>| offsets.into_iter().map(|o| o / MICROARCSECOND).collect();
            [
                ("z", steps(planes, 1.0), "1", "plane"),
                ("y", angle(grid.north()), "uas", "offset north of the phase centre"),
                ("x", angle(grid.east()), "uas", "offset east of the phase centre"),
            ]
        }
        Frame::Microscope(_) => {
            let [z, y, x] = grid.pitch.map(|pitch| pitch * 1e6);
            [
                ("z", steps(planes, z), "um", "distance from the first plane"),
                ("y", steps(rows, y), "um", "distance from the first row"),
                ("x", steps(columns, x), "um", "distance from the first column"),
            ]
        }
    }
}
