//! Damaged and foreign files: an error that names the file, the place and the remedy; never a panic.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::raw_uvfits::*;

type Change = fn(&mut RawUvfits);

/// The message for these bytes, which must name the file.
fn refusal(bytes: &[u8]) -> String {
    let message = read_bytes(bytes).expect_err("the file must be refused").to_string();
    assert!(message.contains("data.uvfits"), "{message}");
    message
}

fn refused(what: &str, bytes: &[u8], words: &[&str]) {
    let message = refusal(bytes);
    for word in words {
        assert!(message.contains(word), "{what}: `{word}` is not in: {message}");
    }
}

/// The example's bytes with one text replaced by another of the same length.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = RawUvfits::example().bytes();
    let place =
        bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("text to replace");
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn files_of_other_kinds_are_named() {
    refused("nothing", b"", &["empty"]);
    refused("text", b"time,u,v\n1,2,3\n", &["not a FITS file"]);
    refused("gzip", &[0x1f, 0x8b, 8, 0, 0], &["gunzip"]);
    refused("zeros", &[0; 6000], &["not a FITS file"]);
    let swapped = |width: usize| -> Vec<u8> {
        RawUvfits::example().bytes().chunks(width).flat_map(|word| word.iter().rev().copied()).collect()
    };
    refused("swapped pairs", &swapped(2), &["byte order"]);
    refused("swapped fours", &swapped(4), &["byte order"]);
    let image =
        [card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 2), card("NAXIS1", 4), card("NAXIS2", 4)];
    let mut bytes = header(&image);
    bytes.resize(bytes.len() + 2880, 0);
    refused("image", &bytes, &["image", "UVFITS"]);
    refused("no data", &header(&[card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 0)]), &["FITS-IDI"]);
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = RawUvfits::example().bytes();
    // Without its last table, that of the frequencies, the file is still whole.
    let last_table = bytes.windows(8).rposition(|window| window == b"XTENSION").unwrap();
    for length in (1..last_table).step_by(97).chain((2880..last_table).step_by(2880)) {
        assert!(read_bytes(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    assert!(read_bytes(&bytes[..last_table]).is_ok());
    refused("inside the header", &bytes[..2000], &["truncated"]);
    refused(
        "inside the groups",
        &bytes[..RawUvfits::example().header_length() + 100],
        &["HDU 1", "truncated"],
    );
    refused("inside a table's header", &bytes[..last_table + 1000], &["HDU 3", "truncated"]);
}

#[test]
fn lying_headers_are_refused_before_anything_is_allocated() {
    let terabytes = replaced("GCOUNT  =                    6", "GCOUNT  =       99999999999999");
    refused("GCOUNT", &terabytes, &["HDU 1", "truncated"]);
    let overflow = replaced("NAXIS2  =                    3", "NAXIS2  =  9223372036854775807");
    refused("NAXIS2", &overflow, &["damaged"]);
    refused(
        "BITPIX",
        &replaced("BITPIX  =                  -32", "BITPIX  =                   -3"),
        &["BITPIX"],
    );
    refused(
        "NAXIS",
        &replaced("NAXIS   =                    7", "NAXIS   =                 NaN "),
        &["NAXIS"],
    );
    refused(
        "negative",
        &replaced("GCOUNT  =                    6", "GCOUNT  =                   -6"),
        &["GCOUNT"],
    );
    refused(
        "no groups",
        &replaced("GCOUNT  =                    6", "GCOUNT  =                    0"),
        &["HDU 1", "GCOUNT"],
    );
    refused("NaN", &replaced("CRVAL4  =               2.3E11", "CRVAL4  =                  NaN"), &["FREQ"]);
    refused(
        "rows",
        &replaced("NAXIS2  =                    3 ", "NAXIS2  =                  300 "),
        &["HDU"],
    );
}

#[test]
fn what_cannot_be_understood_is_named_with_its_place() {
    let changes: [(&str, Change, &[&str]); 18] = [
        ("no antenna table", |raw| _ = raw.tables.remove(0), &["AIPS AN"]),
        ("an empty antenna table", |raw| raw.tables[0] = antennas(1, &[]), &["AIPS AN"]),
        ("unknown station", |raw| raw.groups[4][3] = 256.0 + 7.0, &["group 5", "station 7", "AIPS AN"]),
        ("unknown subarray", |raw| raw.groups[4][3] += 0.03, &["group 5", "subarray 4"]),
        ("negative baseline", |raw| raw.groups[0][3] = -5.0, &["group 1", "station"]),
        ("PSCAL 0", |raw| raw.parameters[1].1 = 0.0, &["PSCAL2"]),
        ("no date", |raw| raw.groups[0][4] = 0.0, &["group 1", "DATE"]),
        ("u in wavelengths", |raw| raw.groups[0][0] = 4e9, &["group 1", "PSCAL"]),
        ("no u", |raw| raw.parameters[0].0 = "XX", &["UU"]),
        ("no baseline", |raw| raw.parameters[3].0 = "XX", &["ANTENNA1"]),
        ("no STOKES axis", |raw| raw.axes[1] = axis("FOO", 1, 1.0, 1.0), &["STOKES"]),
        ("an axis without a name", |raw| raw.axes[3] = axis("", 2, 1.0, 1.0), &["CTYPE5"]),
        ("unknown hand", |raw| raw.axes[1].step = 1.0, &["STOKES"]),
        ("IFs without a table", |raw| (raw.axes[3].length, _) = (2, raw.tables.pop()), &["AIPS FQ"]),
        ("too few offsets", |raw| raw.axes[3].length = 2, &["AIPS FQ", "IF FREQ"]),
        ("no weights", |raw| raw.axes[0].length = 2, &["COMPLEX", "weight"]),
        ("all flagged", |raw| raw.visibility = |_, _, _, _| [1.0, 1.0, -1.0], &["unflagged"]),
        (
            "two sources",
            |raw| {
                raw.parameters.push(("SOURCE", 1.0, 0.0));
                raw.groups.iter_mut().enumerate().for_each(|(index, group)| group.push((index / 3) as f64));
            },
            &["group 4", "source"],
        ),
    ];
    for (what, change, words) in changes {
        let mut raw = RawUvfits::example();
        change(&mut raw);
        refused(what, &raw.bytes(), words);
    }
}

#[test]
fn little_endian_data_are_recognised() {
    let raw = RawUvfits::example();
    let mut bytes = raw.bytes();
    let start = raw.header_length();
    let end = start + raw.groups.len() * 18 * 4;
    bytes[start..end].chunks_mut(4).for_each(<[u8]>::reverse);
    refused("little-endian", &bytes, &["group 1", "byte order"]);
}

/// Random damage: the reader may succeed or refuse, but it returns.
#[test]
fn random_damage_never_panics() {
    let bytes = RawUvfits::example().bytes();
    let mut random = ChaCha8Rng::seed_from_u64(20170405);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..damaged.len());
            damaged[place] = random.random();
        }
        // Digits are where headers lie most credibly.
        for _ in 0..random.random_range(0..4) {
            let digits: Vec<_> =
                (0..damaged.len()).filter(|place| damaged[*place].is_ascii_digit()).collect();
            damaged[digits[random.random_range(0..digits.len())]] = random.random_range(b'0'..=b'9');
        }
        if random.random_bool(0.2) {
            damaged.truncate(random.random_range(0..bytes.len()));
        }
        if let Ok(observation) = read_bytes(&damaged) {
            assert!(observation.visibilities.iter().all(|row| row.sigma > 0.0 && row.u.is_finite()));
        }
    }
}
