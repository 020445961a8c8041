//! PostgreSQL's binary `numeric`: groups of four decimal digits, to and from 128-bit integers with a scale.
//!
//! Four 16-bit words (number of groups, weight of the first, sign, digits after the point to show), then the groups;
//! see `numeric_send` and `numeric_recv` in the server's `numeric.c`.

const NEGATIVE: u16 = 0x4000;

/// The most groups that 38 digits fill, wherever the point is.
const GROUPS_MAX: usize = 21;

/// Returns the value times 10^`scale`; `None` for NaN, infinities, more digits after the point, or too many at all.
pub(crate) fn decode(bytes: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let word = |index: usize| Some(u16::from_be_bytes(bytes.get(index * 2..index * 2 + 2)?.try_into().ok()?));
    let (groups, weight, sign) = (usize::from(word(0)?), word(1)?.cast_signed(), word(2)?);
    if !matches!(sign, 0 | NEGATIVE) || bytes.len() != 8 + groups * 2 {
        return None;
    }
    let mut digits = &bytes[8..];
    // Zeros at the end say nothing, and could make a number too long for its digits.
    while let [rest @ .., 0, 0] = digits
        && rest.len() % 2 == 0
    {
        digits = rest;
    }
    let Some((rest, last)) = digits.split_last_chunk::<2>() else { return Some(0) };
    // The power of ten of the last group's last digit, once the point is moved by `scale`.
    let groups = i32::try_from(digits.len() / 2).ok()?;
    let exponent = 4 * (i32::from(weight) - groups + 1) + i32::from(scale);
    if exponent < -3 {
        return None;
    }
    // The scale may cut the last group: what it cuts off must be zero.
    let cut = 10_i128.pow(exponent.min(0).unsigned_abs());
    let last = i128::from(u16::from_be_bytes(*last));
    if last % cut != 0 {
        return None;
    }
    let mut value = 0_i128;
    for group in rest.chunks_exact(2) {
        value = value.checked_mul(10_000)?.checked_add(i128::from(u16::from_be_bytes([group[0], group[1]])))?;
    }
    value = value.checked_mul(10_000 / cut)?.checked_add(last / cut)?;
    if exponent > 0 {
        value = value.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?;
    }
    let fits = value < 10_i128.pow(u32::from(precision));
    fits.then_some(if sign == NEGATIVE { -value } else { value })
}

/// Appends the value `value` / 10^`scale`, without its length; with `strip` without zeros at its end.
pub(crate) fn encode(value: i128, scale: u8, strip: bool, out: &mut Vec<u8>) {
    let sign = if value < 0 { NEGATIVE } else { 0 };
    let (value, scale) = if strip { stripped(value, scale) } else { (value, scale) };
    let value = value.unsigned_abs();
    let mut groups = [0_u16; GROUPS_MAX];
    // From the right: the group that the scale cuts, the other groups after the point, those before it.
    let mut start = GROUPS_MAX;
    let mut push = |group: u16| {
        start -= 1;
        groups[start] = group;
    };
    let cut = scale % 4;
    let after_point = usize::from(scale.div_ceil(4));
    match u64::try_from(value) {
        Ok(mut rest) => {
            if cut > 0 {
                let power = 10_u64.pow(u32::from(cut));
                push(low(rest % power) * 10_u16.pow(4 - u32::from(cut)));
                rest /= power;
            }
            for _ in 0..usize::from(scale / 4) {
                push(low(rest % 10_000));
                rest /= 10_000;
            }
            while rest > 0 {
                push(low(rest % 10_000));
                rest /= 10_000;
            }
        }
        Err(_) => {
            let mut rest = value;
            let mut take = |power: u128| {
                let found = low(u64::try_from(rest % power).unwrap_or_default());
                rest /= power;
                (found, rest)
            };
            if cut > 0 {
                let power = 10_u128.pow(u32::from(cut));
                push(take(power).0 * 10_u16.pow(4 - u32::from(cut)));
            }
            for _ in 0..usize::from(scale / 4) {
                push(take(10_000).0);
            }
            loop {
                let (group, rest) = take(10_000);
                push(group);
                if rest == 0 {
                    break;
                }
            }
        }
    }
    let before_point =
        i16::try_from(GROUPS_MAX - start).unwrap_or_default() - i16::try_from(after_point).unwrap_or_default();
    let mut groups = &groups[start..];
    let mut weight = before_point - 1;
    while let Some((0, rest)) = groups.split_first() {
        groups = rest;
        weight -= 1;
    }
    while let Some((0, rest)) = groups.split_last() {
        groups = rest;
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.extend_from_slice(&u16::try_from(groups.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&u16::from(scale).to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

fn stripped(mut value: i128, mut scale: u8) -> (i128, u8) {
    if value == 0 {
        return (0, 0);
    }
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    (value, scale)
}

/// A group is below 10,000 by construction.
fn low(group: u64) -> u16 {
    u16::try_from(group).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::{decode, encode};

    fn encoded(value: i128, scale: u8, strip: bool) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, scale, strip, &mut out);
        out
    }

    #[test]
    fn bytes_are_those_of_the_server() {
        // SELECT encode(numeric_send(x), 'hex') on PostgreSQL 15.
        for (value, scale, wanted) in [
            (0, 2, "0000000000000002"),
            (1, 0, "00010000000000000001"),
            (-12345, 2, "0002000040000002007b1194"),
            (10_000, 0, "00010001000000000001"),
            (5, 5, "0001fffe000000051388"),
        ] {
            let hex: String = encoded(value, scale, false).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, wanted, "{value} / 10^{scale}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let value = encoded(12_345, 3, false);
        assert_eq!(decode(&value, 5, 3), Some(12_345));
        assert_eq!(decode(&value, 6, 4), Some(123_450));
        assert_eq!(decode(&value, 5, 2), None, "a digit would be lost");
        assert_eq!(decode(&value, 4, 3), None, "too many digits");
        for special in [0xC000_u16, 0xD000, 0xF000] {
            let bytes = [0_u16, 0, special, 0].map(u16::to_be_bytes).concat();
            assert_eq!(decode(&bytes, 38, 0), None);
        }
        assert_eq!(decode(&[0, 1, 0], 38, 0), None);
    }

    proptest! {
        #[test]
        fn every_decimal_survives(
            (value, scale) in (any::<i128>(), 0_u8..=38, 0_u32..39)
                .prop_map(|(value, scale, digits)| (value % 10_i128.pow(digits.min(38)), scale)),
            strip in any::<bool>(),
        ) {
            prop_assert_eq!(decode(&encoded(value, scale, strip), 38, scale), Some(value));
        }
    }
}
