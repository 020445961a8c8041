//! What is seen of one column of text, value by value, and the type that follows from it.

use std::collections::BTreeMap;

use dagwright_model::{
    facts::{ColumnProfile, WatermarkProfile},
    schema::{Column, DataType},
    spec::{ColumnSpec, Mask},
};

use super::{
    super::value,
    sketch::{Distinct, Repeats, hash},
};

/// The longest text shown as a minimum or maximum.
const SHOWN_MAX: usize = 200;

/// The precision that decimals get at least, so that tomorrow's larger amounts fit too.
const PRECISION_MIN: usize = 15;

/// How often regressions may occur, in a thousand rows, for a column to be called a watermark at all.
const REGRESSIONS_PER_MILLE_MAX: u64 = 10;

/// What is seen of a column.
#[derive(Default)]
pub(super) struct ColumnState {
    declared: Option<DataType>,
    /// Values that are not NULL.
    values: u64,
    nulls: u64,
    integers: u64,
    integer_max: u64,
    decimals: u64,
    whole_digits: usize,
    scale: Option<usize>,
    scales_differ: bool,
    floats: u64,
    booleans: u64,
    dates: u64,
    timestamps: u64,
    instants: u64,
    uuids: u64,
    declared_misfits: u64,
    /// Texts such as `007`, which are codes rather than numbers.
    padded: u64,
    distinct: Distinct,
    /// Whether values repeat; looked for while all rows are seen.
    pub(super) repeats: Repeats,
    numbers: Extremes<f64>,
    instants_range: Extremes<i64>,
    texts: (Option<Vec<u8>>, Option<Vec<u8>>),
    last: Option<f64>,
    last_instant: Option<i64>,
    number_regressions: u64,
    instant_regressions: u64,
}

/// The smallest and largest value, with their texts.
struct Extremes<T> {
    min: Option<(T, String)>,
    max: Option<(T, String)>,
}

impl<T> Default for Extremes<T> {
    fn default() -> Self {
        Self { min: None, max: None }
    }
}

impl<T: PartialOrd + Clone> Extremes<T> {
    #[inline]
    fn add(&mut self, value: &T, text: &[u8]) {
        if self.min.as_ref().is_none_or(|(min, _)| value < min) {
            self.min = Some((value.clone(), String::from_utf8_lossy(text).into_owned()));
        }
        if self.max.as_ref().is_none_or(|(max, _)| value > max) {
            self.max = Some((value.clone(), String::from_utf8_lossy(text).into_owned()));
        }
    }

    fn shown(&self) -> (Option<String>, Option<String>) {
        let shown = |bound: &Option<(T, String)>| {
            bound.as_ref().map(|(_, text)| text.clone()).filter(|text| text.len() <= SHOWN_MAX)
        };
        (shown(&self.min), shown(&self.max))
    }
}

/// What was concluded of a column.
pub(super) struct Concluded {
    /// The profile.
    pub(super) profile: ColumnProfile,
    /// How it serves as a cursor, if it does.
    pub(super) watermark: Option<(Rank, WatermarkProfile)>,
}

/// How well a column serves as a cursor; smaller is better.
pub(super) type Rank = (bool, bool, u8, std::cmp::Reverse<u64>);

// === impl ColumnState ===

impl ColumnState {
    /// Begins to look at a column.
    pub(super) fn new(spec: Option<&ColumnSpec>) -> Self {
        Self { declared: spec.and_then(|spec| spec.data_type.clone()), ..Self::default() }
    }

    /// Takes the type that the system declares, unless the spec does.
    pub(super) fn declare(&mut self, data_type: &DataType) {
        self.declared.get_or_insert_with(|| data_type.clone());
    }

    /// Sees a NULL.
    pub(super) fn null(&mut self) {
        self.nulls += 1;
    }

    /// Tells whether a value was seen.
    pub(super) fn has_values(&self) -> bool {
        self.values > 0
    }

    /// Sees a value; `quoted_text` says that it is a string in a format that tells strings from numbers.
    pub(super) fn value(&mut self, text: &[u8], quoted_text: bool, unique: bool) {
        self.values += 1;
        let hashed = hash(text);
        self.distinct.add(hashed);
        if unique && self.repeats.duplicates == 0 {
            self.repeats.add(hashed);
            if self.repeats.duplicates > 0 {
                self.repeats.forget();
            }
        }
        if let Some(declared) = &self.declared
            && !reads_as(declared, text)
        {
            self.declared_misfits += 1;
        }
        let trimmed = value::trimmed(text);
        if !quoted_text {
            self.literal(trimmed);
        }
        self.temporal(trimmed);
        if trimmed.len() == 36 && value::uuid(trimmed).is_some() {
            self.uuids += 1;
        }
        self.text(text);
    }

