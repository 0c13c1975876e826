//! How one value is stored, and its conversion to single precision.

use std::fmt;

/// The type of stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleType {
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit signed integer.
    I8,
    /// 16-bit unsigned integer.
    U16,
    /// 16-bit signed integer.
    I16,
    /// 32-bit unsigned integer.
    U32,
    /// 32-bit signed integer.
    I32,
    /// 64-bit unsigned integer.
    U64,
    /// 64-bit signed integer.
    I64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

/// Order of the bytes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

const NAMES: [(SampleType, &str, usize); 10] = [
    (SampleType::U8, "uint8", 1),
    (SampleType::I8, "int8", 1),
    (SampleType::U16, "uint16", 2),
    (SampleType::I16, "int16", 2),
    (SampleType::U32, "uint32", 4),
    (SampleType::I32, "int32", 4),
    (SampleType::U64, "uint64", 8),
    (SampleType::I64, "int64", 8),
    (SampleType::F32, "float32", 4),
    (SampleType::F64, "float64", 8),
];

impl SampleType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        NAMES.iter().find(|(sample, ..)| *sample == self).map_or(1, |(_, _, bytes)| *bytes)
    }

    /// NumPy's name of the type, for example `uint16`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(sample, ..)| *sample == self).map_or("", |(_, name, _)| name)
    }

    /// The type that a format describes by kind and bits.
    pub(super) fn of(kind: Kind, bits: usize) -> Option<Self> {
        let prefix = match kind {
            Kind::Unsigned => "uint",
            Kind::Signed => "int",
            Kind::Float => "float",
        };
        let name = format!("{prefix}{bits}");
        NAMES.iter().find(|(_, known, _)| *known == name).map(|(sample, ..)| *sample)
    }

    /// Converts `bytes` to `values`, as many as both hold.
    pub(super) fn convert(self, bytes: &[u8], order: ByteOrder, values: &mut [f32]) {
        macro_rules! convert {
            ($type:ty) => {
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<{ size_of::<$type>() }>().0) {
                    let stored = match order {
                        ByteOrder::Little => <$type>::from_le_bytes(*bytes),
                        ByteOrder::Big => <$type>::from_be_bytes(*bytes),
                    };
                    *value = stored as f32;
                }
            };
        }
        match self {
            Self::U8 => convert!(u8),
            Self::I8 => convert!(i8),
            Self::U16 => convert!(u16),
            Self::I16 => convert!(i16),
            Self::U32 => convert!(u32),
            Self::I32 => convert!(i32),
            Self::U64 => convert!(u64),
            Self::I64 => convert!(i64),
            Self::F32 => convert!(f32),
            Self::F64 => convert!(f64),
        }
    }
}

impl fmt::Display for SampleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Integers with or without sign, or floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    Signed,
    Float,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_convert_from_both_byte_orders() {
        let mut values = [0.0; 2];
        SampleType::I16.convert(&[0xfe, 0xff, 0x00, 0x01], ByteOrder::Little, &mut values);
        assert_eq!(values, [-2.0, 256.0]);
        SampleType::U16.convert(&[0xfe, 0xff, 0x00, 0x01], ByteOrder::Big, &mut values);
        assert_eq!(values, [65279.0, 1.0]);
        SampleType::F64.convert(&1.5f64.to_be_bytes(), ByteOrder::Big, &mut values[..1]);
        assert_eq!(values[0], 1.5);
    }

    #[test]
    fn types_are_found_by_kind_and_bits() {
        assert_eq!(SampleType::of(Kind::Unsigned, 16), Some(SampleType::U16));
        assert_eq!(SampleType::of(Kind::Float, 16), None);
        assert_eq!((SampleType::I64.bytes(), SampleType::I64.name()), (8, "int64"));
    }
}
