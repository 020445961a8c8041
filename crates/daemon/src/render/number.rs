//! Numbers as people read them.

use std::time::Duration;

/// Renders `27004` as `27,004`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Renders `1 row` or `27,004 rows`.
pub(crate) fn counted(value: u64, one: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(value))
}

/// Renders bytes in units of 1000 with one digit: `2.4 MB`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut tenths = u128::from(value) * 10;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

/// Renders milliseconds: `340 ms`, `1.9 s`, `2 min 5 s`.
pub(crate) fn elapsed_ms(value: u64) -> String {
    match value {
        0..1000 => format!("{value} ms"),
        1000..60_000 => format!("{}.{} s", value / 1000, value % 1000 / 100),
        _ => format!("{} min {} s", value / 60_000, value % 60_000 / 1000),
    }
}

/// Renders a span of time, as [`elapsed_ms`].
pub(crate) fn elapsed(value: Duration) -> String {
    elapsed_ms(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_read_well() {
        assert_eq!(super::count(0), "0");
        assert_eq!(super::count(999), "999");
        assert_eq!(super::count(27_004), "27,004");
        assert_eq!(super::count(6_001_215), "6,001,215");
        assert_eq!(super::counted(1, "row"), "1 row");
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(2_437_000), "2.4 MB");
        assert_eq!(super::bytes(999_999), "1.0 MB");
        assert_eq!(super::elapsed_ms(340), "340 ms");
        assert_eq!(super::elapsed_ms(1_950), "1.9 s");
        assert_eq!(super::elapsed_ms(125_000), "2 min 5 s");
    }
}
