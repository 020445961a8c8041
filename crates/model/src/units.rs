//! Quantities as people write them: byte sizes (`512MiB`), time spans (`30m`), ratios (`1%`).
//!
//! Each parses from text, prints back in its shortest exact form, and serializes as that text, so that a plan shows
//! what the spec said.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A number of bytes, written like `512MiB`, `2GB` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct ByteSize(pub u64);

/// A span of time in whole milliseconds, written like `250ms`, `30s`, `30m`, `12h`, `1d` or `2w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Span(pub u64);

/// A share between 0 and 1 in parts per million, written like `1%`, `0.25%` or `0.01`; a bare `1` could mean either
/// 1% or all, and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Ratio(pub u32);

/// A quantity as it stands in a file: YAML and JSON read `0.01` and `1048576` as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Whole(u64),
    Fraction(f64),
}

/// Says that a text is not a quantity of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct InvalidQuantity {
    text: String,
    wanted: &'static str,
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SPAN_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const MILLIONTHS: u32 = 1_000_000;

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity { text: text.into(), wanted: "a size such as 512MiB or 2GB" };
        let (number, unit) = split_unit(text);
        let factor =
            if unit.is_empty() { 1 } else { BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1 };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0, &BYTE_UNITS)
    }
}

// === impl Span ===

impl Span {
    /// Returns the span as a [`Duration`].
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity { text: text.into(), wanted: "a time span such as 30s, 15m, 12h or 1d" };
        let (number, unit) = split_unit(text);
        let factor = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `ms` stands last, so that 1500 prints as 1500ms and 2000 as 2s.
        write_in_units(f, self.0, &SPAN_UNITS)
    }
}

// === impl Ratio ===

impl Ratio {
    /// Returns the largest whole number of rows that is within this share of `total`.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let product = u128::from(total) * u128::from(self.0) / u128::from(MILLIONTHS);
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

impl FromStr for Ratio {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity { text: text.into(), wanted: "a share such as 1% or 0.01" };
        let (digits, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent, MILLIONTHS / 100),
            None if text == "1" => return Err(invalid()),
            None => (text, MILLIONTHS),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || fraction.len() > 4 || !plain(whole) || !plain(fraction) {
            return Err(invalid());
        }
        let whole: u32 = whole.parse().map_err(|_| invalid())?;
        let mut millionths = whole * scale;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            millionths += u32::from(digit - b'0') * place;
        }
        if millionths <= MILLIONTHS { Ok(Self(millionths)) } else { Err(invalid()) }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / 10_000;
        let rest = format!("{:04}", self.0 % 10_000);
        match rest.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            fraction => write!(f, "{whole}.{fraction}%"),
        }
    }
}

// === shared ===

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn write_in_units(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = exact.or(units.last()).copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

macro_rules! text_quantity {
    ($type:ident, $schema:tt) => {
        impl TryFrom<Written> for $type {
            type Error = InvalidQuantity;

            fn try_from(written: Written) -> Result<Self, InvalidQuantity> {
                match written {
                    Written::Text(text) => text.parse(),
                    Written::Whole(number) => number.to_string().parse(),
                    Written::Fraction(number) => number.to_string().parse(),
                }
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

text_quantity!(ByteSize, {
    "type": ["string", "integer"],
    "pattern": "^[0-9]{1,18} ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$",
    "minimum": 0,
    "examples": ["512MiB"],
});
text_quantity!(Span, {
    "type": "string",
    "pattern": "^[0-9]{1,12} ?(ms|s|m|h|d|w)$",
    "examples": ["30m"],
});
text_quantity!(Ratio, {
    "type": ["string", "number"],
    "pattern": "^[0-9]{1,3}(\\.[0-9]{1,4})?%?$",
    "minimum": 0,
    "exclusiveMaximum": 1,
    "examples": ["1%"],
});

#[cfg(test)]
mod tests {
    use super::{ByteSize, Ratio, Span};

    #[track_caller]
    fn check<T: std::str::FromStr + ToString>(text: &str, wanted: Option<&str>) {
        let printed = text.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(printed.as_deref(), wanted, "{text:?}");
    }

    #[test]
    fn quantities_print_as_their_shortest_exact_form() {
        check::<ByteSize>("512MiB", Some("512MiB"));
        check::<ByteSize>("1024 MiB", Some("1GiB"));
        check::<ByteSize>("1000", Some("1kB"));
        check::<ByteSize>("1025", Some("1025B"));
        check::<ByteSize>("0", Some("0B"));
        check::<ByteSize>("12 parsecs", None);
        check::<ByteSize>("99999999999999999TiB", None);
        check::<Span>("30m", Some("30m"));
        check::<Span>("90s", Some("90s"));
        check::<Span>("1500ms", Some("1500ms"));
        check::<Span>("24h", Some("1d"));
        check::<Span>("30", None);
        check::<Ratio>("1%", Some("1%"));
        check::<Ratio>("0.25%", Some("0.25%"));
        check::<Ratio>("0.5", Some("50%"));
        check::<Ratio>("1", None);
        check::<Ratio>("1.0", Some("100%"));
        check::<Ratio>("101%", None);
        check::<Ratio>("-1%", None);
    }

    #[test]
    fn quantities_read_back_as_text_or_number() {
        let read = |json: &str| serde_json::from_str::<Ratio>(json).ok().map(|ratio| ratio.to_string());
        assert_eq!(read("\"1%\"").as_deref(), Some("1%"));
        assert_eq!(read("0.01").as_deref(), Some("1%"));
        assert_eq!(read("0").as_deref(), Some("0%"));
        assert_eq!(read("1"), None);
        assert_eq!(serde_json::from_str::<ByteSize>("1048576").ok(), Some(ByteSize(1 << 20)));
        assert!(serde_json::from_str::<Span>("30").is_err());
    }

    #[test]
    fn a_ratio_of_rows_rounds_down() {
        assert_eq!(Ratio(10_000).of(199), 1);
        assert_eq!(Ratio(1_000_000).of(u64::MAX), u64::MAX);
    }
}
