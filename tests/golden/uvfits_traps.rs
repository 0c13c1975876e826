//! What UVFITS files in the wild do differently, each in a file made for it.

use antumbra::instrument::vlbi::{Observation, Visibility};

use super::raw_uvfits::*;

/// What a trap does to a plain file.
type Change = fn(&mut RawUvfits);
/// Real part, imaginary part and weight by the indices of a datum, the hand last.
type Values = fn(usize, usize, usize, usize) -> [f64; 3];

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-9), "{found} instead of {expected}");
}

/// The rows of [`RawUvfits::example`]: sigma of Stokes I is 0.5 / sqrt(2).
fn is_example(observation: &Observation) {
    let rows = &observation.visibilities;
    assert_eq!(rows.len(), 6);
    for (index, row) in rows.iter().enumerate() {
        let step = 1e-3 * (index + 1) as f64;
        close(row.u, step * FREQUENCY);
        close(row.v, -2.0 * step * FREQUENCY);
        close(row.value.re, index as f64 + 1.0);
        close(row.value.im, 0.5);
        close(row.sigma, 0.125_f64.sqrt());
        close(row.time, 21_600.0 + 84.375 * (index / 3) as f64);
    }
    let pairs: Vec<_> = rows.iter().map(|row| row.stations).collect();
    assert_eq!(pairs, [[0, 1], [0, 2], [1, 2], [0, 1], [0, 2], [1, 2]]);
    assert_eq!(observation.mjd, 57848.0);
}

fn example(change: impl Fn(&mut RawUvfits)) -> Observation {
    let mut raw = RawUvfits::example();
    change(&mut raw);
    raw.read().unwrap()
}

#[test]
fn a_plain_file_is_read() {
    let observation = example(|_| ());
    is_example(&observation);
    let codes: Vec<_> = observation.stations.iter().map(|station| station.code.as_str()).collect();
    assert_eq!(codes, ["AA", "AP", "LM"]);
    assert_eq!(observation.stations[2].position, [5000.0, 2000.0, 3000.0]);
    assert_eq!((observation.source.as_str(), observation.ra_deg), ("M87", 187.7));
    assert_eq!((observation.frequency_hz, observation.bandwidth_hz), (FREQUENCY, 2e9));
}

