//! UVFITS files made byte by byte, without cfitsio and without the crate's writer, so that every quirk can be set.

use std::path::PathBuf;

use antumbra::instrument::vlbi::Observation;
use antumbra::io::uvfits::read_observation;

pub const FREQUENCY: f64 = 230e9;
/// 5 April 2017, 0h UTC.
pub const JULIAN_DATE: f64 = 2_457_848.5;

/// One axis of the visibility array; an empty type leaves CTYPE out.
#[derive(Clone)]
pub struct RawAxis {
    pub kind: &'static str,
    pub length: usize,
    pub value: f64,
    pub step: f64,
}

#[derive(Clone)]
pub struct RawTable {
    pub name: &'static str,
    pub version: i64,
    pub cards: Vec<(String, String)>,
    /// Name, TFORM, big-endian cells.
    pub columns: Vec<(&'static str, String, Vec<Vec<u8>>)>,
}

/// A random-groups file.
#[derive(Clone)]
pub struct RawUvfits {
    pub bitpix: i64,
    pub axes: Vec<RawAxis>,
    /// PTYPE, PSCAL, PZERO.
    pub parameters: Vec<(&'static str, f64, f64)>,
    /// Physical parameters of each group.
    pub groups: Vec<Vec<f64>>,
    /// Real part, imaginary part and weight at (group, IF, channel, hand), as stored.
    pub visibility: fn(usize, usize, usize, usize) -> [f64; 3],
    /// Further keywords of the primary header.
    pub cards: Vec<(String, String)>,
    pub tables: Vec<RawTable>,
}

pub fn card(key: &str, value: impl ToString) -> (String, String) {
    (key.to_string(), value.to_string())
}

pub fn axis(kind: &'static str, length: usize, value: f64, step: f64) -> RawAxis {
    RawAxis { kind, length, value, step }
}

pub fn integers(values: &[i32]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.to_be_bytes().to_vec()).collect()
}

/// Rows of doubles.
pub fn doubles(rows: &[&[f64]]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row.iter().flat_map(|value| value.to_be_bytes()).collect()).collect()
}

/// An antenna table of stations (code, number), a kilometre apart from each other.
pub fn antennas(version: i64, stations: &[(&str, i32)]) -> RawTable {
    let text = |text: &str| format!("{text:<8}").into_bytes();
    let positions: Vec<[f64; 3]> =
        stations.iter().map(|(_, number)| [1000.0 * f64::from(*number), 2000.0, 3000.0]).collect();
    let positions: Vec<&[f64]> = positions.iter().map(|position| position.as_slice()).collect();
    let numbers: Vec<i32> = stations.iter().map(|(_, number)| *number).collect();
    RawTable {
        name: "'AIPS AN '",
        version,
        cards: vec![card("FREQ", FREQUENCY), card("RDATE", "'2013-04-'"), card("FRAME", "'?????'")],
        columns: vec![
            ("ANNAME", "8A".into(), stations.iter().map(|(code, _)| text(code)).collect()),
            ("STABXYZ", "3D".into(), doubles(&positions)),
            ("ORBPARM", "0D".into(), vec![Vec::new(); stations.len()]),
            ("NOSTA", "1J".into(), integers(&numbers)),
        ],
    }
}

/// A frequency table of one setup.
pub fn frequencies(offsets: &[f64]) -> RawTable {
    RawTable {
        name: "'AIPS FQ'",
        version: 1,
        cards: vec![card("NO_IF", offsets.len())],
        columns: vec![
            ("FRQSEL", "1J".into(), integers(&[1])),
            ("IF FREQ", format!("{}D", offsets.len()), doubles(&[offsets])),
        ],
    }
}

/// Group number g holds (g + 1) + 0.5 i in both parallel hands with weight 4.
pub fn plain(group: usize, _: usize, _: usize, hand: usize) -> [f64; 3] {
    if hand < 2 { [group as f64 + 1.0, 0.5, 4.0] } else { [0.0, 0.0, 0.0] }
}