    fn text(&mut self, text: &[u8]) {
        let (min, max) = &mut self.texts;
        if min.as_deref().is_none_or(|min| text < min) {
            *min = Some(text.to_vec());
        }
        if max.as_deref().is_none_or(|max| text > max) {
            *max = Some(text.to_vec());
        }
    }

    fn literal(&mut self, text: &[u8]) {
        let first = text.first().copied().unwrap_or(b' ');
        if first.is_ascii_alphabetic() {
            if matches!(text, b"true" | b"false" | b"True" | b"False" | b"TRUE" | b"FALSE" | b"t" | b"f") {
                self.booleans += 1;
            }
            if !matches!(first, b'n' | b'N' | b'i' | b'I') {
                return;
            }
        }
        let Some(number) = value::float64(text) else { return };
        if is_padded(text) {
            self.padded += 1;
            return;
        }
        self.floats += 1;
        self.numbers.add(&number, text);
        if self.last.is_some_and(|last| number < last) {
            self.number_regressions += 1;
        }
        self.last = Some(number);
        if let Some(integer) = value::int64(text) {
            self.integers += 1;
            self.integer_max = self.integer_max.max(integer.unsigned_abs());
        }
        let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
        if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
            let (whole, scale) = match digits.iter().position(|byte| *byte == b'.') {
                Some(point) => (point, digits.len() - point - 1),
                None => (digits.len(), 0),
            };
            self.decimals += 1;
            self.whole_digits = self.whole_digits.max(whole);
            self.scales_differ |= self.scale.is_some_and(|known| known != scale);
            self.scale = Some(self.scale.unwrap_or(scale).max(scale));
        }
    }

    fn temporal(&mut self, text: &[u8]) {
        if text.len() < 10 || text[4] != b'-' {
            return;
        }
        let instant = if let Some(day) = value::date(text) {
            self.dates += 1;
            Some(i64::from(day) * 86_400_000_000)
        } else if let Some(instant) = value::timestamp(text) {
            self.timestamps += 1;
            Some(instant)
        } else if let Some(instant) = value::timestamptz(text) {
            self.instants += 1;
            Some(instant)
        } else {
            None
        };
        if let Some(instant) = instant {
            self.instants_range.add(&instant, text);
            if self.last_instant.is_some_and(|last| instant < last) {
                self.instant_regressions += 1;
            }
            self.last_instant = Some(instant);
        }
    }

    /// How many values of the most promising types there are, best first: each with how many values fit it.
    fn candidates(&self) -> Vec<(DataType, u64)> {
        let numbers = |fitting: u64| if self.padded > 0 { 0 } else { fitting };
        let mut candidates = vec![(DataType::Boolean, self.booleans)];
        let integer = if self.integer_max < (1 << 30) { DataType::Int32 } else { DataType::Int64 };
        candidates.push((integer, numbers(self.integers)));
        if let Some(decimal) = self.decimal() {
            candidates.push((decimal, numbers(self.decimals)));
        }
        candidates.push((DataType::Float64, numbers(self.floats)));
        candidates.push((DataType::Date, self.dates));
        if self.timestamps > 0 {
            candidates.push((DataType::Timestamp, self.timestamps + self.dates));
        }
        candidates.push((DataType::TimestampTz, self.instants));
        candidates.push((DataType::Uuid, self.uuids));
        candidates
    }

    /// The decimal type, where all values have the same digits after the point.
    fn decimal(&self) -> Option<DataType> {
        let scale = self.scale.filter(|scale| *scale > 0 && *scale <= 10)?;
        if self.scales_differ || self.decimals < self.floats {
            return None;
        }
        let precision = (self.whole_digits + scale).max(PRECISION_MIN.max(scale));
        let (precision, scale) = (u8::try_from(precision).ok()?, u8::try_from(scale).ok()?);
        (precision <= 38).then_some(DataType::Decimal { precision, scale })
    }

    /// Concludes what the column is.
    pub(super) fn conclude(
        mut self,
        name: &str,
        spec: Option<&ColumnSpec>,
        whole: bool,
        sampled_nullable: bool,
    ) -> Concluded {
        let mask = spec.and_then(|spec| spec.mask);
        let classified = spec.is_some_and(|spec| spec.classification.is_some());
        let hidden = classified || mask.is_some();
        let (data_type, mut confidence, mut misfits) = self.inferred(whole);
        let (data_type, masked) = match (mask, &self.declared) {
            (Some(Mask::Hmac | Mask::Redact), _) => (DataType::TEXT, true),
            (Some(Mask::Null) | None, Some(declared)) => (declared.clone(), false),
            (Some(Mask::Null) | None, None) => (data_type, false),
        };
        if let Some(declared) = &self.declared {
            misfits.clear();
            confidence = 100;
            if self.declared_misfits > 0 {
                misfits.insert(declared.to_string(), self.declared_misfits);
            }
        }
        if masked {
            misfits.clear();
            confidence = 100;
        }
        let (min, max) = if hidden {
            (None, None)
        } else if data_type.is_number() {
            self.numbers.shown()
        } else if matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz) {
            self.instants_range.shown()
        } else {
            let shown = |text: Option<Vec<u8>>| {
                text.filter(|text| text.len() <= SHOWN_MAX).and_then(|text| String::from_utf8(text).ok())
            };
            let (min, max) = std::mem::take(&mut self.texts);
            (shown(min), shown(max))
        };
        let watermark = if masked { None } else { self.watermark(name, &data_type) };
        let nullable = self.nulls > 0 || sampled_nullable || mask == Some(Mask::Null);
        let profile = ColumnProfile {
            column: Column { name: name.into(), data_type, nullable },
            confidence,
            nulls: self.nulls,
            distinct: Some(self.distinct.count()),
            min,
            max,
            misfits,
            classified,
        };
        Concluded { profile, watermark }
    }

    fn inferred(&self, whole: bool) -> (DataType, u8, BTreeMap<String, u64>) {
        if self.values == 0 {
            return (DataType::TEXT, 50, BTreeMap::new());
        }
        let seen = match self.values {
            0..10 => 80,
            10..100 => 95,
            _ => 99,
        };
        let confidence = if whole { seen } else { seen - 4 };
        let candidates = self.candidates();
        if let Some((data_type, _)) = candidates.iter().find(|(_, fitting)| *fitting == self.values) {
            return (data_type.clone(), confidence, BTreeMap::new());
        }
        // Text; but it says so where most values would read as something narrower.
        let most = candidates.into_iter().filter(|(_, fitting)| *fitting * 2 > self.values);
        let misfits = most.map(|(data_type, fitting)| (data_type.to_string(), self.values - fitting)).collect();
        (DataType::TEXT, confidence, misfits)
    }

    fn watermark(&self, name: &str, data_type: &DataType) -> Option<(Rank, WatermarkProfile)> {
        let (kind, regressions) = match data_type {
            DataType::Timestamp | DataType::TimestampTz => (0, self.instant_regressions),
            DataType::Date => (1, self.instant_regressions),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => (2, self.number_regressions),
            DataType::Decimal { .. } => (3, self.number_regressions),
            _ => return None,
        };
        let distinct = self.distinct.count();
        let profile = WatermarkProfile { column: name.into(), nulls: self.nulls, regressions, indexed: false };
        Some(((self.nulls > 0, regressions > 0, kind, std::cmp::Reverse(distinct)), profile))
    }

    /// Tells whether a column is worth naming as a cursor without being asked.
    pub(super) fn is_promising(rank: &Rank, profile: &WatermarkProfile, rows: u64) -> bool {
        let (nulls, _, kind, distinct) = rank;
        let calm = profile.regressions * 1000 <= rows * REGRESSIONS_PER_MILLE_MAX;
        !nulls && distinct.0 > 1 && calm && (*kind < 2 || (*kind == 2 && profile.regressions == 0))
    }

    /// Tells whether every row seen has another value.
    pub(super) fn is_key(&self) -> bool {
        self.nulls == 0 && self.values > 0 && self.repeats.duplicates == 0 && !self.repeats.overflowed
    }
}

