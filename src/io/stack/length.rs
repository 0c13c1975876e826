//! Units of length as microscope files write them.

/// How many of `unit` are a metre; `None` for pixels and for units that are not known.
///
/// Lengths are divided by it, which is exact to the last bit where multiplying with 1e-9 is not.
pub(super) fn per_metre(unit: &str) -> Option<f64> {
    // ImageJ writes the micro sign as an escape; files use both the micro sign and the Greek letter.
    let unit = unit.trim().replace("\\u00B5", "u").replace(['\u{b5}', '\u{3bc}'], "u").to_lowercase();
    Some(match unit.as_str() {
        "pm" => 1e12,
        "\u{e5}" | "a" | "angstrom" => 1e10,
        "nm" | "nanometer" | "nanometre" | "nanometers" => 1e9,
        "um" | "micron" | "microns" | "micrometer" | "micrometre" | "micrometers" => 1e6,
        "mm" | "millimeter" | "millimetre" | "millimeters" => 1e3,
        "cm" | "centimeter" | "centimetre" => 1e2,
        "in" | "inch" | "inches" => 1.0 / 0.0254,
        "m" | "meter" | "metre" => 1.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::per_metre;

    #[test]
    fn micrometres_have_many_names() {
        for name in ["um", "\u{b5}m", "\u{3bc}m", "\\u00B5m", "micron", " Micrometer "] {
            assert_eq!(per_metre(name), Some(1e6), "{name}");
        }
        assert_eq!(per_metre("pixel"), None);
        assert_eq!(per_metre(""), None);
        assert_eq!(per_metre("\u{c5}"), Some(1e10));
    }
}
