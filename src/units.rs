//! Physical constants, unit conversions and quantities written with their unit (`160 uas`).

use crate::{Error, Result};

/// Speed of light, m/s (exact, SI).
pub const SPEED_OF_LIGHT: f64 = 299_792_458.0;
/// Boltzmann constant, J/K (exact, SI).
pub const BOLTZMANN: f64 = 1.380_649e-23;
/// Radians in one microarcsecond.
pub const MICROARCSECOND: f64 = std::f64::consts::PI / 180.0 / 3600.0 * 1e-6;
/// One jansky in W m^-2 Hz^-1.
pub const JANSKY: f64 = 1e-26;

/// What a quantity measures; each dimension has its SI unit and the names users may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Angle, radians.
    Angle,
    /// Length, metres.
    Length,
    /// Frequency, hertz.
    Frequency,
    /// Flux density, jansky.
    Flux,
    /// Time, seconds.
    Time,
}

impl Dimension {
    fn units(self) -> &'static [(&'static str, f64)] {
        const DEGREE: f64 = std::f64::consts::PI / 180.0;
        match self {
            Self::Angle => &[
                ("uas", MICROARCSECOND),
                ("mas", MICROARCSECOND * 1e3),
                ("arcsec", MICROARCSECOND * 1e6),
                ("deg", DEGREE),
                ("rad", 1.0),
            ],
            Self::Length => &[("nm", 1e-9), ("um", 1e-6), ("mm", 1e-3), ("m", 1.0), ("km", 1e3)],
            Self::Frequency => &[("Hz", 1.0), ("kHz", 1e3), ("MHz", 1e6), ("GHz", 1e9)],
            Self::Flux => &[("uJy", 1e-6), ("mJy", 1e-3), ("Jy", 1.0)],
            Self::Time => &[("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)],
        }
    }
}

/// Parses `"160 uas"` into the SI value of its dimension (jansky for flux).
///
/// `place` names the setting in the error.
///
/// # Errors
/// A missing or unknown unit, or a number that cannot be read.
pub fn parse(text: &str, dimension: Dimension, place: &str) -> Result<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let names = || dimension.units().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (number, unit) = (number.trim(), unit.trim());
    if unit.is_empty() {
        return Err(Error::config(place, format!("`{text}` has no unit; write one of {}", names())));
    }
    let Some((_, factor)) = dimension.units().iter().find(|(name, _)| *name == unit) else {
        return Err(Error::config(place, format!("unknown unit `{unit}`; write one of {}", names())));
    };
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value * factor),
        _ => Err(Error::config(place, format!("`{number}` is not a number"))),
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $dimension:expr, $unit:literal, $factor:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
        pub struct $name(pub f64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} {}", shortest(self.0 / $factor), $unit)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                deserializer.deserialize_any(QuantityText($dimension)).map(Self)
            }
        }
    };
}

quantity!(
    /// An angle in radians, written with its unit in files (`160 uas`).
    Angle,
    Dimension::Angle,
    "uas",
    MICROARCSECOND
);
quantity!(
    /// A length in metres, written with its unit in files (`525 nm`).
    Length,
    Dimension::Length,
    "nm",
    1e-9
);
quantity!(
    /// A frequency in hertz, written with its unit in files (`230 GHz`).
    Frequency,
    Dimension::Frequency,
    "GHz",
    1e9
);
quantity!(
    /// A flux density in jansky, written with its unit in files (`0.6 Jy`).
    Flux,
    Dimension::Flux,
    "Jy",
    1.0
);
quantity!(
    /// A duration in seconds, written with its unit in files (`10 s`).
    Duration,
    Dimension::Time,
    "s",
    1.0
);

/// Reads a quantity from text; a bare number is refused with the units that would do.
struct QuantityText(Dimension);

impl serde::de::Visitor<'_> for QuantityText {
    type Value = f64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.units().iter().map(|(name, _)| *name).collect();
        write!(f, "a number with its unit ({})", names.join(", "))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<f64, E> {
        parse(text, self.0, "").map_err(|error| match error {
            Error::Config { problem, .. } => E::custom(problem),
            other => E::custom(other),
        })
    }
}

/// The value without the last digits, which unit conversion makes up.
fn shortest(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}

/// Brightness temperature in kelvin of an intensity in Jy per steradian: c^2 I / (2 k nu^2).
pub fn brightness_temperature(jansky_per_steradian: f64, frequency_hz: f64) -> f64 {
    SPEED_OF_LIGHT.powi(2) * jansky_per_steradian * JANSKY / (2.0 * BOLTZMANN * frequency_hz.powi(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_need_their_unit() {
        let angle = parse("160 uas", Dimension::Angle, "fov").unwrap();
        assert!((angle / MICROARCSECOND - 160.0).abs() < 1e-9);
        assert!((parse("1.5e2GHz", Dimension::Frequency, "f").unwrap() - 1.5e11).abs() < 1.0);
        let message = parse("160", Dimension::Angle, "grid.fov").unwrap_err().to_string();
        assert!(message.contains("grid.fov") && message.contains("uas"), "{message}");
        assert!(parse("160 parsec", Dimension::Angle, "fov").is_err());
    }

    #[test]
    fn quantities_pass_through_files_and_bare_numbers_are_refused() {
        let angle: Angle = serde_json::from_str("\"0.16 mas\"").unwrap();
        assert_eq!(serde_json::to_string(&angle).unwrap(), "\"160 uas\"");
        let message = serde_json::from_str::<Angle>("160").unwrap_err().to_string();
        assert!(message.contains("uas"), "{message}");
    }
}
