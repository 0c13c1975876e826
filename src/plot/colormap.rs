//! Colour maps whose lightness rises evenly: a black-hole map and viridis.

use std::sync::LazyLock;

/// A map from `[0, 1]` to colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colormap {
    /// Black, dark red, orange, yellow, white: the hues of the EHT's `afmhot` with even steps in lightness.
    Heat,
    /// Viridis of matplotlib (CC0).
    Viridis,
    /// Black to white.
    Grey,
}

impl Colormap {
    /// Colour of a value; values outside `[0, 1]` and NaN get the nearest end.
    pub fn colour(self, value: f64) -> [u8; 3] {
        let t = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        match self {
            Self::Heat => HEAT[(t * (HEAT_COLOURS - 1) as f64).round() as usize],
            Self::Viridis => viridis(t),
            Self::Grey => [(255.0 * t).round() as u8; 3],
        }
    }
}

/// Number of colours of the heat map.
const HEAT_COLOURS: usize = 1024;
static HEAT: LazyLock<Vec<[u8; 3]>> =
    LazyLock::new(|| (0..HEAT_COLOURS).map(|k| heat(k as f64 / (HEAT_COLOURS - 1) as f64)).collect());

/// CIE lightness 100 t along a path of hues from red to yellow, as vivid as sRGB allows.
fn heat(t: f64) -> [u8; 3] {
    let hue = 27.0 + 83.0 * t.powf(1.6);
    oklch(lightness_of_grey(t), 0.99, hue)
}

/// OKLab lightness of the grey whose CIE lightness L* is 100 `t`: both are functions of its luminance alone.
fn lightness_of_grey(t: f64) -> f64 {
    /// Below this the CIE scale is linear in luminance.
    const LINEAR_BELOW: f64 = 0.08;
    if t > LINEAR_BELOW { (100.0 * t + 16.0) / 116.0 } else { (100.0 * t / 903.3).cbrt() }
}

fn viridis(t: f64) -> [u8; 3] {
    let place = t * (VIRIDIS.len() - 1) as f64;
    let low = VIRIDIS[place.floor() as usize];
    let high = VIRIDIS[place.ceil() as usize];
    std::array::from_fn(|c| {
        let (low, high) = (f64::from(low[c]), f64::from(high[c]));
        (low + (high - low) * place.fract()).round() as u8
    })
}

/// The sRGB colour of an OKLCH lightness (0 to 1) and hue (degrees) whose chroma is a fraction of the
/// largest that sRGB can show there.
pub(crate) fn oklch(lightness: f64, vividness: f64, hue_deg: f64) -> [u8; 3] {
    const LARGEST_CHROMA: f64 = 0.4;
    let (sin, cos) = hue_deg.to_radians().sin_cos();
    let linear = |chroma: f64| linear_rgb(lightness, chroma * cos, chroma * sin);
    let shown = |chroma: f64| linear(chroma).iter().all(|value| (-1e-9..=1.0 + 1e-9).contains(value));
    let (mut low, mut high) = (0.0, LARGEST_CHROMA);
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if shown(middle) { low = middle } else { high = middle }
    }
    linear(vividness * low).map(encode)
}

/// OKLab to linear sRGB (Ottosson 2020, "A perceptual color space for image processing").
fn linear_rgb(lightness: f64, a: f64, b: f64) -> [f64; 3] {
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
}

/// Linear light to an 8-bit sRGB value (IEC 61966-2-1).
fn encode(linear: f64) -> u8 {
    let value = linear.clamp(0.0, 1.0);
    let encoded = if value <= 0.003_130_8 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 };
    (255.0 * encoded).round() as u8
}

/// Every fifth entry of matplotlib's viridis, dedicated to the public domain (CC0) by its authors.
const VIRIDIS: [[u8; 3]; 52] = [
    [68, 1, 84],
    [70, 8, 92],
    [71, 16, 99],
    [72, 23, 105],
    [72, 29, 111],
    [72, 36, 117],
    [71, 42, 122],
    [70, 48, 126],
    [69, 55, 129],
    [67, 61, 132],
    [65, 66, 135],
    [63, 72, 137],
    [61, 78, 138],
    [58, 83, 139],
    [56, 89, 140],
    [53, 94, 141],
    [51, 99, 141],
    [49, 104, 142],
    [46, 109, 142],
    [44, 113, 142],
    [42, 118, 142],
    [41, 123, 142],
    [39, 128, 142],
    [37, 132, 142],
    [35, 137, 142],
    [33, 142, 141],
    [32, 146, 140],
    [31, 151, 139],
    [30, 156, 137],
    [31, 161, 136],
    [33, 165, 133],
    [36, 170, 131],
    [40, 174, 128],
    [46, 179, 124],
    [53, 183, 121],
    [61, 188, 116],
    [70, 192, 111],
    [80, 196, 106],
    [90, 200, 100],
    [101, 203, 94],
    [112, 207, 87],
    [124, 210, 80],
    [137, 213, 72],
    [149, 216, 64],
    [162, 218, 55],
    [176, 221, 47],
    [189, 223, 38],
    [202, 225, 31],
    [216, 226, 25],
    [229, 228, 25],
    [241, 229, 29],
    [253, 231, 37],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// CIE lightness L* of an sRGB colour.
    fn lightness([r, g, b]: [u8; 3]) -> f64 {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let y = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        if y > 0.008_856 { 116.0 * y.cbrt() - 16.0 } else { 903.3 * y }
    }

    #[test]
    fn lightness_rises_evenly() {
        for map in [Colormap::Heat, Colormap::Viridis] {
            let levels: Vec<f64> = (0..=64).map(|k| lightness(map.colour(f64::from(k) / 64.0))).collect();
            let steps: Vec<f64> = levels.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = (levels[64] - levels[0]) / 64.0;
            assert!(steps.iter().all(|step| *step > 0.0), "{map:?} {steps:?}");
            assert!(steps[8..].iter().all(|step| (step / mean - 1.0).abs() < 0.6), "{map:?} {steps:?}");
        }
    }

    #[test]
    fn the_ends_are_black_and_white_and_nothing_lies_beyond() {
        assert_eq!(Colormap::Heat.colour(-1.0), [0, 0, 0]);
        assert_eq!(Colormap::Heat.colour(f64::NAN), [0, 0, 0]);
        assert_eq!(Colormap::Heat.colour(2.0), [255, 255, 255]);
        assert_eq!(Colormap::Viridis.colour(1.0), [253, 231, 37]);
    }
}
