//! The W3C trace context that a message comes with.

/// Tells whether `text` is a `traceparent` as W3C Trace Context (section 3.2) writes it.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut field = |length: usize| {
        let part = parts.next()?;
        let hexadecimal = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && hexadecimal).then_some(part)
    };
    let (Some(version), Some(trace), Some(span), Some(_flags)) = (field(2), field(32), field(16), field(2)) else {
        return false;
    };
    let is_some = |id: &str| id.bytes().any(|byte| byte != b'0');
    // Later versions may append fields; version 00 has none, and ff is none.
    version != "ff" && is_some(trace) && is_some(span) && (version != "00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::is_traceparent;

    #[test]
    fn trace_contexts_are_told_from_other_text() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let zero = |from: usize, to: usize| format!("{}{}{}", &good[..from], "0".repeat(to - from), &good[to..]);
        for (text, wanted) in [
            (good, true),
            (&*good.replacen("00", "cc", 1), true),
            (&*format!("{}-more", good.replacen("00", "cc", 1)), true),
            (&*format!("{good}-more"), false),
            (&*good.replacen("00", "ff", 1), false),
            (&*good.to_uppercase(), false),
            (&*zero(3, 35), false),
            (&*zero(36, 52), false),
            (&good[1..], false),
            (&good[..52], false),
            ("", false),
            ("---", false),
        ] {
            assert_eq!(is_traceparent(text), wanted, "{text}");
        }
    }
}
