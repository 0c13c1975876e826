//! The keywords of one FITS header.

/// Bytes of one header card.
const CARD: usize = 80;

/// Keywords and their values, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    cards: Vec<(String, String)>,
}

impl Header {
    /// Reads the cards of one 2880-byte block; true when the block holds the END card.
    pub(super) fn append(&mut self, block: &[u8]) -> bool {
        for card in block.chunks(CARD) {
            let key = String::from_utf8_lossy(&card[..card.len().min(8)]).trim().to_ascii_uppercase();
            if key == "END" {
                return true;
            }
            if card.get(8) == Some(&b'=') {
                self.cards.push((key, value(&String::from_utf8_lossy(&card[9..]))));
            }
        }
        false
    }

    /// Value of a keyword as text without quotes and trailing spaces.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.cards.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Value of a keyword as a finite number; Fortran's `D` exponents are understood.
    pub fn number(&self, key: &str) -> Option<f64> {
        let text = self.text(key)?.replace(['D', 'd'], "E");
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Value of a keyword as an integer; `8.0` counts as 8.
    pub fn integer(&self, key: &str) -> Option<i64> {
        let text = self.text(key)?;
        text.parse().ok().or_else(|| {
            let number = self.number(key)?;
            (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
        })
    }

    /// Value of a logical keyword.
    pub fn logical(&self, key: &str) -> Option<bool> {
        match self.text(key)? {
            "T" => Some(true),
            "F" => Some(false),
            _ => None,
        }
    }
}

/// The value field of a card: a quoted string with `''` for a quote, or everything up to the comment.
fn value(field: &str) -> String {
    let field = field.trim();
    let Some(quoted) = field.strip_prefix('\'') else {
        return field.split('/').next().unwrap_or_default().trim().to_string();
    };
    let mut text = String::new();
    let mut characters = quoted.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\'' && characters.next_if_eq(&'\'').is_none() {
            break;
        }
        text.push(character);
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cards: &[&str]) -> Header {
        let block: String = cards.iter().map(|card| format!("{card:80}")).collect();
        let mut header = Header::default();
        header.append(block.as_bytes());
        header
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let header = header(&[
            "OBJECT  = 'O''Hara / 3'         / a comment",
            "CRVAL4  =       2.2707D+11 / Hz",
            "EQUINOX = 'J2000   '",
            "GROUPS  =                    T /",
            "NAXIS   =                  7.0",
            "END",
            "AFTER   =                    1",
        ]);
        assert_eq!(header.text("OBJECT"), Some("O'Hara / 3"));
        assert_eq!(header.number("CRVAL4"), Some(2.2707e11));
        assert_eq!(header.number("EQUINOX"), None);
        assert_eq!(header.logical("GROUPS"), Some(true));
        assert_eq!(header.integer("NAXIS"), Some(7));
        assert_eq!(header.text("AFTER"), None);
    }
}
