//! Round tick positions and their labels.

/// Major and minor ticks of an axis, with the labels of the major ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ticks {
    pub(crate) major: Vec<(f64, String)>,
    pub(crate) minor: Vec<f64>,
}

/// Ticks at about `count` multiples of 1, 2 or 5 times a power of ten inside a range.
pub(crate) fn linear([from, to]: [f64; 2], count: usize) -> Ticks {
    let (low, high) = (from.min(to), from.max(to));
    let step = round_step(0.75 * (high - low) / count.max(1) as f64);
    if !(step.is_finite() && step > 0.0) {
        return Ticks::default();
    }
    multiples(low, high, step)
}

/// Ticks at the multiples of `step` inside a range.
pub(crate) fn multiples(low: f64, high: f64, step: f64) -> Ticks {
    let mantissa = step / 10f64.powf(step.log10().floor());
    let parts = match mantissa.round() as i64 {
        2 => 4,
        3 | 9 => 3,
        _ => 5,
    };
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    let decimals = if (step * 10f64.powi(decimals as i32)).fract() > 1e-6 { decimals + 1 } else { decimals };
    let place = |k: i64, step: f64| k as f64 * step;
    let within = |step: f64| ((low / step - 1e-9).ceil() as i64)..=((high / step + 1e-9).floor() as i64);
    let small = step / parts as f64;
    Ticks {
        major: within(step).map(|k| (place(k, step), number(place(k, step), decimals))).collect(),
        minor: within(small).filter(|k| k % parts != 0).map(|k| place(k, small)).collect(),
    }
}

/// Ticks at the powers of ten inside a positive range, or at 1, 2, 5 times them if there are fewer than two.
pub(crate) fn logarithmic([from, to]: [f64; 2]) -> Ticks {
    let (low, high) = (from.min(to), from.max(to));
    if !(low > 0.0 && high.is_finite()) {
        return Ticks::default();
    }
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let inside = |value: &f64| (low * 0.999_999..=high * 1.000_001).contains(value);
    let at = |factors: &[i32]| -> Vec<f64> {
        let all = decades.clone().flat_map(|d| factors.iter().map(move |f| f64::from(*f) * 10f64.powi(d)));
        all.filter(inside).collect()
    };
    let tens = at(&[1]);
    let major = if tens.len() < 2 { at(&[1, 2, 5]) } else { tens };
    let minor = at(&[2, 3, 4, 5, 6, 7, 8, 9]);
    let minor = minor.into_iter().filter(|value| !major.contains(value)).collect();
    let label = if major.iter().all(|value| (0.009..1100.0).contains(value)) { plain } else { power };
    Ticks { major: major.into_iter().map(|value| (value, label(value))).collect(), minor }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `value`.
pub(crate) fn round_step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    power * steps.into_iter().find(|step| step * power >= value * 0.999).unwrap_or(10.0)
}

/// A number with a true minus sign.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let is_zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    if is_zero { text.replace('-', "") } else { text.replace('-', "\u{2212}") }
}

/// A number of a logarithmic axis near one.
fn plain(value: f64) -> String {
    number(value, (-(value * 1.001).log10().floor()).max(0.0) as usize)
}

/// A number of a logarithmic axis as a power of ten with an integer factor.
fn power(value: f64) -> String {
    let exponent = (value * 1.001).log10().floor() as i32;
    let factor = (value / 10f64.powi(exponent)).round() as i32;
    let power = format!("10{}", superscript(exponent));
    if factor == 1 { power } else { format!("{factor}×{power}") }
}

/// An integer in superscript digits.
pub(crate) fn superscript(value: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised = |c: char| c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]);
    value.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &Ticks) -> Vec<&str> {
        ticks.major.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&linear([-0.31, 0.3], 4)), ["−0.2", "0.0", "0.2"]);
        assert_eq!(labels(&linear([80.0, -80.0], 4)), ["−50", "0", "50"]);
        assert_eq!(labels(&linear([0.0, 9.1], 5)), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(&logarithmic([0.004, 20.0])), ["0.01", "0.1", "1", "10"]);
        assert_eq!(labels(&logarithmic([0.0009, 0.2])), ["10⁻³", "10⁻²", "10⁻¹"]);
        assert_eq!(labels(&logarithmic([2e-6, 3e-4])), ["10⁻⁵", "10⁻⁴"]);
        assert_eq!(labels(&logarithmic([0.9, 7.0])), ["1", "2", "5"]);
        assert_eq!(linear([1.0, 1.0], 4), Ticks::default());
    }
}
