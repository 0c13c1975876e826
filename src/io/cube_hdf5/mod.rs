//! Posterior cubes as HDF5 with named dimensions, which h5py and xarray open as they are.

mod frame;

use std::path::Path;

use hdf5::types::{FixedAscii, VarLenArray, VarLenUnicode};
use hdf5::{Dataset, DatasetBuilder, Datatype, File, H5Type, Location, ObjectReference1};
use hdf5_sys::h5t::{H5T_str_t, H5Tset_strpad};
use ndarray::{Array4, ArrayView};

use super::atomic;
use crate::io::cube::{Cube, Provenance};
use crate::{Error, Result, grid::Grid};

/// Largest cube that is read back, samples x voxels.
const LARGEST_CUBE: usize = 1 << 31;

/// Writes `/samples [S, Z, Y, X]`, `/chain [S]`, `/mean`, `/std`, `/q05`, `/q95` `[Z, Y, X]`, coordinates and attributes.
///
/// # Errors
/// A cube without samples, or a file that cannot be written.
pub fn write(cube: &Cube, file: &Path) -> Result<()> {
    let summary = cube.summary()?;
    atomic::replace(file, |temporary| {
        let written = (|| -> hdf5::Result<()> {
            let hdf5 = File::with_options()
                .with_fcpl(|properties| properties.obj_track_times(false))
                .create(temporary)?;
            attributes(&hdf5, cube)?;
            coordinates(&hdf5, cube)?;
            put(&hdf5, "chain", ArrayView::from(&cube.chains), &["sample"], "1")?;
            put(&hdf5, "samples", cube.samples.view(), &["sample", "z", "y", "x"], &cube.unit)?;
            let images = [
                ("mean", &summary.mean),
                ("std", &summary.std),
                ("q05", &summary.q05),
                ("q95", &summary.q95),
            ];
            for (name, image) in images {
                put(&hdf5, name, image.view(), &["z", "y", "x"], &cube.unit)?;
            }
            hdf5.flush()
        })();
        written
            .map_err(|e| Error::format(file, "writing the cube", format!("{e}; check space and permissions")))
    })
}

/// Reads back a cube that [`write`] wrote.
///
/// # Errors
/// Not such a file, or one whose announced size is absurd.
pub fn read(file: &Path) -> Result<Cube> {
    let read = (|| -> hdf5::Result<Cube> {
        let hdf5 = File::open(file)?;
        let samples = hdf5.dataset("samples")?;
        let shape = samples.shape();
        let size = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        if shape.len() != 4 || size.is_none_or(|size| size > LARGEST_CUBE) {
            return Err(format!("/samples has shape {shape:?}, expected [S, Z, Y, X]").into());
        }
        let samples: Array4<f32> = samples.read()?;
        let chains = hdf5.dataset("chain")?;
        if chains.shape() != [shape[0]] {
            return Err(format!("/chain has shape {:?}, expected [{}]", chains.shape(), shape[0]).into());
        }
        let chains = chains.read_raw()?;
        let number = |name: &str| read_number(&hdf5, name);
        let text = |name: &str| read_text(&hdf5, name);
        let pitch = [number("pitch_z")?, number("pitch_y")?, number("pitch_x")?];
        Ok(Cube {
            grid: Grid { shape: [shape[1], shape[2], shape[3]], pitch },
            samples,
            chains,
            unit: text("units")?,
            frame: frame::read(&hdf5)?,
            provenance: Provenance {
                seed: hdf5.attr("seed")?.read_scalar()?,
                prior: text("prior")?,
                config_sha256: text("config_sha256")?,
            },
        })
    })();
    read.map_err(|e| {
        Error::format(file, "posterior cube", format!("{e}; expected a file written by `reconstruct`"))
    })
}

fn attributes(hdf5: &File, cube: &Cube) -> hdf5::Result<()> {
    frame::write(hdf5, &cube.frame)?;
    let made = &cube.provenance;
    for (name, pitch) in ["pitch_z", "pitch_y", "pitch_x"].into_iter().zip(cube.grid.pitch) {
        number_attribute(hdf5, name, pitch)?;
    }
    hdf5.new_attr::<u64>().create("seed")?.write_scalar(&made.seed)?;
    for (name, value) in [
        ("units", cube.unit.as_str()),
        ("source", cube.frame.source()),
        ("prior", &made.prior),
        ("config_sha256", &made.config_sha256),
        ("creator", concat!("antumbra ", env!("CARGO_PKG_VERSION"))),
    ] {
        text_attribute(hdf5, name, value)?;
    }
    Ok(())
}

