//! Reads typed values from text, strictly: what loses digits or needs a guess does not read.

/// The days from 1970-01-01 to a day of the proleptic Gregorian calendar, if it exists.
///
/// After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
#[inline]
fn days(year: i32, month: u32, day: u32) -> Option<i32> {
    const LENGTHS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTHS.get(month.checked_sub(1)? as usize)?;
    if day == 0 || day > length || (month == 2 && day == 29 && !leap) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_from_march = (month.cast_signed() + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day.cast_signed() - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Removes white space around a text.
#[inline]
pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    match text {
        [first, .., last] if !first.is_ascii_whitespace() && !last.is_ascii_whitespace() => text,
        _ => text.trim_ascii(),
    }
}

/// Reads an integer.
#[inline]
pub(crate) fn int64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    if digits.is_empty() {
        return None;
    }
    // Eighteen digits always fit.
    if digits.len() <= 18 {
        let mut value = 0_i64;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + i64::from(digit);
        }
        return Some(if negative { -value } else { value });
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Downwards, because the smallest integer has no positive counterpart.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Reads a double; what is finite in the text must be finite as a double.
#[inline]
pub(crate) fn float64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (value.is_finite() || !text.iter().any(u8::is_ascii_digit)).then_some(value)
}

/// Reads an exact decimal as its digits at `scale`; digits that do not fit make it fail, unless they are zeros.
#[inline]
pub(crate) fn decimal(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (negative, digits) = sign(text);
    if digits.len() <= 18 && scale <= 18 {
        return short_decimal(digits, precision, scale, negative)
            .or_else(|| long_decimal(digits, precision, scale, negative));
    }
    long_decimal(digits, precision, scale, negative)
}

#[inline]
fn short_decimal(digits: &[u8], precision: u8, scale: u8, negative: bool) -> Option<i128> {
    let mut value = 0_u64;
    let mut fraction = None;
    for (at, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + u64::from(digit);
        } else if *byte == b'.' && fraction.is_none() {
            fraction = Some(digits.len() - at - 1);
        } else {
            return None;
        }
    }
    let fraction = fraction.unwrap_or(0);
    if digits.len() < 2 && !digits.first()?.is_ascii_digit() {
        return None;
    }
    let missing = usize::from(scale).checked_sub(fraction)?;
    let value = i128::from(value) * 10_i128.pow(u32::try_from(missing).ok()?);
    (value < 10_i128.pow(u32::from(precision))).then_some(if negative { -value } else { value })
}

fn long_decimal(digits: &[u8], precision: u8, scale: u8, negative: bool) -> Option<i128> {
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next()?;
    let fraction = parts.next().unwrap_or(b"");
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let kept = fraction.len().min(usize::from(scale));
    if fraction[kept..].iter().any(|byte| *byte != b'0') {
        return None;
    }
    let mut value = 0_i128;
    for byte in whole.iter().chain(&fraction[..kept]) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    value = value.checked_mul(10_i128.pow(u32::try_from(usize::from(scale) - kept).ok()?))?;
    (value < 10_i128.checked_pow(u32::from(precision))?).then_some(if negative { -value } else { value })
}

#[inline]
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Reads `true` or `false` and their usual short forms.
#[inline]
pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"t" | b"True" | b"TRUE" | b"T" | b"1" | b"yes" | b"Yes" | b"YES" | b"y" | b"Y" => Some(true),
        b"false" | b"f" | b"False" | b"FALSE" | b"F" | b"0" | b"no" | b"No" | b"NO" | b"n" | b"N" => Some(false),
        _ => None,
    }
}