/// Tells whether a number starts with zeros that a number would lose.
fn is_padded(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    matches!(digits, [b'0', b'0'..=b'9', ..]) || text.first() == Some(&b'+')
}

/// Tells whether a text reads as a declared type.
pub(super) fn reads_as(data_type: &DataType, text: &[u8]) -> bool {
    let trimmed = value::trimmed(text);
    match data_type {
        DataType::Boolean => value::boolean(trimmed).is_some(),
        DataType::Int16 => value::int64(trimmed).is_some_and(|number| i16::try_from(number).is_ok()),
        DataType::Int32 => value::int64(trimmed).is_some_and(|number| i32::try_from(number).is_ok()),
        DataType::Int64 => value::int64(trimmed).is_some(),
        DataType::Float32 | DataType::Float64 => value::float64(trimmed).is_some(),
        DataType::Decimal { precision, scale } => value::decimal(trimmed, *precision, *scale).is_some(),
        DataType::String { length: None } => true,
        DataType::String { length: Some(most) } => {
            std::str::from_utf8(text).is_ok_and(|text| text.chars().count() <= *most as usize)
        }
        DataType::Binary => value::binary(trimmed).is_some(),
        DataType::Date => value::date(trimmed).is_some(),
        DataType::Time => value::time(trimmed).is_some(),
        DataType::Timestamp => value::timestamp(trimmed).is_some(),
        DataType::TimestampTz => value::timestamptz(trimmed).is_some(),
        DataType::Uuid => value::uuid(trimmed).is_some(),
        DataType::Json | DataType::List(_) | DataType::Struct(_) => super::super::json::Json::parse(text).is_some(),
    }
}