/// One dimension scale per axis: sample index, and the places that the frame gives to voxels.
fn coordinates(hdf5: &File, cube: &Cube) -> hdf5::Result<()> {
    let samples = (0..cube.samples.shape()[0]).map(|i| i as f64).collect();
    let sample = ("sample", samples, "1", "posterior sample");
    for (name, values, unit, meaning) in [sample].into_iter().chain(frame::axes(&cube.frame, &cube.grid)) {
        let scale = timeless(hdf5).with_data(ArrayView::from(&values)).create(name)?;
        label(&scale, "CLASS", "DIMENSION_SCALE")?;
        label(&scale, "NAME", name)?;
        text_attribute(&scale, "units", unit)?;
        text_attribute(&scale, "long_name", meaning)?;
    }
    Ok(())
}

/// A compressed dataset whose axes refer to the dimension scales of the same names.
fn put<T: H5Type, D: ndarray::Dimension>(
    hdf5: &File,
    name: &str,
    values: ArrayView<T, D>,
    axes: &[&str],
    unit: &str,
) -> hdf5::Result<()> {
    let chunk: Vec<usize> =
        values.shape().iter().enumerate().map(|(i, &n)| if i == 0 { 1 } else { n }).collect();
    let builder = timeless(hdf5).chunk(chunk).shuffle().deflate(4);
    let dataset: Dataset = builder.with_data(values).create(name)?;
    text_attribute(&dataset, "units", unit)?;
    let references = axes
        .iter()
        .map(|axis| Ok(VarLenArray::from_slice(&[hdf5.reference::<ObjectReference1>(axis)?])))
        .collect::<hdf5::Result<Vec<_>>>()?;
    dataset.new_attr_builder().with_data(&references).create("DIMENSION_LIST")?;
    Ok(())
}

/// A dataset without time stamps, so that the same run gives the same bytes.
fn timeless(hdf5: &File) -> DatasetBuilder {
    hdf5.new_dataset_builder().with_dcpl(|properties| properties.obj_track_times(false))
}

/// An attribute of 15 ASCII characters and a final NUL: readers recognise dimension scales in no other form ("HDF5
/// Dimension Scale Specification and Design Notes", section 3).
fn label(location: &Location, name: &str, value: &str) -> hdf5::Result<()> {
    let terminated = Datatype::from_type::<FixedAscii<16>>()?;
    // SAFETY: the id is that of an open datatype that nothing else refers to.
    let status = unsafe { H5Tset_strpad(terminated.id(), H5T_str_t::H5T_STR_NULLTERM) };
    let value = FixedAscii::<16>::from_ascii(value).map_err(|error| error.to_string())?;
    match status {
        0.. => location.new_attr_builder().empty_as(terminated).create(name)?.write_scalar(&value),
        _ => Err(format!("attribute {name} of {} cannot be made", location.name()).into()),
    }
}

fn number_attribute(location: &Location, name: &str, value: f64) -> hdf5::Result<()> {
    location.new_attr::<f64>().create(name)?.write_scalar(&value)
}

fn read_number(location: &Location, name: &str) -> hdf5::Result<f64> {
    location.attr(name)?.read_scalar()
}

fn read_text(location: &Location, name: &str) -> hdf5::Result<String> {
    Ok(location.attr(name)?.read_scalar::<VarLenUnicode>()?.to_string())
}

fn text_attribute(location: &Location, name: &str, value: &str) -> hdf5::Result<()> {
    let value: VarLenUnicode =
        value.parse().map_err(|_| format!("attribute {name} holds a NUL character"))?;
    location.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&value)
}

#[cfg(test)]
mod tests {
    use hdf5_sys::h5t::H5Tget_strpad;

    use super::*;
    use crate::io::cube::tests::{example, microscope};

    #[test]
    fn the_cube_reads_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posterior.h5");
        for cube in [example(), microscope()] {
            write(&cube, &file).unwrap();
            assert_eq!(read(&file).unwrap(), cube);
        }
    }

    #[test]
    fn scales_are_labelled_as_readers_expect() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posterior.h5");
        write(&example(), &file).unwrap();
        let class = File::open(&file).unwrap().dataset("x").unwrap().attr("CLASS").unwrap();
        assert_eq!(class.read_scalar::<FixedAscii<16>>().unwrap().as_str(), "DIMENSION_SCALE");
        let stored = class.dtype().unwrap();
        assert_eq!(stored.size(), 16);
        // SAFETY: the id is that of an open datatype.
        assert_eq!(unsafe { H5Tget_strpad(stored.id()) }, H5T_str_t::H5T_STR_NULLTERM);
    }

    #[test]
    fn the_same_cube_gives_the_same_bytes_at_another_time() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a.h5", "b.h5"].map(|name| folder.path().join(name));
        write(&example(), &files[0]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        write(&example(), &files[1]).unwrap();
        let [a, b] = files.map(|file| std::fs::read(file).unwrap());
        assert!(a == b);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not.h5");
        std::fs::write(&file, b"not an HDF5 file").unwrap();
        let message = read(&file).unwrap_err().to_string();
        assert!(message.contains("not.h5") && message.contains("reconstruct"), "{message}");
    }
}
