//! HDF5 files as stacks: the layout of BigDataViewer, or any dataset by its path.

use std::ops::Range;
use std::path::{Path, PathBuf};

use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, File, Group, Hyperslab, SliceOrIndex};

use super::order::{assumed_axes, split_axes};
use super::sample::{Kind, SampleType};
use super::{Metadata, Planes, Shape, Stack, bigdataviewer, bounds};
use crate::{Error, Result};

/// First bytes of the format, at the beginning or behind a user block of 512 bytes.
const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
/// Deepest group and largest number of datasets that are searched for a stack.
const DEEPEST: usize = 8;
const MOST_DATASETS: usize = 1000;

/// `file.h5:/data/x` as file and dataset; a path that exists is never split.
pub(super) fn split(path: &Path) -> (PathBuf, Option<String>) {
    let parts = path.to_str().and_then(|text| text.rsplit_once(":/"));
    match parts {
        Some((file, dataset)) if !path.exists() && Path::new(file).is_file() => {
            (file.into(), Some(format!("/{}", dataset.trim_start_matches('/'))))
        }
        _ => (path.into(), None),
    }
}

/// True for the beginning of an HDF5 file.
pub(super) fn is_hdf5(head: &[u8]) -> bool {
    [0, 512].iter().any(|&start| head.get(start..start + MAGIC.len()) == Some(MAGIC))
}

/// Opens `dataset`, or what the file holds if that is one stack.
pub(super) fn open(path: &Path, dataset: Option<&str>) -> Result<Stack> {
    let file = File::open(path).map_err(|e| damaged(path, "opening", &e))?;
    if let Some(name) = dataset {
        return open_dataset(path, &file, name);
    }
    if let Some(stack) = bigdataviewer::open(path, &file)? {
        return Ok(stack);
    }
    let mut names = Vec::new();
    search(&file, "", DEEPEST, &mut names);
    match names.as_slice() {
        [name] => open_dataset(path, &file, name),
        [] => {
            let problem = "no dataset of numbers with 2 to 5 axes; it holds no stack";
            Err(Error::format(path, "datasets", problem))
        }
        names => {
            const SHOWN: usize = 12;
            let listed = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            let problem = format!(
                "{} datasets could be meant: {listed}{more}; name one as {}:{}",
                names.len(),
                path.display(),
                names[0]
            );
            Err(Error::format(path, "datasets", problem))
        }
    }
}

/// Names of the datasets that could be stacks.
fn search(group: &Group, parent: &str, depth: usize, found: &mut Vec<String>) {
    let names = group.member_names().unwrap_or_default();
    for name in names {
        if found.len() >= MOST_DATASETS {
            return;
        }
        let full = format!("{parent}/{name}");
        if let Ok(dataset) = group.dataset(&name) {
            if sample_type(&dataset).is_some() && assumed_axes(dataset.ndim()).is_some() {
                found.push(full);
            }
        } else if let (Ok(group), true) = (group.group(&name), depth > 0) {
            search(&group, &full, depth - 1, found);
        }
    }
}

fn open_dataset(path: &Path, file: &File, name: &str) -> Result<Stack> {
    let dataset = file.dataset(name).map_err(|e| damaged(path, name, &e))?;
    let sample = checked(path, name, &dataset)?;
    let sizes = dataset.shape();
    let named = dimension_labels(&dataset).filter(|axes| split_axes(axes, &sizes).is_some());
    let axes = named.clone().or_else(|| assumed_axes(sizes.len()).map(String::from));
    let Some((axes, (planes, [y, x]))) =
        axes.and_then(|axes| Some((axes.clone(), split_axes(&axes, &sizes)?)))
    else {
        let problem = format!("{} axes; datasets of 2 to 5 axes (TCZYX) can be read", sizes.len());
        return Err(Error::format(path, name, problem));
    };
    let [time, channels, z] = planes;
    let mut metadata = Metadata::new("HDF5", Shape { time, channels, z, y, x }, sample);
    metadata.voxel = element_size(&dataset);
    if named.is_none() {
        metadata.remarks.push(format!("{name} does not name its axes; {axes} is assumed"));
    }
    Ok(Stack {
        metadata,
        planes: Box::new(DatasetPlanes { path: path.into(), name: name.into(), dataset, axes }),
    })
}

