//! How a stack is read and cut: section `stack` of a run file.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, units::Length};

/// Settings of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StackSettings {
    /// Voxel size along Z, Y, X, or along Y, X; the file's where it is empty.
    pub voxel: Vec<Length>,
    /// Emission wavelength; the file's, then the instrument's, where it is not given.
    pub emission: Option<Length>,
    /// Channels to reconstruct, counted from 1; all if empty.
    pub channels: Vec<usize>,
    /// Time points to reconstruct, counted from 1; all if empty.
    pub times: Vec<usize>,
    /// Light per voxel of bright structures in the unit of the data, by which the prior knows them; found by a first chain where
    /// it is not given.
    pub brightness: Option<f64>,
    /// Fraction of the camera's data that the image is not fitted to, to see how well the samples foretell them: 0 to
    /// below 1/2, in blocks of 4 x 4 pixels.
    pub hold_out: f64,
    /// Pixels by which tiles of the prior overlap at least.
    pub overlap: usize,
    /// Write an ImageJ hyperstack besides OME-TIFF.
    pub imagej: bool,
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            voxel: Vec::new(),
            emission: None,
            channels: Vec::new(),
            times: Vec::new(),
            brightness: None,
            hold_out: 0.0,
            overlap: 12,
            imagej: false,
        }
    }
}

impl StackSettings {
    /// Voxel pitch along Z, Y, X, m, as far as it is known: what is set, else the file's, else the instrument's camera pixel.
    ///
    /// # Errors
    /// Another number of values than two or three.
    pub fn known_pitch(&self, file: [Option<f64>; 3], camera_pixel: Option<f64>) -> Result<[Option<f64>; 3]> {
        match self.voxel[..] {
            [] => Ok([file[0], file[1].or(camera_pixel), file[2].or(camera_pixel)]),
            [y, x] => Ok([file[0], Some(y.0), Some(x.0)]),
            [z, y, x] => Ok([Some(z.0), Some(y.0), Some(x.0)]),
            _ => Err(Error::config("stack.voxel", "needs two values (Y, X) or three (Z, Y, X)")),
        }
    }

    /// [`StackSettings::known_pitch`], all of it. The pitch along Z of a single plane does not matter.
    ///
    /// # Errors
    /// A pitch that nobody tells, with the flag that gives it, or one that cannot be.
    pub(super) fn pitch(
        &self,
        file: [Option<f64>; 3],
        camera_pixel: Option<f64>,
        planes: usize,
    ) -> Result<[f64; 3]> {
        let [z, y, x] = self.known_pitch(file, camera_pixel)?;
        let z = z.or(if planes == 1 { y } else { None });
        let known = |pitch: Option<f64>, axis: &str| match pitch {
            Some(pitch) if (1e-9..1e-3).contains(&pitch) => Ok(pitch),
            Some(pitch) => {
                let problem = format!("{} um along {axis} cannot be; write for example 65 nm", pitch * 1e6);
                Err(Error::config("--voxel", problem))
            }
            None => {
                let problem = format!(
                    "the file does not tell its voxel size along {axis}; give it, for example --voxel \"200 nm,65 nm,65 nm\""
                );
                Err(Error::config("--voxel", problem))
            }
        };
        let [y, x] = [known(y, "Y")?, known(x, "X")?];
        Ok([known(z, "Z")?, y, x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pitch_names_the_flag_and_the_axis() {
        let settings = StackSettings::default();
        let message = settings.pitch([None, Some(1e-7), Some(1e-7)], None, 5).unwrap_err().to_string();
        assert!(message.contains("--voxel") && message.contains("along Z"), "{message}");
        assert!(settings.pitch([None; 3], None, 1).is_err());
        assert_eq!(settings.pitch([None; 3], Some(65e-9), 1).unwrap(), [65e-9; 3]);
        let given = StackSettings { voxel: vec![Length(1e-7), Length(2e-7)], ..settings };
        assert_eq!(given.pitch([Some(3e-7), None, None], Some(65e-9), 4).unwrap(), [3e-7, 1e-7, 2e-7]);
        let absurd = StackSettings { voxel: vec![Length(1.0); 2], ..given };
        assert!(absurd.pitch([None; 3], None, 1).is_err());
    }
}
