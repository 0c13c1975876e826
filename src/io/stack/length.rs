//! Units of length as microscope files write them.

/// Metres in one `unit`; `None` for pixels and for units that are not known.
pub(super) fn metres(unit: &str) -> Option<f64> {
    // ImageJ writes the micro sign as an escape; files use both the micro sign and the Greek letter.
    let unit = unit.trim().replace("\\u00B5", "u").replace(['\u{b5}', '\u{3bc}'], "u").to_lowercase();
    Some(match unit.as_str() {
        "pm" => 1e-12,
        "\u{e5}" | "a" | "angstrom" => 1e-10,
        "nm" | "nanometer" | "nanometre" | "nanometers" => 1e-9,
        "um" | "micron" | "microns" | "micrometer" | "micrometre" | "micrometers" => 1e-6,
        "mm" | "millimeter" | "millimetre" | "millimeters" => 1e-3,
        "cm" | "centimeter" | "centimetre" => 1e-2,
        "in" | "inch" | "inches" => 0.0254,
        "m" | "meter" | "metre" => 1.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::metres;

    #[test]
    fn micrometres_have_many_names() {
        for name in ["um", "\u{b5}m", "\u{3bc}m", "\\u00B5m", "micron", " Micrometer "] {
            assert_eq!(metres(name), Some(1e-6), "{name}");
        }
        assert_eq!(metres("pixel"), None);
        assert_eq!(metres(""), None);
        assert_eq!(metres("\u{c5}"), Some(1e-10));
    }
}
