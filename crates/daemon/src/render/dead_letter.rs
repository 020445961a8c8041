//! Dead letters: a list, one as a whole, and what was sent again.
//!
//! All of a dead letter is whatever somebody sent, so every part of it is shown with what is invisible made visible, and
//! each line of its content has a margin, so that no content looks like something that we say.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat};
use dagwright_bus::kafka::{DeadLetter, Head, Listing, Replayed};

use super::{BAD, DIM, HEADING, indented, is_hidden, number, safe, styled, table};

/// How much of a content is shown; `--raw` writes all of it.
const CONTENT_MAX: usize = 64 << 10;

/// How much of a header's value is shown.
const HEADER_MAX: usize = 400;

/// Renders a list.
pub(crate) fn listing(listing: &Listing) -> String {
    let mut rows = table();
    for head in &listing.letters {
        let origin = head.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        rows.add_row([
            head.address.to_string(),
            head.at.and_then(time).unwrap_or_default(),
            styled(BAD, safe(head.code.as_deref().unwrap_or("no code"))),
            number::counted(head.attempts.into(), "attempt"),
            safe(&origin),
            first_line(head.error.as_deref().unwrap_or_default()),
        ]);
    }
    let mut text = indented(&rows);
    if listing.letters.is_empty() {
        text.push_str("no dead letter is like that\n");
    }
    let older: Vec<_> = listing.older.iter().map(|(partition, offset)| format!("{partition}/{offset}")).collect();
    if !older.is_empty() {
        text.push_str(&self::older(&older, "there may be older ones"));
    }
    text
}

/// Renders one with everything that it has.
pub(crate) fn letter(letter: &DeadLetter) -> String {
    let DeadLetter { head, value, headers } = letter;
    let Head { address, at, key, code, error, attempts, origin, replay_of, bytes, cut_from } = head;
    let mut rows = table();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.add_row([name.to_owned(), value]);
        }
    };
    line("died", at.and_then(time));
    line("tried", Some(number::counted((*attempts).into(), "time")));
    line("came from", origin.as_ref().map(|origin| safe(&origin.to_string())));
    line("first was", replay_of.as_ref().map(|first| safe(&first.to_string())));
    line("key", key.as_deref().map(|key| visible(key, HEADER_MAX)));
    for (name, value) in headers {
        let value = value.as_deref().map_or_else(|| styled(DIM, "nothing"), |value| visible(value, HEADER_MAX));
        line(&format!("header {}", safe(name)), Some(value));
    }
    let code = styled(BAD, safe(code.as_deref().unwrap_or("no code")));
    let error = visible(error.as_deref().unwrap_or_default().as_bytes(), CONTENT_MAX);
    let mut text = format!("{} {code} {error}\n{}", styled(HEADING, address), indented(&rows));
    match (value, bytes) {
        (Some(value), Some(bytes)) => {
            let all = cut_from.map(|all| format!(" of {}; the topic took no more", number::bytes(all)));
            let _ = writeln!(text, "  content, {}{}", number::bytes(*bytes as u64), all.unwrap_or_default());
            text.push_str(&content(value));
        }
        _ => text.push_str("  no content\n"),
    }
    text
}

/// Renders what was sent again.
pub(crate) fn replayed(Replayed { address, place, attempt }: &Replayed) -> String {
    format!("{address} is sent again as {} {}\n", safe(&place.to_string()), styled(DIM, format!("(attempt {attempt})")))
}

/// Renders how to go on.
pub(crate) fn older(older: &[String], what: &str) -> String {
    let options: String = older.iter().map(|place| format!(" --before {place}")).collect();
    format!("{}\n", styled(DIM, format!("{what}:{options}")))
}

/// Renders a time as RFC 3339.
pub(crate) fn time(at_ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(at_ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Returns so much of a reason that a list has room for it.
fn first_line(text: &str) -> String {
    const LENGTH_MAX: usize = 100;
    let mut line: String = text.chars().take(LENGTH_MAX).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    safe(&line)
}

fn content(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(CONTENT_MAX)];
    let mut text = String::new();
    for line in cut.split(|byte| *byte == b'\n') {
        let _ = writeln!(text, "  {} {}", styled(DIM, "│"), visible(line, CONTENT_MAX));
    }
    if cut.len() < bytes.len() {
        let more = number::bytes((bytes.len() - cut.len()) as u64);
        let _ = writeln!(text, "  … and {more} more; --raw writes everything");
    }
    text
}

/// Makes everything visible that is no visible text: control characters, what changes the direction of text, and bytes
/// that are no UTF-8.
fn visible(bytes: &[u8], bytes_max: usize) -> String {
    let cut = &bytes[..bytes.len().min(bytes_max)];
    let mut text = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_hidden(character) { text.extend(character.escape_default()) } else { text.push(character) }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use dagwright_bus::kafka::{Address, DeadLetter, Head};

    use super::{letter, visible};

    #[test]
    fn bytes_become_visible() {
        let hostile = "a\u{1b}[2J\r\u{9b}31m\u{202e}é".as_bytes();
        assert_eq!(visible(hostile, 100), "a\\u{1b}[2J\\r\\u{9b}31m\\u{202e}é");
        assert_eq!(visible(b"\xff\xc3(\x00", 100), "\\xff\\xc3(\\u{0}");
        assert_eq!(visible(b"abc", 2), "ab…");
    }

    #[test]
    fn no_part_of_a_letter_reaches_the_terminal_as_it_is() {
        let evil = "\u{1b}]0;owned\u{7}\n  content, 0 B".to_owned();
        let told = letter(&DeadLetter {
            head: Head {
                address: Address { partition: 0, offset: 1 },
                at: Some(0),
                key: Some(evil.clone().into_bytes()),
                code: Some(evil.clone()),
                error: Some(evil.clone()),
                attempts: 1,
                origin: None,
                replay_of: None,
                bytes: Some(evil.len()),
                cut_from: None,
            },
            value: Some(evil.clone().into_bytes()),
            headers: vec![(evil.clone(), Some(evil.into_bytes())), ("none".into(), None)],
        });
        // What remains is our own colour, which goes where nobody sees it.
        let plain = anstream::adapter::strip_str(&told).to_string();
        assert!(!plain.contains('\u{1b}') && !plain.contains('\u{7}') && plain.contains("owned"), "{plain}");
        assert_eq!(told.matches("\u{1b}]").count(), 0, "{told:?}");
        assert_eq!(plain.lines().filter(|line| line.starts_with("  content, ")).count(), 1, "{plain}");
    }
}
