//! A single volume `[Z, Y, X]` as HDF5, NPY or OME-TIFF.

use std::path::Path;

use hdf5::{File, types::VarLenUnicode};
use ndarray::{ArrayView3, Axis};

use super::{
    atomic,
    stack::{self, Container, Metadata, SampleType, Shape, Title},
};
use crate::{Error, Result};

/// Writes a volume of f32 by the file's extension: `.h5` (dataset `/volume` with `element_size_um`), `.npy`, or `.tif`
/// (OME-TIFF).
///
/// # Errors
/// Another extension, or a file that cannot be written.
pub fn write(values: ArrayView3<f32>, pitch: [f64; 3], unit: &str, file: &Path) -> Result<()> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("h5" | "hdf5") => atomic::replace(file, |temporary| {
            hdf5(values, pitch, unit, temporary)
                .map_err(|e| Error::format(file, "writing", format!("{e}; check space and permissions")))
        }),
        Some("npy") => atomic::replace_bytes(file, &npy(values)),
        Some("tif" | "tiff") => tiff(values, pitch, unit, file),
        _ => Err(Error::format(file, "name", "must end in .h5, .npy or .ome.tif, which say the format")),
    }
}

fn hdf5(values: ArrayView3<f32>, pitch: [f64; 3], unit: &str, file: &Path) -> hdf5::Result<()> {
    let hdf5 = File::with_options().with_fcpl(|properties| properties.obj_track_times(false)).create(file)?;
    let builder = hdf5.new_dataset_builder().with_dcpl(|properties| properties.obj_track_times(false));
    let dataset = builder.with_data(values).create("volume")?;
    let size = pitch.map(|length| length * 1e6);
    dataset.new_attr_builder().with_data(&size).create("element_size_um")?;
    let unit: VarLenUnicode = unit.parse().map_err(|_| "unit with a NUL character")?;
    dataset.new_attr::<VarLenUnicode>().create("units")?.write_scalar(&unit)?;
    hdf5.flush()
}

fn tiff(values: ArrayView3<f32>, pitch: [f64; 3], unit: &str, file: &Path) -> Result<()> {
    let (z, y, x) = values.dim();
    let shape = Shape { time: 1, channels: 1, z, y, x };
    let mut metadata = Metadata::new("OME-TIFF", shape, SampleType::F32);
    metadata.voxel = pitch.map(Some);
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let title = Title { name: name.trim_end_matches(".ome").into(), words: unit.into() };
    stack::write(&metadata, Container::Ome, &title, |_, _, z| values.index_axis_move(Axis(0), z), file)
}

/// NPY version 1.0: magic, header padded to 64 bytes, values in C order.
fn npy(values: ArrayView3<f32>) -> Vec<u8> {
    let (z, y, x) = values.dim();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({z}, {y}, {x}), }}");
    let length = (10 + header.len() + 1).next_multiple_of(64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((length - 10) as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.resize(length - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
