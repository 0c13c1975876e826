//! The celestial coordinate keywords of an image.

use fitsio::FitsFile;
use fitsio::hdu::FitsHdu;

use crate::grid::Grid;
use crate::io::cube::SkyFrame;

/// Writes the coordinate keywords of an open image: orthographic projection (RA---SIN, DEC--SIN), increments in
/// degrees, `unit`, and the direction of `sky` at the pixel that lies `offset` (east, north, radians) away from it
/// at the array's centre.
///
/// # Errors
/// cfitsio cannot write a keyword.
pub fn celestial_keys(
    fits: &mut FitsFile,
    hdu: &FitsHdu,
    grid: &Grid,
    sky: &SkyFrame,
    unit: &str,
    offset: [f64; 2],
) -> fitsio::errors::Result<()> {
    let [_, ny, nx] = grid.shape;
    let [_, pitch_y, pitch_x] = grid.pitch;
    for (key, value) in [
        ("CTYPE1", "RA---SIN"),
        ("CTYPE2", "DEC--SIN"),
        ("CUNIT1", "deg"),
        ("CUNIT2", "deg"),
        ("RADESYS", "ICRS"),
        ("BUNIT", unit),
        ("OBJECT", sky.source.as_str()),
    ] {
        hdu.write_key(fits, key, value)?;
    }
    for (key, value) in [
        ("CRPIX1", nx as f64 / 2.0 + 0.5 + offset[0] / pitch_x),
        ("CRPIX2", ny as f64 / 2.0 + 0.5 - offset[1] / pitch_y),
        ("CRVAL1", sky.ra_deg),
        ("CRVAL2", sky.dec_deg),
        ("CDELT1", -pitch_x.to_degrees()),
        ("CDELT2", pitch_y.to_degrees()),
        ("OBSRA", sky.ra_deg),
        ("OBSDEC", sky.dec_deg),
        ("FREQ", sky.frequency_hz),
        ("RESTFRQ", sky.frequency_hz),
        ("MJD", sky.mjd),
        ("MJD-OBS", sky.mjd),
    ] {
        hdu.write_key(fits, key, value)?;
    }
    Ok(())
}
