//! Calendar dates and sidereal time of modified Julian dates.

/// `2017-04-05` for a modified Julian date.
pub fn calendar_date(mjd: f64) -> String {
    // Days since 1 March of year 0 of the Gregorian calendar, counted in cycles of 400 years.
    const CYCLE: i64 = 146_097;
    let days = mjd.floor() as i64 + 678_881;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day_of_month:02}", year + 400 * cycle + later)
}

/// Greenwich mean sidereal time at 0h UT of a date, degrees (IAU 1982).
pub(super) fn sidereal_degrees(mjd: f64) -> f64 {
    let centuries = (mjd.floor() - 51_544.5) / 36_525.0;
    let degrees = 100.460_618_375 + centuries * (36_000.770_053_608_336 + 0.000_387_933 * centuries);
    degrees.rem_euclid(360.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_sidereal_time_agree_with_the_header_of_the_eht_data() {
        assert_eq!(calendar_date(57848.0), "2017-04-05");
        assert_eq!(calendar_date(51544.9), "2000-01-01");
        assert_eq!(calendar_date(51603.0), "2000-02-29");
        assert_eq!(calendar_date(58483.0), "2018-12-31");
        // GSTIA0 of day 095 is the apparent sidereal time; mean time is within 20 arcsec of it.
        assert!((sidereal_degrees(57848.0) - 193.488_499_492_922_3).abs() < 20.0 / 3600.0);
    }
}