/// Each change leaves the physical content of the file as it was.
#[test]
fn other_ways_to_store_the_same_are_read_alike() {
    let changes: [(&str, Change); 19] = [
        ("no CTYPE for the IF axis", |raw| raw.axes[3].kind = ""),
        ("no IF axis", |raw| {
            raw.axes.remove(3);
        }),
        ("axes in another order", |raw| {
            raw.axes.swap(0, 2);
            raw.axes.swap(1, 3);
        }),
        ("u and v in wavelengths with PSCAL = 1/frequency", |raw| {
            (0..3).for_each(|index| raw.parameters[index].1 = 1.0 / FREQUENCY);
        }),
        ("names UU and VV", |raw| (raw.parameters[0].0, raw.parameters[1].0) = ("UU", "VV")),
        ("names UU-- and VV--", |raw| (raw.parameters[0].0, raw.parameters[1].0) = ("UU--", "VV--")),
        ("no w", |raw| {
            raw.parameters.remove(2);
            raw.groups.iter_mut().for_each(|group| _ = group.remove(2));
        }),
        ("the date in PZERO and a raw fraction", |raw| raw.parameters[4].2 = JULIAN_DATE),
        ("one DATE with PZERO", |raw| {
            raw.parameters.remove(4);
            raw.parameters[4].2 = JULIAN_DATE;
            raw.groups.iter_mut().for_each(|group| group[4] += group.remove(5));
        }),
        ("a day too little in one DATE and PZERO = 1 in the other", |raw| {
            raw.parameters[5].2 = 1.0;
            raw.groups.iter_mut().for_each(|group| {
                group[4] -= 1.0;
                group[5] += 1.0;
            });
        }),
        ("the second DATE called _DATE", |raw| raw.parameters[5].0 = "_DATE"),
        ("double precision", |raw| raw.bitpix = -64),
        ("garbage in INTTIM", |raw| {
            raw.parameters.push(("INTTIM", 1.0, 0.0));
            raw.groups.iter_mut().for_each(|group| group.push(f64::NAN));
        }),
        ("baselines 2048 a + b + 65536", |raw| {
            raw.groups.iter_mut().for_each(|group| {
                let (a, b) = ((group[3] / 256.0).floor(), group[3] % 256.0);
                group[3] = 2048.0 * a + b + 65536.0;
            });
        }),
        ("ANTENNA1, ANTENNA2 and SUBARRAY", |raw| {
            raw.parameters[3].0 = "ANTENNA1";
            raw.parameters.extend([("ANTENNA2", 1.0, 0.0), ("SUBARRAY", 1.0, 0.0)]);
            raw.groups.iter_mut().for_each(|group| {
                let (a, b) = ((group[3] / 256.0).floor(), group[3] % 256.0);
                group[3] = a;
                group.extend([b, 1.0]);
            });
        }),
        ("rows out of order", |raw| {
            raw.visibility = |group, _, _, hand| plain(5 - group, 0, 0, hand);
            raw.groups.reverse();
        }),
        ("tables the other way round", |raw| raw.tables.reverse()),
        ("no frequency table", |raw| raw.tables.truncate(1)),
        ("stations of a baseline swapped", |raw| {
            raw.visibility = |group, _, _, hand| {
                let [re, im, weight] = plain(group, 0, 0, hand);
                [re, if group == 1 { -im } else { im }, weight]
            };
            let group = &mut raw.groups[1];
            (group[0], group[1], group[3]) = (-group[0], -group[1], f64::from(5 * 256 + 1));
        }),
    ];
    for (what, change) in changes {
        println!("{what}");
        is_example(&example(change));
    }
}

#[test]
fn integers_with_scales_are_read() {
    let observation = example(|raw| {
        raw.bitpix = 16;
        raw.cards.extend([card("BSCALE", 0.5), card("BZERO", 1.0)]);
        raw.visibility = |group, _, _, hand| plain(group, 0, 0, hand).map(|value| (value - 1.0) / 0.5);
        (0..2).for_each(|index| raw.parameters[index].1 = 1e-6);
        raw.parameters[4].2 = JULIAN_DATE;
        raw.parameters[5].1 = 1.0 / 1024.0;
    });
    is_example(&observation);
}

/// Reads one changed file with these visibilities and returns its first row.
fn first_row(
    change: fn(&mut RawUvfits),
    visibility: fn(usize, usize, usize, usize) -> [f64; 3],
) -> Visibility {
    let observation = example(|raw| {
        raw.visibility = visibility;
        change(raw);
    });
    observation.visibilities[0]
}

#[test]
fn hands_become_stokes_i() {
    // Both hands: the mean, with half the root of the summed variances.
    let both =
        first_row(|_| (), |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, 1.0], [9.0; 3], [9.0; 3]][hand]);
    close(both.value.re, 2.0);
    close(both.value.im, 1.0);
    close(both.sigma, (0.25_f64 + 1.0).sqrt() / 2.0);
    // One hand flagged in every way that files use: the other stands for I.
    let flagged: [Values; 6] = [
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, 0.0]][hand % 2],
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, -1.0]][hand % 2],
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, f64::NAN]][hand % 2],
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, f64::INFINITY]][hand % 2],
        |_, _, _, hand| [[1.0, 0.0, 4.0], [f64::NAN, 2.0, 4.0]][hand % 2],
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, f64::INFINITY, 4.0]][hand % 2],
    ];
    for visibility in flagged {
        let row = first_row(|_| (), visibility);
        close(row.value.re, 1.0);
        close(row.sigma, 0.5);
    }
    // Native Stokes I, with Q beside it.
    let native = first_row(
        |raw| raw.axes[1] = axis("STOKES", 2, 1.0, 1.0),
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, 1.0]][hand],
    );
    close(native.value.re, 1.0);
    close(native.sigma, 0.5);
    // Linear hands.
    let linear = first_row(
        |raw| raw.axes[1] = axis("STOKES", 4, -5.0, -1.0),
        |_, _, _, hand| [[1.0, 0.0, 4.0], [3.0, 2.0, 1.0], [9.0; 3], [9.0; 3]][hand],
    );
    close(linear.value.re, 2.0);
    // Counting upwards: LR, RL, LL, RR.
    let upwards = first_row(
        |raw| raw.axes[1] = axis("STOKES", 4, -4.0, 1.0),
        |_, _, _, hand| [[9.0; 3], [9.0; 3], [1.0, 0.0, 4.0], [3.0, 2.0, 1.0]][hand],
    );
    close(upwards.value.re, 2.0);
}

