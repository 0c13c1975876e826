//! Reading a UVFITS file.

use std::path::Path;

use ndarray::Array4;
use rustfft::num_complex::Complex64;

use super::antennas::Antennas;
use super::axes::Axes;
use super::frequencies::Frequencies;
use super::parameters::{Group, Parameters};
use super::{Record, UvData};
use crate::io::fits::{FitsReader, Hdu};
use crate::{Error, Result};

/// Reads a UVFITS file of one source, keeping hands, IFs and channels.
///
/// Negative, zero and undefined weights and undefined visibilities become weight zero; groups with undefined
/// parameters and autocorrelations are left out.
///
/// # Errors
/// A file that is not UVFITS, is damaged, holds several sources, or names stations that its antenna table lacks.
pub fn read(path: &Path) -> Result<UvData> {
    let mut file = FitsReader::open(path)?;
    let primary = primary(&file)?;
    let axes = Axes::find(path, &primary)?;
    let parameters = Parameters::find(path, &primary)?;
    let antennas = Antennas::read(&mut file)?;
    let frequencies = Frequencies::read(&mut file, &axes)?;
    let groups = Groups::read(&mut file, &primary, &axes, &parameters)?;
    let (ra_deg, dec_deg) = direction(path, &primary, &axes)?;
    let mjd = groups.found.iter().map(|group| group.day).fold(f64::INFINITY, f64::min);
    let records = records(path, &groups, &antennas, &frequencies, mjd)?;
    Ok(UvData {
        source: primary.header.text("OBJECT").unwrap_or_default().to_string(),
        ra_deg,
        dec_deg,
        mjd,
        channel_width: axes.channel.step.abs(),
        hands: axes.hands,
        frequencies: frequencies.channels,
        stations: antennas.stations,
        records,
        values: groups.values,
        weights: groups.weights,
    })
}

fn primary(file: &FitsReader) -> Result<Hdu> {
    let primary = &file.units()[0];
    let problem = if primary.has_groups() {
        match primary.header.integer("GCOUNT") {
            Some(1..) => return Ok(primary.clone()),
            _ => "GCOUNT is missing or 0: the file holds no visibilities",
        }
    } else if primary.axes.is_empty() {
        "no visibilities in the primary unit (no random groups); if this is FITS-IDI or a table, convert it to UVFITS"
    } else {
        "this is a FITS image, not UVFITS visibilities (no random groups); give a UVFITS file"
    };
    Err(Error::format(file.path(), primary.place(), problem))
}

/// Right ascension and declination of the phase centre, degrees.
fn direction(path: &Path, primary: &Hdu, axes: &Axes) -> Result<(f64, f64)> {
    let header = &primary.header;
    let observed = header.number("OBSRA").zip(header.number("OBSDEC"));
    // Files of several sources leave the axes at zero.
    let axis = axes.ra.zip(axes.dec).filter(|direction| *direction != (0.0, 0.0) || observed.is_none());
    axis.or(observed).ok_or_else(|| {
        Error::format(
            path,
            "HDU 1 (primary)",
            "no direction: neither RA and DEC axes nor OBSRA and OBSDEC; add them",
        )
    })
}

/// The groups that hold cross-correlations, in the order of the file.
struct Groups {
    found: Vec<Group>,
    /// Number of each in the file, from 1.
    numbers: Vec<usize>,
    values: Array4<Complex64>,
    weights: Array4<f64>,
}

impl Groups {
    fn read(file: &mut FitsReader, primary: &Hdu, axes: &Axes, parameters: &Parameters) -> Result<Self> {
        let path = file.path().to_path_buf();
        let count =
            primary.header.integer("GCOUNT").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let (mut raw, mut array) = (vec![0.0; parameters.count], vec![0.0; axes.size]);
        let (mut found, mut numbers) = (Vec::new(), Vec::new());
        let (mut values, mut weights) = (Vec::new(), Vec::new());
        for index in 0..count {
            file.group_parameters(index, &mut raw)?;
            let Some(group) = parameters.group(&path, index + 1, &raw)? else { continue };
            if group.antennas[0] == group.antennas[1] {
                continue;
            }
            file.group_array(index, &mut array)?;
            found.push(group);
            numbers.push(index + 1);
            append(axes, &array, &mut values, &mut weights);
        }
        if found.is_empty() {
            let problem = format!("none of the {count} groups is a cross-correlation with finite parameters");
            return Err(Error::format(&path, primary.place(), problem));
        }
        let shape = (found.len(), axes.intermediate.length, axes.channel.length, axes.hands.len());
        let array = |error| Error::format(&path, primary.place(), format!("{error}"));
        let values = Array4::from_shape_vec(shape, values).map_err(array)?;
        let weights = Array4::from_shape_vec(shape, weights).map_err(array)?;
        Ok(Self { found, numbers, values, weights })
    }
}

/// Appends one group's visibilities, `[IF, channel, hand]`; what is not usable gets weight zero.
fn append(axes: &Axes, array: &[f64], values: &mut Vec<Complex64>, weights: &mut Vec<f64>) {
    for intermediate in 0..axes.intermediate.length {
        for channel in 0..axes.channel.length {
            for hand in 0..axes.hands.len() {
                let first = axes.position(intermediate, channel, hand);
                let [re, im, weight] = [0, 1, 2].map(|part| array[first + part * axes.complex.stride]);
                let usable = re.is_finite() && im.is_finite() && weight.is_finite() && weight > 0.0;
                values.push(if usable { Complex64::new(re, im) } else { Complex64::ZERO });
                weights.push(if usable { weight } else { 0.0 });
            }
        }
    }
}

/// Names the stations and the frequency setup of every group.
fn records(
    path: &Path,
    groups: &Groups,
    antennas: &Antennas,
    frequencies: &Frequencies,
    mjd: f64,
) -> Result<Vec<Record>> {
    let source = groups.found[0].source;
    let record = |(group, number): (&Group, &usize)| {
        let wrong = |problem: String| Error::format(path, format!("group {number}"), problem);
        let station = |antenna: i64| {
            antennas.index(group.subarray, antenna).ok_or_else(|| {
                let subarray = group.subarray;
                wrong(format!(
                    "station {antenna} of subarray {subarray} is not in the antenna tables (AIPS AN)"
                ))
            })
        };
        let setup = frequencies.setup(group.setup);
        if group.source != source {
            let problem = format!(
                "source {} after source {source}; write each source to a file of its own",
                group.source
            );
            return Err(wrong(problem));
        }
        Ok(Record {
            time: ((group.day - mjd) + group.fraction) * 86_400.0,
            integration: group.integration,
            stations: [station(group.antennas[0])?, station(group.antennas[1])?],
            uvw: group.uvw,
            setup: setup
                .ok_or_else(|| wrong(format!("frequency setup {} is not in AIPS FQ", group.setup)))?,
        })
    };
    groups.found.iter().zip(&groups.numbers).map(record).collect()
}
