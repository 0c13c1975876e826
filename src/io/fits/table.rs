//! Binary tables: rows read by cfitsio, columns found by name and decoded by TFORM.

use super::{FitsReader, Hdu, Header};
use crate::{Error, Result};

/// A column of a binary table.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    /// Type letter of TFORM.
    letter: char,
    /// Values per row; may be zero.
    repeat: usize,
    /// First byte within a row.
    start: usize,
    scale: f64,
    zero: f64,
}

/// A binary table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its keywords.
    pub header: Header,
    /// Its place in the file, for messages.
    pub place: String,
    columns: Vec<Column>,
    row_bytes: usize,
    rows: Vec<u8>,
}

impl Table {
    /// Reads the table in `unit`.
    ///
    /// # Errors
    /// Not a binary table, or columns that do not fit its rows.
    pub fn read(file: &mut FitsReader, unit: &Hdu) -> Result<Self> {
        let wrong = |problem: &str| Error::format(file.path(), unit.place(), problem);
        let header = unit.header.clone();
        if header.text("XTENSION") != Some("BINTABLE") || header.integer("BITPIX") != Some(8) {
            return Err(wrong("is not a binary table; write the file again with a standard UVFITS writer"));
        }
        let [row_bytes, rows] = unit.axes[..] else {
            return Err(wrong("a binary table has two axes; the header is damaged"));
        };
        let bytes = row_bytes.checked_mul(rows).filter(|bytes| *bytes <= unit.bytes);
        let bytes = bytes.ok_or_else(|| wrong("GCOUNT must be 1; the header is damaged"))? as usize;
        let row_bytes = row_bytes as usize;
        let columns = columns(&header)
            .filter(|columns| columns.last().is_none_or(|last| last.start + last.bytes() <= row_bytes));
        let columns = columns.ok_or_else(|| wrong("TFORMn do not fit NAXIS1; the header is damaged"))?;
        let rows = file.table_bytes(unit.number, bytes)?;
        Ok(Self { header, place: unit.place(), columns, row_bytes, rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len().checked_div(self.row_bytes).unwrap_or(0)
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Text of a column, one per row, without trailing spaces and zeros; `None` without such a column.
    pub fn text(&self, name: &str) -> Option<Vec<String>> {
        let column = self.column(name)?;
        let clean = |cell: &[u8]| {
            let end = cell.iter().position(|byte| *byte == 0).unwrap_or(cell.len());
            String::from_utf8_lossy(&cell[..end]).trim().to_string()
        };
        (column.letter == 'A').then(|| self.cells(column).map(clean).collect())
    }

    /// Numbers of a column, `[row][value]`; `None` without such a numeric column.
    pub fn numbers(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        let column = self.column(name)?;
        let decode = decoder(column.letter)?;
        let row = |cell: &[u8]| {
            cell.chunks(width(column.letter))
                .map(|bytes| decode(bytes) * column.scale + column.zero)
                .collect()
        };
        Some(self.cells(column).map(row).collect())
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn cells<'a>(&'a self, column: &'a Column) -> impl Iterator<Item = &'a [u8]> {
        let range = column.start..column.start + column.bytes();
        self.rows.chunks_exact(self.row_bytes.max(1)).map(move |row| &row[range.clone()])
    }
}

impl Column {
    fn bytes(&self) -> usize {
        match self.letter {
            'X' => self.repeat.div_ceil(8),
            letter => self.repeat * width(letter),
        }
    }
}

/// Columns by TTYPEn and TFORMn; `None` for a header that contradicts itself.
fn columns(header: &Header) -> Option<Vec<Column>> {
    let count = usize::try_from(header.integer("TFIELDS")?).ok().filter(|count| *count <= 999)?;
    let mut start: usize = 0;
    (1..=count)
        .map(|index| {
            let form = header.text(&format!("TFORM{index}"))?.trim();
            let digits = form.find(|character: char| !character.is_ascii_digit())?;
            let repeat = if digits == 0 { 1 } else { form[..digits].parse::<u32>().ok()? as usize };
            let letter = form[digits..].chars().next()?.to_ascii_uppercase();
            let name = header.text(&format!("TTYPE{index}")).unwrap_or_default().trim().to_ascii_uppercase();
            let scale = header.number(&format!("TSCAL{index}")).unwrap_or(1.0);
            let zero = header.number(&format!("TZERO{index}")).unwrap_or(0.0);
            let column = Column { name, letter, repeat, start, scale, zero };
            (width(letter) > 0).then_some(())?;
            start = start.checked_add(column.bytes())?;
            Some(column)
        })
        .collect()
}

/// Bytes of one value of a TFORM letter; 0 for a letter that FITS does not know.
fn width(letter: char) -> usize {
    match letter {
        'L' | 'X' | 'B' | 'A' => 1,
        'I' => 2,
        'J' | 'E' => 4,
        'K' | 'D' | 'C' | 'P' => 8,
        'M' | 'Q' => 16,
        _ => 0,
    }
}

fn decoder(letter: char) -> Option<fn(&[u8]) -> f64> {
    macro_rules! big_endian {
        ($number:ty) => {
            |bytes| bytes.try_into().map_or(f64::NAN, |bytes| <$number>::from_be_bytes(bytes) as f64)
        };
    }
    match letter {
        'B' => Some(big_endian!(u8)),
        'I' => Some(big_endian!(i16)),
        'J' => Some(big_endian!(i32)),
        'K' => Some(big_endian!(i64)),
        'E' => Some(big_endian!(f32)),
        'D' => Some(big_endian!(f64)),
        _ => None,
    }
}