/// Reads `YYYY-MM-DD` as days since 1970.
#[inline]
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    let [a, b, c, d, b'-', e, f, b'-', g, h] = text else { return None };
    let year = two(*a, *b)? * 100 + two(*c, *d)?;
    days(year.cast_signed(), two(*e, *f)?, two(*g, *h)?)
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff` as microseconds.
#[inline]
pub(crate) fn time(text: &[u8]) -> Option<i64> {
    let (hour, minute, rest) = match text {
        [a, b, b':', c, d, rest @ ..] => (two(*a, *b)?, two(*c, *d)?, rest),
        _ => return None,
    };
    let (second, fraction) = match rest {
        [] => (0, &b""[..]),
        [b':', a, b] => (two(*a, *b)?, &b""[..]),
        [b':', a, b, b'.' | b',', fraction @ ..] if !fraction.is_empty() => (two(*a, *b)?, fraction),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0_i64;
    for at in 0..6 {
        let digit = fraction.get(at).map_or(0, |byte| byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        micros = micros * 10 + i64::from(digit);
    }
    if fraction.len() > 6 && fraction[6..].iter().any(|byte| *byte != b'0') {
        return None;
    }
    Some(i64::from(hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

/// Reads a local date and time, `YYYY-MM-DD[ T]HH:MM[:SS[.ffffff]]`, or a day alone, as microseconds since 1970.
#[inline]
pub(crate) fn timestamp(text: &[u8]) -> Option<i64> {
    let day = i64::from(date(text.get(..10)?)?) * 86_400_000_000;
    match &text[10..] {
        [] => Some(day),
        [b'T' | b't' | b' ', clock @ ..] => Some(day + time(clock)?),
        _ => None,
    }
}

/// Reads an instant: a date and time with `Z` or an offset, as microseconds since 1970 in UTC.
#[inline]
pub(crate) fn timestamptz(text: &[u8]) -> Option<i64> {
    if let [local @ .., b'Z' | b'z'] = text {
        return timestamp(local.trim_ascii_end()).filter(|_| local.len() > 10);
    }
    // The sign of an offset stands after the day, whose own hyphens do not count.
    let sign_at = 11 + text.get(11..)?.iter().rposition(|byte| matches!(byte, b'+' | b'-'))?;
    let (local, offset) = text.split_at(sign_at);
    let (hours, minutes) = match offset {
        [_, a, b] => (two(*a, *b)?, 0),
        [_, a, b, c, d] | [_, a, b, b':', c, d] => (two(*a, *b)?, two(*c, *d)?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset_micros = i64::from(hours * 60 + minutes) * 60_000_000;
    let local = timestamp(local.trim_ascii_end())?;
    Some(if offset[0] == b'-' { local + offset_micros } else { local - offset_micros })
}

/// Reads a UUID, with or without hyphens.
#[inline]
pub(crate) fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        if *byte == b'-' && text.len() == 36 && matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        let digit = (*byte as char).to_digit(16)?;
        let slot = bytes.get_mut(digits / 2)?;
        *slot = *slot << 4 | u8::try_from(digit).ok()?;
        digits += 1;
    }
    (digits == 32 && matches!(text.len(), 32 | 36)).then_some(bytes)
}

/// Reads bytes in hexadecimal, with or without a leading `\x`.
pub(crate) fn binary(text: &[u8]) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix(br"\x").unwrap_or(text)).ok()
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then_some(u32::from(tens) * 10 + u32::from(ones))
}

#[cfg(test)]
mod tests {
    use super::{binary, boolean, date, decimal, float64, int64, time, timestamp, timestamptz, uuid};

    #[test]
    fn integers() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("+7", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("1.0", None),
            ("1e3", None),
            ("12a", None),
        ] {
            assert_eq!(int64(text.as_bytes()), wanted, "{text:?}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        for (text, wanted) in [
            ("1.5", Some(150)),
            ("-1.50", Some(-150)),
            ("1.500", Some(150)),
            ("1.505", None),
            ("999.99", Some(99999)),
            ("1000", None),
            (".5", Some(50)),
            ("5.", Some(500)),
            (".", None),
            ("", None),
            ("1.2.3", None),
            ("1e2", None),
            ("000000000000000000000000000001.10", Some(110)),
        ] {
            assert_eq!(decimal(text.as_bytes(), 5, 2), wanted, "{text:?}");
        }
        let most = "9".repeat(38);
        assert_eq!(decimal(most.as_bytes(), 38, 0), most.parse().ok());
        assert_eq!(decimal(format!("{most}9").as_bytes(), 38, 0), None);
    }

    #[test]
    fn floats() {
        assert_eq!(float64(b"10.357019999999999"), Some(10.357_019_999_999_999));
        assert_eq!(float64(b"1e400"), None);
        assert_eq!(float64(b"inf"), Some(f64::INFINITY));
        assert_eq!(float64(b""), None);
    }

    #[test]
    fn dates_and_times() {
        for (text, wanted) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(11_016)),
            ("1900-02-29", None),
            ("2013-13-01", None),
            ("2013-1-01", None),
            ("0001-01-01", Some(-719_162)),
        ] {
            assert_eq!(date(text.as_bytes()), wanted, "{text:?}");
        }
        assert_eq!(time(b"23:59:59.999999"), Some(86_399_999_999));
        assert_eq!(time(b"24:00"), None);
        assert_eq!(time(b"10:00:00.1234567"), None);
        assert_eq!(timestamp(b"1970-01-02T00:00:01.5"), Some(86_401_500_000));
        assert_eq!(timestamp(b"1970-01-02"), Some(86_400_000_000));
        assert_eq!(timestamp(b"1970-01-02T00:00:01Z"), None);
        for text in
            ["1970-01-01T02:00:00+02:00", "1970-01-01 00:00Z", "1969-12-31T23:00:00-0100", "1970-01-01T02:00+02"]
        {
            assert_eq!(timestamptz(text.as_bytes()), Some(0), "{text:?}");
        }
        assert_eq!(timestamptz(b"1970-01-01T02:00:00"), None);
    }

    #[test]
    fn others() {
        assert_eq!(boolean(b"TRUE"), Some(true));
        assert_eq!(boolean(b"maybe"), None);
        assert_eq!(uuid(b"00000000-0000-0000-0000-0000000000ff").map(|bytes| bytes[15]), Some(255));
        assert_eq!(uuid(b"0000000-00000-0000-0000-0000000000ff"), None);
        assert_eq!(binary(b"\\x00ff"), Some(vec![0, 255]));
    }
}