impl RawUvfits {
    /// Stations AA, AP, LM numbered 1, 2, 5; two times; at each the baselines AA-AP, AA-LM, AP-LM.
    pub fn example() -> Self {
        let mut groups = Vec::new();
        for time in 0..2 {
            for baseline in [256 + 2, 256 + 5, 2 * 256 + 5] {
                let u = 1e-3 * (groups.len() + 1) as f64;
                groups.push(vec![
                    u,
                    -2.0 * u,
                    0.0,
                    f64::from(baseline),
                    JULIAN_DATE,
                    0.25 + f64::from(time) / 1024.0,
                ]);
            }
        }
        let names = ["UU---SIN", "VV---SIN", "WW---SIN", "BASELINE", "DATE", "DATE"];
        Self {
            bitpix: -32,
            axes: vec![
                axis("COMPLEX", 3, 1.0, 1.0),
                axis("STOKES", 4, -1.0, -1.0),
                axis("FREQ", 1, FREQUENCY, 2e9),
                axis("IF", 1, 1.0, 1.0),
                axis("RA", 1, 187.7, 1.0),
                axis("DEC", 1, 12.4, 1.0),
            ],
            parameters: names.map(|name| (name, 1.0, 0.0)).to_vec(),
            groups,
            visibility: plain,
            cards: vec![card("OBJECT", "'M87     '"), card("EQUINOX", "'J2000   '"), card("BSZERO", 0.0)],
            tables: vec![antennas(1, &[("AA", 1), ("AP", 2), ("LM", 5)]), frequencies(&[0.0])],
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut cards =
            vec![card("SIMPLE", "T"), card("BITPIX", self.bitpix), card("NAXIS", self.axes.len() + 1)];
        cards.push(card("NAXIS1", 0));
        cards.extend(
            self.axes.iter().enumerate().map(|(i, axis)| card(&format!("NAXIS{}", i + 2), axis.length)),
        );
        cards.extend([card("EXTEND", "T"), card("GROUPS", "T"), card("PCOUNT", self.parameters.len())]);
        cards.push(card("GCOUNT", self.groups.len()));
        for (i, axis) in self.axes.iter().enumerate() {
            if !axis.kind.is_empty() {
                cards.push(card(&format!("CTYPE{}", i + 2), format!("'{:<8}'", axis.kind)));
            }
            cards.push(card(&format!("CRVAL{}", i + 2), format!("{:E}", axis.value)));
            cards.push(card(&format!("CDELT{}", i + 2), format!("{:E}", axis.step)));
        }
        for (i, (name, scale, zero)) in self.parameters.iter().enumerate() {
            cards.push(card(&format!("PTYPE{}", i + 1), format!("'{name:<8}'")));
            cards.push(card(&format!("PSCAL{}", i + 1), format!("{scale:E}")));
            cards.push(card(&format!("PZERO{}", i + 1), format!("{zero:E}")));
        }
        cards.extend(self.cards.clone());
        let mut bytes = header(&cards);
        for (group, parameters) in self.groups.iter().enumerate() {
            for (value, (_, scale, zero)) in parameters.iter().zip(&self.parameters) {
                self.append((value - zero) / scale, &mut bytes);
            }
            self.array(group).into_iter().for_each(|value| self.append(value, &mut bytes));
        }
        pad(&mut bytes, 0);
        self.tables.iter().for_each(|table| bytes.extend(table.bytes()));
        bytes
    }

    /// Where the groups begin.
    pub fn header_length(&self) -> usize {
        let end = format!("{:<80}", "END").into_bytes();
        let place = self.bytes().windows(80).position(|window| window == end).unwrap();
        (place + 80).next_multiple_of(2880)
    }

    /// Writes the file into a fresh folder and reads it.
    pub fn read(&self) -> antumbra::Result<Observation> {
        read_bytes(&self.bytes())
    }

    fn append(&self, value: f64, bytes: &mut Vec<u8>) {
        match self.bitpix {
            16 => bytes.extend((value.round() as i16).to_be_bytes()),
            32 => bytes.extend((value.round() as i32).to_be_bytes()),
            -64 => bytes.extend(value.to_be_bytes()),
            _ => bytes.extend((value as f32).to_be_bytes()),
        }
    }

    /// The array of one group in the order of the axes.
    fn array(&self, group: usize) -> Vec<f64> {
        let length = self.axes.iter().map(|axis| axis.length).product();
        let element = |flat: usize| {
            let index = |kind: &str| {
                let Some(position) = self.axes.iter().position(|axis| axis.kind == kind) else { return 0 };
                let before: usize = self.axes[..position].iter().map(|axis| axis.length).product();
                flat / before % self.axes[position].length
            };
            (self.visibility)(group, index("IF"), index("FREQ"), index("STOKES"))[index("COMPLEX")]
        };
        (0..length).map(element).collect()
    }
}

/// Writes bytes into a fresh folder and reads them as UVFITS.
pub fn read_bytes(bytes: &[u8]) -> antumbra::Result<Observation> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("data.uvfits");
    std::fs::write(&path, bytes).unwrap();
    read_observation(&path)
}

impl RawTable {
    fn bytes(&self) -> Vec<u8> {
        let rows = self.columns[0].2.len();
        let width: usize = self.columns.iter().map(|(_, _, cells)| cells.first().map_or(0, Vec::len)).sum();
        let mut cards = vec![card("XTENSION", "'BINTABLE'"), card("BITPIX", 8), card("NAXIS", 2)];
        cards.extend([card("NAXIS1", width), card("NAXIS2", rows), card("PCOUNT", 0), card("GCOUNT", 1)]);
        cards.push(card("TFIELDS", self.columns.len()));
        for (i, (name, form, _)) in self.columns.iter().enumerate() {
            cards.push(card(&format!("TTYPE{}", i + 1), format!("'{name:<8}'")));
            cards.push(card(&format!("TFORM{}", i + 1), format!("'{form:<8}'")));
        }
        cards.push(card("EXTNAME", self.name));
        cards.push(card("EXTVER", self.version));
        cards.extend(self.cards.clone());
        let mut bytes = header(&cards);
        (0..rows).for_each(|row| self.columns.iter().for_each(|(_, _, cells)| bytes.extend(&cells[row])));
        pad(&mut bytes, 0);
        bytes
    }
}

pub fn header(cards: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in cards {
        let line = format!("{key:<8}= {value:>20}");
        bytes.extend(format!("{line:<80}").into_bytes());
    }
    bytes.extend(format!("{:<80}", "END").into_bytes());
    pad(&mut bytes, b' ');
    bytes
}

fn pad(bytes: &mut Vec<u8>, with: u8) {
    bytes.resize(bytes.len().next_multiple_of(2880), with);
}
