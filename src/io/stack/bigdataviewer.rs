//! BigDataViewer's layout of HDF5: `/tTTTTT/sSS/0/cells` `[Z, Y, X]`, and an XML file beside it.
//!
//! Set-ups (channels, angles, tiles) become channels. Values are stored as signed 16-bit integers and mean unsigned ones.

use std::ops::Range;
use std::path::{Path, PathBuf};

use hdf5::{Dataset, File};
use roxmltree::{Document, Node};

use super::hdf5::{checked, damaged, read_slab};
use super::sample::SampleType;
use super::{Metadata, Planes, Shape, Stack, length::per_metre};
use crate::{Error, Result};

/// Opens the finest level of every set-up; `None` for a file of another layout.
pub(super) fn open(path: &Path, file: &File) -> Result<Option<Stack>> {
    let times = numbered(file, 't', 5);
    let Some(first) = times.first() else { return Ok(None) };
    let group = file.group(first).map_err(|e| damaged(path, first, &e))?;
    let setups = numbered(&group, 's', 2);
    let Some(setup) = setups.first() else { return Ok(None) };
    let name = cells(first, setup);
    let Ok(dataset) = file.dataset(&name) else { return Ok(None) };
    let stored = checked(path, &name, &dataset)?;
    let [z, y, x] = sizes(path, &name, &dataset)?;
    let sample = if stored == SampleType::I16 { SampleType::U16 } else { stored };
    let shape = Shape { time: times.len(), channels: setups.len(), z, y, x };
    let mut metadata = Metadata::new("HDF5 (BigDataViewer)", shape, sample);
    companion(&path.with_extension("xml"), &setups, &mut metadata);
    let planes = Cells { path: path.into(), file: file.clone(), times, setups, size: [z, y, x] };
    Ok(Some(Stack { metadata, planes: Box::new(planes) }))
}

/// Names of groups like `t00012`, in order.
fn numbered(group: &hdf5::Group, letter: char, digits: usize) -> Vec<String> {
    let is_number = |name: &String| {
        let rest = name.strip_prefix(letter);
        rest.is_some_and(|rest| rest.len() >= digits && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut names: Vec<String> =
        group.member_names().unwrap_or_default().into_iter().filter(is_number).collect();
    // Set-ups lie beside `/sSS/resolutions` at the root, time points hold theirs.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

fn cells(time: &str, setup: &str) -> String {
    format!("/{time}/{setup}/0/cells")
}

fn sizes(path: &Path, name: &str, dataset: &Dataset) -> Result<[usize; 3]> {
    <[usize; 3]>::try_from(dataset.shape()).map_err(|shape| {
        Error::format(path, name, format!("{} axes instead of ZYX; export the file again", shape.len()))
    })
}

/// Voxel and names from the XML file that BigDataViewer opens; without it they stay unknown.
fn companion(path: &Path, setups: &[String], metadata: &mut Metadata) {
    let Ok(text) = std::fs::read_to_string(path) else {
        let name = path.file_name().unwrap_or_default().display();
        metadata.remarks.push(format!("without {name} beside the file, voxel and channel names are unknown"));
        return;
    };
    let Ok(document) = Document::parse(&text) else {
        metadata.remarks.push(format!("{} is not XML and was not used", path.display()));
        return;
    };
    let views = setups.iter().map(|setup| {
        let number: Option<u32> = setup[1..].parse().ok();
        let is_it = |view: &Node| text_of(*view, "id").and_then(|id| id.parse().ok()) == number;
        document.descendants().find(|node| node.has_tag_name("ViewSetup") && is_it(node))
    });
    let mut voxels = Vec::new();
    for (view, channel) in views.zip(&mut metadata.channels) {
        channel.name = view.and_then(|view| text_of(view, "name")).map(String::from);
        voxels.push(view.map_or([None; 3], voxel));
    }
    if voxels.windows(2).all(|pair| pair[0] == pair[1]) {
        metadata.voxel = voxels.first().copied().unwrap_or_default();
    } else {
        metadata.remarks.push("voxels differ between set-ups and were not used".into());
    }
}

/// Pitch along Z, Y, X of a set-up, metres.
fn voxel(view: Node) -> [Option<f64>; 3] {
    let Some(voxel) = view.children().find(|node| node.has_tag_name("voxelSize")) else { return [None; 3] };
    let unit = text_of(voxel, "unit").and_then(per_metre);
    let sizes = text_of(voxel, "size").unwrap_or_default();
    let mut sizes = sizes.split_whitespace().map(|size| Some(size.parse::<f64>().ok()? / unit?));
    let [x, y, z] =
        [(); 3].map(|()| sizes.next().flatten().filter(|pitch| pitch.is_finite() && *pitch > 0.0));
    [z, y, x]
}

/// Text of the first child with this name, if it is not empty.
fn text_of<'a>(node: Node<'a, '_>, tag: &str) -> Option<&'a str> {
    let child = node.children().find(|child| child.has_tag_name(tag))?;
    child.text().map(str::trim).filter(|text| !text.is_empty())
}

/// The finest cells of all set-ups and times.
struct Cells {
    path: PathBuf,
    file: File,
    times: Vec<String>,
    setups: Vec<String>,
    size: [usize; 3],
}

impl Planes for Cells {
    fn read(&mut self, time: usize, channel: usize, z: Range<usize>, values: &mut [f32]) -> Result<()> {
        let name = cells(&self.times[time], &self.setups[channel]);
        let dataset = self.file.dataset(&name).map_err(|e| damaged(&self.path, &name, &e))?;
        let stored = checked(&self.path, &name, &dataset)?;
        let [_, y, x] = self.size;
        if sizes(&self.path, &name, &dataset)? != self.size {
            let problem = format!("{:?} voxels, the first set-up has {:?}", dataset.shape(), self.size);
            return Err(Error::format(
                &self.path,
                name,
                problem + "; export set-ups of equal size, or one alone",
            ));
        }
        let slices = vec![z.into(), (0..y).into(), (0..x).into()];
        read_slab(&self.path, &name, &dataset, slices, values)?;
        if stored == SampleType::I16 {
            values.iter_mut().filter(|value| **value < 0.0).for_each(|value| *value += 65536.0);
        }
        Ok(())
    }
}
