//! The axes of the visibility array, found by CTYPE.

use std::path::Path;

use crate::io::fits::Hdu;
use crate::{Error, Result};

/// A correlation product, by its code in FITS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hand {
    I,
    Q,
    U,
    V,
    RR,
    LL,
    RL,
    LR,
    XX,
    YY,
    XY,
    YX,
}

impl Hand {
    /// Every product with the number that the STOKES axis gives it.
    const CODES: [(i64, Hand); 12] = [
        (1, Hand::I),
        (2, Hand::Q),
        (3, Hand::U),
        (4, Hand::V),
        (-1, Hand::RR),
        (-2, Hand::LL),
        (-3, Hand::RL),
        (-4, Hand::LR),
        (-5, Hand::XX),
        (-6, Hand::YY),
        (-7, Hand::XY),
        (-8, Hand::YX),
    ];

    fn from_code(code: f64) -> Option<Self> {
        Self::CODES.iter().find(|(known, _)| *known as f64 == code.round()).map(|(_, hand)| *hand)
    }

    /// Its number on the STOKES axis.
    pub(super) fn code(self) -> i64 {
        Self::CODES.iter().find(|(_, hand)| *hand == self).map_or(0, |(code, _)| *code)
    }

    /// True for Stokes I and the hands whose mean is Stokes I: RR and LL, XX and YY.
    pub fn is_parallel(self) -> bool {
        matches!(self, Self::I | Self::RR | Self::LL | Self::XX | Self::YY)
    }
}

/// One axis: world coordinate of index i (from 0) = value + (i + 1 - reference) step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub(super) length: usize,
    /// Distance between neighbours on this axis in the flat array.
    pub(super) stride: usize,
    pub(super) value: f64,
    pub(super) step: f64,
    pub(super) reference: f64,
}

impl Axis {
    pub(super) fn coordinate(&self, index: usize) -> f64 {
        self.value + (index as f64 + 1.0 - self.reference) * self.step
    }
}

/// The axes of the visibility array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axes {
    /// Real, imaginary, weight.
    pub(super) complex: Axis,
    pub(super) hands: Vec<Hand>,
    pub(super) stokes: Axis,
    pub(super) channel: Axis,
    pub(super) intermediate: Axis,
    pub(super) ra: Option<f64>,
    pub(super) dec: Option<f64>,
    /// Number of values in one group's array.
    pub(super) size: usize,
}

impl Axes {
    /// Finds the axes in the primary header.
    pub(super) fn find(path: &Path, primary: &Hdu) -> Result<Self> {
        let found = named_axes(path, primary)?;
        let axis = |kind: &str| found.iter().find(|(name, _)| name == kind).map(|(_, axis)| *axis);
        let needed = |kind: &str| {
            let problem = format!("no axis of type {kind}; this is not a UVFITS visibility file");
            axis(kind).ok_or_else(|| Error::format(path, "CTYPEn of HDU 1", problem))
        };
        let (complex, stokes, channel) = (needed("COMPLEX")?, needed("STOKES")?, needed("FREQ")?);
        if complex.length != 3 {
            let problem = format!(
                "the COMPLEX axis has {} entries; 3 are needed (real, imaginary, weight): write the file uncompressed \
                 and with weights",
                complex.length
            );
            return Err(Error::format(path, "axis COMPLEX", problem));
        }
        if channel.value <= 0.0 {
            return Err(Error::format(path, "axis FREQ", "CRVAL must be the frequency in Hz, above 0"));
        }
        let one = Axis { length: 1, stride: 0, value: 0.0, step: 1.0, reference: 1.0 };
        Ok(Self {
            complex,
            hands: (0..stokes.length).map(|i| hand(path, stokes.coordinate(i))).collect::<Result<_>>()?,
            stokes,
            channel,
            intermediate: axis("IF").unwrap_or(one),
            ra: axis("RA").map(|axis| axis.value),
            dec: axis("DEC").map(|axis| axis.value),
            size: found.iter().map(|(_, axis)| axis.length).product(),
        })
    }

    /// Position in the flat array of the real part of one visibility.
    pub(super) fn position(&self, intermediate: usize, channel: usize, hand: usize) -> usize {
        intermediate * self.intermediate.stride + channel * self.channel.stride + hand * self.stokes.stride
    }
}

/// Axes 2, 3, ... of the primary unit with their types, up to the projection's `-`; an axis may lack its type.
fn named_axes(path: &Path, primary: &Hdu) -> Result<Vec<(String, Axis)>> {
    let header = &primary.header;
    let mut found = Vec::new();
    let mut stride = 1;
    for (index, length) in primary.axes.iter().enumerate().skip(1) {
        let n = index + 1;
        let length = *length as usize;
        let number = |key: &str, default| header.number(&format!("{key}{n}")).unwrap_or(default);
        let (value, step, reference) = (number("CRVAL", 0.0), number("CDELT", 1.0), number("CRPIX", 1.0));
        let kind = header.text(&format!("CTYPE{n}")).unwrap_or_default().to_ascii_uppercase();
        let kind = kind.trim().split('-').next().unwrap_or_default().to_string();
        if length == 0 {
            return Err(Error::format(path, format!("NAXIS{n}"), "is 0: the file holds no visibilities"));
        }
        if length > 1 && !["COMPLEX", "STOKES", "FREQ", "IF"].contains(&kind.as_str()) {
            let problem = format!(
                "axis {n} has {length} entries but its type `{kind}` is not one of COMPLEX, STOKES, FREQ, IF; correct \
                 CTYPE{n} in the header"
            );
            return Err(Error::format(path, format!("CTYPE{n}"), problem));
        }
        found.push((kind, Axis { length, stride, value, step, reference }));
        stride *= length;
    }
    Ok(found)
}

fn hand(path: &Path, code: f64) -> Result<Hand> {
    Hand::from_code(code).ok_or_else(|| {
        let problem = format!(
            "code {code} is no correlation product (I Q U V = 1..4, RR LL RL LR = -1..-4, XX YY XY \
                               YX = -5..-8); correct CRVAL, CDELT and CRPIX of this axis"
        );
        Error::format(path, "axis STOKES", problem)
    })
}
