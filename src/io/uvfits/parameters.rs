//! The random parameters of a group: u, v, w, baseline, time, found by PTYPE and scaled by PSCAL and PZERO.

use std::path::Path;

use crate::io::fits::{Hdu, Header};
use crate::{Error, Result};

/// Julian date of modified Julian date 0.
const MJD_ZERO: f64 = 2_400_000.5;
/// Julian dates that are believed: 1858 to 2132.
const JULIAN_DATES: std::ops::Range<f64> = MJD_ZERO..2_500_000.0;
/// Longest baseline component that is believed, light-seconds (ten times the distance of the Moon).
const LONGEST_BASELINE: f64 = 13.0;

/// Number of random parameters that keywords can name.
const MOST_PARAMETERS: usize = 999;

/// Where one quantity lies among the parameters: value = raw x scale + zero.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Parameter {
    index: usize,
    scale: f64,
    zero: f64,
}

impl Parameter {
    fn value(self, raw: &[f64]) -> f64 {
        raw[self.index] * self.scale + self.zero
    }
}

/// The way a file names the two stations of a group.
#[derive(Debug, Clone, PartialEq)]
enum Baseline {
    /// 256 a + b + 0.01 (subarray - 1), or 2048 a + b + 65536.
    Coded(Parameter),
    /// ANTENNA1, ANTENNA2 and, where several, SUBARRAY.
    Separate { antennas: [Parameter; 2], subarray: Option<Parameter> },
}

/// Where the quantities lie among the parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    /// Number of parameters.
    pub(super) count: usize,
    uvw: [Option<Parameter>; 3],
    baseline: Baseline,
    /// All DATE parameters; their sum is the Julian date.
    dates: Vec<Parameter>,
    integration: Option<Parameter>,
    setup: Option<Parameter>,
    source: Option<Parameter>,
}

/// The quantities of one group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Group {
    /// Light-seconds.
    pub(super) uvw: [f64; 3],
    /// Subarray (from 1) and the two station numbers.
    pub(super) subarray: i64,
    pub(super) antennas: [i64; 2],
    /// Modified Julian date: whole days and the rest.
    pub(super) day: f64,
    pub(super) fraction: f64,
    pub(super) integration: f64,
    pub(super) setup: i64,
    pub(super) source: i64,
}

impl Parameters {
    /// Finds the parameters in the primary header.
    pub(super) fn find(path: &Path, primary: &Hdu) -> Result<Self> {
        let count =
            primary.header.integer("PCOUNT").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let found = named_parameters(&primary.header, count);
        let optional =
            |name: &str| found.iter().find(|(known, _)| known == name).map(|(_, parameter)| *parameter);
        let needed = |name: &str| {
            let parameter = optional(name).ok_or_else(|| {
                let problem = format!("no random parameter {name}; this is not a UVFITS visibility file");
                Error::format(path, "PTYPEn of HDU 1", problem)
            })?;
            if parameter.scale == 0.0 {
                let problem =
                    format!("is 0, which makes every {name} the same; set the scale of {name} (usually 1)");
                return Err(Error::format(path, format!("PSCAL{}", parameter.index + 1), problem));
            }
            Ok(parameter)
        };
        let baseline = match optional("BASELINE") {
            Some(_) => Baseline::Coded(needed("BASELINE")?),
            None => Baseline::Separate {
                antennas: [needed("ANTENNA1")?, needed("ANTENNA2")?],
                subarray: optional("SUBARRAY"),
            },
        };
        needed("DATE")?;
        Ok(Self {
            count,
            uvw: [Some(needed("UU")?), Some(needed("VV")?), optional("WW")],
            baseline,
            dates: found.iter().filter(|(name, _)| name == "DATE").map(|(_, parameter)| *parameter).collect(),
            integration: optional("INTTIM"),
            setup: optional("FREQSEL"),
            source: optional("SOURCE"),
        })
    }

