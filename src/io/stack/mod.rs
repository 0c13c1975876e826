//! Microscope stacks of any supported format: what the header says, and planes read when they are asked for.

mod bigdataviewer;
mod bounds;
mod hdf5;
mod length;
pub mod mrc;
mod npy;
mod order;
mod raw;
mod sample;
mod tiff;
mod write;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, Array4};

use crate::{Error, Result};

pub use sample::SampleType;
pub use write::{Container, Title, write};

/// A file format that holds stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TIFF or BigTIFF, among them OME-TIFF and ImageJ's hyperstacks.
    Tiff,
    /// MRC-2014 or DeltaVision.
    Mrc,
    /// HDF5.
    Hdf5,
    /// NumPy array.
    Npy,
}

/// Sizes of a stack; none is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Time points.
    pub time: usize,
    /// Channels.
    pub channels: usize,
    /// Planes.
    pub z: usize,
    /// Rows.
    pub y: usize,
    /// Columns.
    pub x: usize,
}

impl Shape {
    /// T, C, Z, Y, X.
    pub fn sizes(&self) -> [usize; 5] {
        [self.time, self.channels, self.z, self.y, self.x]
    }
}

/// One channel of a stack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Channel {
    /// Name, if the file gives one.
    pub name: Option<String>,
    /// Emission wavelength, metres.
    pub emission: Option<f64>,
}

/// What the header of a stack says. What it does not say is `None`, never a guess.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The format in words, for example `OME-TIFF`.
    pub format: String,
    /// Sizes.
    pub shape: Shape,
    /// How values are stored.
    pub sample: SampleType,
    /// Voxel pitch along Z, Y, X, metres.
    pub voxel: [Option<f64>; 3],
    /// The channels, as many as `shape.channels`.
    pub channels: Vec<Channel>,
    /// Numerical aperture of the objective.
    pub numerical_aperture: Option<f64>,
    /// Refractive index of the immersion medium.
    pub refractive_index: Option<f64>,
    /// What was assumed where the file is silent.
    pub remarks: Vec<String>,
}

impl Metadata {
    /// Metadata of a file that says nothing beyond its sizes.
    pub fn new(format: &str, shape: Shape, sample: SampleType) -> Self {
        Self {
            format: format.into(),
            shape,
            sample,
            voxel: [None; 3],
            channels: vec![Channel::default(); shape.channels],
            numerical_aperture: None,
            refractive_index: None,
            remarks: Vec::new(),
        }
    }
}

/// Where the planes of an open file come from.
trait Planes: Send {
    /// Reads planes `z` of one channel at one time, within the sizes of the stack, into `values` `[Z, Y, X]`.
    fn read(&mut self, time: usize, channel: usize, z: Range<usize>, values: &mut [f32]) -> Result<()>;
}

/// An open stack. Its planes stay in the file until they are read.
pub struct Stack {
    /// What the header says.
    pub metadata: Metadata,
    planes: Box<dyn Planes>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Stack {
    /// Opens a stack; `file.h5:/data/x` names a dataset of an HDF5 file.
    ///
    /// # Errors
    /// A file of another kind, one that is damaged or truncated, or one whose announced size its length cannot hold.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, dataset) = hdf5::split(path);
        match (recognise(&file)?, dataset) {
            (Some(Format::Hdf5), dataset) => hdf5::open(&file, dataset.as_deref()),
            (_, Some(_)) => Err(Error::format(&file, "beginning", "not an HDF5 file; leave out `:/...`")),
            (Some(Format::Tiff), None) => tiff::open(&file),
            (Some(Format::Mrc), None) => mrc::open(&file),
            (Some(Format::Npy), None) => npy::open(&file),
            (None, None) => {
                let problem = "not a stack; TIFF, OME-TIFF, MRC, DeltaVision, HDF5 and NPY can be read";
                Err(Error::format(&file, "beginning", problem))
            }
        }
    }

    /// All channels at one time, `[C, Z, Y, X]`. Integers beyond 2^24 are rounded to single precision.
    ///
    /// # Errors
    /// A time point that the stack does not have, more values than fit into memory, or damaged data.
    pub fn read(&mut self, time: usize) -> Result<Array4<f32>> {
        let Shape { channels, z, y, x, .. } = self.metadata.shape;
        self.check(time, 0, 0)?;
        let count = [channels, z, y, x].iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let mut values = bounds::zeros(count)?;
        for (channel, volume) in values.chunks_exact_mut(z * y * x).enumerate() {
            self.planes.read(time, channel, 0..z, volume)?;
        }
        Array4::from_shape_vec((channels, z, y, x), values).map_err(|e| Error::config("stack", e.to_string()))
    }

    /// One channel at one time, `[Z, Y, X]`; see [`Stack::read`].
    ///
    /// # Errors
    /// A channel or time that the stack does not have, more values than fit into memory, or damaged data.
    pub fn volume(&mut self, time: usize, channel: usize) -> Result<Array3<f32>> {
        let Shape { z, y, x, .. } = self.metadata.shape;
        self.check(time, channel, 0)?;
        let count = [z, y, x].iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let mut values = bounds::zeros(count)?;
        self.planes.read(time, channel, 0..z, &mut values)?;
        Array3::from_shape_vec((z, y, x), values).map_err(|e| Error::config("stack", e.to_string()))
    }

    /// One plane, `[Y, X]`.
    ///
    /// # Errors
    /// A plane that the stack does not have, or damaged data.
    pub fn plane(&mut self, time: usize, channel: usize, z: usize) -> Result<Array2<f32>> {
        let Shape { y, x, .. } = self.metadata.shape;
        self.check(time, channel, z)?;
        let mut values = bounds::zeros(y.checked_mul(x))?;
        self.planes.read(time, channel, z..z + 1, &mut values)?;
        Array2::from_shape_vec((y, x), values).map_err(|e| Error::config("stack", e.to_string()))
    }

    fn check(&self, time: usize, channel: usize, z: usize) -> Result<()> {
        let shape = self.metadata.shape;
        for (what, index, count) in
            [("time point", time, shape.time), ("channel", channel, shape.channels), ("plane", z, shape.z)]
        {
            if index >= count {
                let problem = format!("{what} {} was asked for, the stack has {count}", index + 1);
                return Err(Error::config("stack", problem));
            }
        }
        Ok(())
    }
}

/// The file behind a path that may name a dataset, `file.h5:/path`.
pub fn file_of(path: &Path) -> PathBuf {
    hdf5::split(path).0
}

/// Which stack format a file's content shows; `None` for anything else. The name does not matter.
///
/// # Errors
/// A file that cannot be read.
pub fn recognise(path: &Path) -> Result<Option<Format>> {
    let (path, _) = hdf5::split(path);
    let mut head = Vec::new();
    let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
    file.take(mrc::HEADER_BYTES).read_to_end(&mut head).map_err(|source| Error::io(&path, source))?;
    let starts = |magic: &[u8]| head.starts_with(magic);
    Ok(if tiff::MAGIC.iter().any(|magic| starts(magic)) {
        Some(Format::Tiff)
    } else if starts(npy::MAGIC) {
        Some(Format::Npy)
    } else if hdf5::is_hdf5(&head) {
        Some(Format::Hdf5)
    } else if mrc::is_mrc(&head) {
        Some(Format::Mrc)
    } else {
        None
    })
}