/// The type of a dataset whose announced size its stored bytes can hold.
pub(super) fn checked(path: &Path, name: &str, dataset: &Dataset) -> Result<SampleType> {
    let sample = sample_type(dataset).ok_or_else(|| {
        Error::format(path, name, "not a dataset of integers or floats; name another, or convert it")
    })?;
    let sizes: Vec<u64> = dataset.shape().iter().map(|&size| size as u64).collect();
    let announced = bounds::announced(path, name, &sizes, sample.bytes() as u64)?;
    // Filters of any kind may have been used.
    let expansion = if dataset.is_chunked() { bounds::expansion::ZSTD } else { bounds::expansion::NONE };
    let stored = dataset.storage_size().min(bounds::length(path)?);
    bounds::fits(path, name, announced, stored, expansion)?;
    Ok(sample)
}

fn sample_type(dataset: &Dataset) -> Option<SampleType> {
    let bits = |size: IntSize| 8 << (size as u8).trailing_zeros();
    match dataset.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::Unsigned(size) => SampleType::of(Kind::Unsigned, bits(size)),
        TypeDescriptor::Integer(size) => SampleType::of(Kind::Signed, bits(size)),
        TypeDescriptor::Float(FloatSize::U4) => Some(SampleType::F32),
        TypeDescriptor::Float(FloatSize::U8) => Some(SampleType::F64),
        _ => None,
    }
}

/// Axes from h5py's dimension labels (`t`, `c`, `z`, `y`, `x`).
fn dimension_labels(dataset: &Dataset) -> Option<String> {
    let attribute = dataset.attr("DIMENSION_LABELS").ok()?;
    let labels: Vec<String> = match attribute.read_raw::<VarLenUnicode>() {
        Ok(labels) => labels.iter().map(ToString::to_string).collect(),
        Err(_) => attribute.read_raw::<VarLenAscii>().ok()?.iter().map(ToString::to_string).collect(),
    };
    Some(labels.concat().to_uppercase())
}

/// Voxel from the attribute `element_size_um` ([z,] y, x) that segmentation programs write.
fn element_size(dataset: &Dataset) -> [Option<f64>; 3] {
    let sizes = dataset.attr("element_size_um").and_then(|attribute| attribute.read_raw::<f64>());
    let mut voxel = [None; 3];
    for (pitch, size) in voxel.iter_mut().rev().zip(sizes.unwrap_or_default().iter().rev()) {
        *pitch = Some(size / 1e6).filter(|pitch| pitch.is_finite() && *pitch > 0.0);
    }
    voxel
}

/// What the library says about a file, with a remedy.
pub(super) fn damaged(path: &Path, place: &str, error: &hdf5::Error) -> Error {
    let reason = error.to_string();
    let reason = reason.lines().next().unwrap_or_default();
    Error::format(path, place, format!("{reason}; check the name of the dataset, or copy the file again"))
}

/// The planes of one dataset.
struct DatasetPlanes {
    path: PathBuf,
    name: String,
    dataset: Dataset,
    /// Slowest first.
    axes: String,
}

impl Planes for DatasetPlanes {
    fn read(&mut self, time: usize, channel: usize, z: Range<usize>, values: &mut [f32]) -> Result<()> {
        let sizes = self.dataset.shape();
        let slices = self.axes.chars().zip(&sizes).map(|(axis, &size)| match axis {
            'T' => SliceOrIndex::Index(time),
            'C' => SliceOrIndex::Index(channel),
            'Z' => SliceOrIndex::from(z.clone()),
            _ => SliceOrIndex::from(0..size),
        });
        read_slab(&self.path, &self.name, &self.dataset, slices.collect(), values)
    }
}

/// Reads a part of a dataset into `values`, converted by the library.
pub(super) fn read_slab(
    path: &Path,
    name: &str,
    dataset: &Dataset,
    slices: Vec<SliceOrIndex>,
    values: &mut [f32],
) -> Result<()> {
    let slab = dataset
        .read_slice::<f32, _, ndarray::IxDyn>(Hyperslab::from(slices))
        .map_err(|e| damaged(path, name, &e))?;
    for (value, read) in values.iter_mut().zip(slab) {
        *value = read;
    }
    Ok(())
}