    /// Scales the raw parameters of one group; `None` if any needed one is not finite (no data).
    ///
    /// # Errors
    /// A date or baseline that cannot be; `number` is the group's, from 1.
    pub(super) fn group(&self, path: &Path, number: usize, raw: &[f64]) -> Result<Option<Group>> {
        let wrong = |problem: String| Error::format(path, format!("group {number}"), problem);
        let whole = |parameter: Option<Parameter>| {
            parameter.map_or(0, |parameter| parameter.value(raw).round() as i64)
        };
        let uvw = self.uvw.map(|parameter| parameter.map_or(0.0, |parameter| parameter.value(raw)));
        let terms = self.dates.iter().map(|date| date.value(raw));
        let (day, fraction) =
            terms.fold((0.0, 0.0), |sum, term| (sum.0 + term.floor(), sum.1 + term - term.floor()));
        let stations = self.stations(raw).filter(|_| (day + fraction).is_finite());
        let Some((subarray, antennas)) =
            stations.filter(|_| uvw.iter().all(|component| component.is_finite()))
        else {
            return Ok(None);
        };
        if !JULIAN_DATES.contains(&(day + fraction)) {
            let problem = format!(
                "Julian date {} is outside 2400000.5..2500000; correct PSCAL and PZERO of DATE{}",
                day + fraction,
                self.byte_order_hint(raw)
            );
            return Err(wrong(problem));
        }
        if uvw.iter().any(|component| component.abs() > LONGEST_BASELINE) {
            let problem = format!(
                "baseline components {uvw:?} in light-seconds are longer than ten times the distance of the Moon; if \
                 they are in wavelengths, set PSCALn = 1/frequency"
            );
            return Err(wrong(problem));
        }
        // Julian days begin at noon, modified ones at midnight.
        let fraction = fraction + 0.5;
        let integration = self.integration.map_or(0.0, |parameter| parameter.value(raw));
        Ok(Some(Group {
            uvw,
            subarray,
            antennas,
            day: day - MJD_ZERO - 0.5 + fraction.floor(),
            fraction: fraction - fraction.floor(),
            integration: if integration.is_finite() { integration } else { 0.0 },
            setup: whole(self.setup),
            source: whole(self.source),
        }))
    }

    /// Subarray (from 1) and the two station numbers; `None` if they are not finite.
    fn stations(&self, raw: &[f64]) -> Option<(i64, [i64; 2])> {
        match &self.baseline {
            Baseline::Separate { antennas, subarray } => {
                let numbers = antennas.map(|antenna| antenna.value(raw));
                let subarray = subarray.map_or(1.0, |subarray| subarray.value(raw)).max(1.0);
                let finite = numbers.iter().all(|number| number.is_finite());
                finite.then(|| (subarray.round() as i64, numbers.map(|number| number.round() as i64)))
            }
            Baseline::Coded(parameter) => {
                let code = parameter.value(raw);
                // Subarray s adds 0.01 (s - 1); single precision blurs that by up to 0.004.
                let pair = (code + 0.004).floor();
                let subarray = 1 + ((code - pair) * 100.0).round() as i64;
                let (pair, base) =
                    if pair > 65536.0 { (pair as i64 - 65536, 2048) } else { (pair as i64, 256) };
                code.is_finite().then_some((subarray, [pair / base, pair % base]))
            }
        }
    }

    /// A remark for the message if the date would be right with its bytes reversed.
    fn byte_order_hint(&self, raw: &[f64]) -> &'static str {
        let reversed = |parameter: &Parameter| {
            let value = f32::from_bits((raw[parameter.index] as f32).to_bits().swap_bytes());
            f64::from(value) * parameter.scale + parameter.zero
        };
        let date: f64 = self.dates.iter().map(reversed).sum();
        if JULIAN_DATES.contains(&date) {
            "; the data are in the wrong byte order: FITS data are big-endian, write the file again"
        } else {
            ""
        }
    }
}

/// Every parameter by its name up to the projection: `UU---SIN`, `UU--` and `UU` are one, `_DATE` and `DATE` too.
fn named_parameters(header: &Header, count: usize) -> Vec<(String, Parameter)> {
    let parameter = |index: usize| {
        let n = index + 1;
        let name = header.text(&format!("PTYPE{n}"))?.trim().trim_start_matches('_').to_ascii_uppercase();
        let name = name.split(['-', ' ']).next().unwrap_or_default().to_string();
        let scale = header.number(&format!("PSCAL{n}")).unwrap_or(1.0);
        let zero = header.number(&format!("PZERO{n}")).unwrap_or(0.0);
        Some((name, Parameter { index, scale, zero }))
    };
    (0..count.min(MOST_PARAMETERS)).filter_map(parameter).collect()
}