#[test]
fn every_if_and_channel_has_its_own_frequency() {
    // IF 0 with weight 1 at two channels, IF 1 with weight 3 in its first channel only.
    let row = first_row(
        |raw| {
            raw.axes[2] = axis("FREQ", 2, FREQUENCY, 1e9);
            raw.axes[3].length = 2;
            raw.tables[1] = frequencies(&[0.0, 8e9]);
        },
        |_, intermediate, channel, hand| match (intermediate, channel, hand) {
            (0, _, 0) => [1.0, 0.0, 1.0],
            (1, 0, 0) => [6.0, 0.0, 3.0],
            _ => [100.0, 100.0, 0.0],
        },
    );
    close(row.value.re, (1.0 + 1.0 + 18.0) / 5.0);
    close(row.sigma, 5_f64.sqrt().recip());
    close(row.u, 1e-3 * (FREQUENCY + (1e9 + 3.0 * 8e9) / 5.0));
}

#[test]
fn subarrays_have_antenna_tables_of_their_own() {
    let observation = example(|raw| {
        // Numbers of the second table mean other stations; AA is in both at the same place.
        let mut second = antennas(2, &[("PV", 2), ("AA", 1)]);
        second.columns[1].2[1] = doubles(&[&[1000.0, 2000.0, 3000.0]]).remove(0);
        raw.tables.push(second);
        raw.groups[0][3] += 0.01;
    });
    let codes: Vec<_> = observation.stations.iter().map(|station| station.code.as_str()).collect();
    assert_eq!(codes, ["AA", "AP", "LM", "PV"]);
    let pairs: Vec<_> = observation.visibilities.iter().take(3).map(|row| row.stations).collect();
    assert_eq!(pairs, [[0, 2], [0, 3], [1, 2]]);
}

#[test]
fn autocorrelations_repetitions_and_groups_without_data_are_left_out() {
    let observation = example(|raw| {
        raw.groups[1][3] = f64::from(2 * 256 + 2);
        raw.groups[4] = raw.groups[3].clone();
        raw.groups[5][0] = f64::NAN;
        raw.visibility =
            |group, _, _, hand| if group == 2 { [1.0, 1.0, -1.0] } else { plain(group, 0, 0, hand) };
    });
    let values: Vec<_> = observation.visibilities.iter().map(|row| row.value.re).collect();
    assert_eq!(values, [1.0, 4.0]);
}

#[test]
fn the_position_of_the_array_is_added_to_its_stations() {
    let observation =
        example(|raw| raw.tables[0].cards.extend([card("ARRAYX", -1e6), card("ARRAYZ", "2.0D3")]));
    assert_eq!(observation.stations[0].position, [-999_000.0, 2000.0, 5000.0]);
}

#[test]
fn zero_baselines_and_a_second_day_are_kept() {
    let observation = example(|raw| {
        (raw.groups[0][0], raw.groups[0][1]) = (0.0, 0.0);
        raw.groups.iter_mut().skip(3).for_each(|group| group[4] += 1.0);
    });
    assert_eq!((observation.visibilities[0].u, observation.visibilities[0].v), (0.0, 0.0));
    close(observation.visibilities[3].time, 86_400.0 + 21_600.0 + 84.375);
}
