//! Reads JSON strictly, without losing digits: numbers stay text.
//!
//! Deliberately not `serde_json`: its numbers are doubles or 64-bit integers, and a reader of NDJSON wants to pass over
//! what it does not need and to keep the exact text of what it does.

use std::borrow::Cow;

/// How deep values may nest; deeper is refused, so that hostile files cannot exhaust the stack.
const DEPTH_MAX: usize = 64;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written.
    Number(&'a str),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object; keys in the order written.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// What kind of value a token starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `null`
    Null,
    /// A number, `true` or `false`.
    Literal,
    /// A string.
    String,
    /// An array or object.
    Nested,
}

/// Reads tokens from text.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A token's place: of a string, what is between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Where its text starts.
    pub(crate) start: usize,
    /// Where its text ends.
    pub(crate) end: usize,
    /// For strings: whether there are escapes in it.
    pub(crate) escaped: bool,
}

// === impl Json ===

impl<'a> Json<'a> {
    /// Reads one value that is all of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let value = reader.value(0)?;
        reader.ends().then_some(value)
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Starts at the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Calls `member` for each member of the object that is all of the text; `None` when it is not one object.
    ///
    /// Keys are given as they stand, with whether they hold escapes.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&'a [u8], bool, Token)) -> Option<()> {
        self.expect(b'{')?;
        if !self.accept(b'}') {
            loop {
                let key = self.string()?;
                self.expect(b':')?;
                let value = self.token(1)?;
                member(&self.bytes[key.start..key.end], key.escaped, value);
                if self.accept(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.ends().then_some(())
    }

    fn ends(&mut self) -> bool {
        self.space();
        self.at == self.bytes.len()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn accept(&mut self, wanted: u8) -> bool {
        self.space();
        let found = self.bytes.get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        self.accept(wanted).then_some(())
    }

    /// Passes over one value.
    fn token(&mut self, depth: usize) -> Option<Token> {
        self.space();
        let start = self.at;
        let kind = match self.bytes.get(start)? {
            b'"' => return self.string(),
            open @ (b'[' | b'{') if depth < DEPTH_MAX => {
                self.at += 1;
                let close = if *open == b'[' { b']' } else { b'}' };
                if !self.accept(close) {
                    loop {
                        if *open == b'{' {
                            self.string()?;
                            self.expect(b':')?;
                        }
                        self.token(depth + 1)?;
                        if self.accept(close) {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
                Kind::Nested
            }
            b'n' => self.word(b"null", Kind::Null)?,
            b't' => self.word(b"true", Kind::Literal)?,
            b'f' => self.word(b"false", Kind::Literal)?,
            _ => self.number()?,
        };
        Some(Token { kind, start, end: self.at, escaped: false })
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Option<Kind> {
        self.bytes[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            kind
        })
    }

    fn number(&mut self) -> Option<Kind> {
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while reader.bytes.get(reader.at).is_some_and(u8::is_ascii_digit) {
                reader.at += 1;
            }
            (reader.at > from).then_some(())
        };
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        digits(self)?;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            digits(self)?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            digits(self)?;
        }
        Some(Kind::Literal)
    }

    fn string(&mut self) -> Option<Token> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', &self.bytes[self.at..])?;
            if self.bytes[self.at] == b'"' {
                let end = self.at;
                self.at += 1;
                return Some(Token { kind: Kind::String, start, end, escaped });
            }
            escaped = true;
            self.at += 2;
            if self.at > self.bytes.len() {
                return None;
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json<'a>> {
        self.space();
        if depth >= DEPTH_MAX {
            return None;
        }
        match self.bytes.get(self.at)? {
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                if !self.accept(b']') {
                    loop {
                        items.push(self.value(depth + 1)?);
                        if self.accept(b']') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
                Some(Json::Array(items))
            }
            b'{' => {
                self.at += 1;
                let mut members = Vec::new();
                if !self.accept(b'}') {
                    loop {
                        let key = self.string()?;
                        let key = self.unescaped(key)?;
                        self.expect(b':')?;
                        members.push((key, self.value(depth + 1)?));
                        if self.accept(b'}') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
                Some(Json::Object(members))
            }
            _ => {
                let token = self.token(depth)?;
                let text = &self.bytes[token.start..token.end];
                Some(match token.kind {
                    Kind::Null => Json::Null,
                    Kind::String => Json::String(self.unescaped(token)?),
                    Kind::Literal if text == b"true" => Json::Bool(true),
                    Kind::Literal if text == b"false" => Json::Bool(false),
                    Kind::Literal | Kind::Nested => Json::Number(std::str::from_utf8(text).ok()?),
                })
            }
        }
    }

    fn unescaped(&self, token: Token) -> Option<Cow<'a, str>> {
        let text = &self.bytes[token.start..token.end];
        if !token.escaped {
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        let mut clean = Vec::with_capacity(text.len());
        unescape(text, &mut clean)?;
        String::from_utf8(clean).ok().map(Cow::Owned)
    }
}

/// Removes the escapes from what stands between a string's quotes; `None` for an invalid escape.
pub(crate) fn unescape(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        into.extend_from_slice(&rest[..at]);
        let (&kind, tail) = rest[at + 1..].split_first()?;
        rest = tail;
        into.push(match kind {
            b'"' | b'\\' | b'/' => kind,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (unit, tail) = unit(rest)?;
                rest = tail;
                let scalar = match unit {
                    0xd800..=0xdbff => {
                        let (low, tail) = unit_after_escape(rest)?;
                        rest = tail;
                        0x10000 + ((unit - 0xd800) << 10) + (low.checked_sub(0xdc00).filter(|low| *low < 0x400)?)
                    }
                    _ => unit,
                };
                let mut utf8 = [0; 4];
                into.extend_from_slice(char::from_u32(scalar)?.encode_utf8(&mut utf8).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    into.extend_from_slice(rest);
    Some(())
}

fn unit_after_escape(text: &[u8]) -> Option<(u32, &[u8])> {
    unit(text.strip_prefix(b"\\u")?)
}

fn unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

/// Writes text as a JSON string, quotes included.
pub(crate) fn write_string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        into.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        match byte {
            b'"' | b'\\' => into.extend([b'\\', *byte]),
            b'\n' => into.extend(b"\\n"),
            b'\r' => into.extend(b"\\r"),
            b'\t' => into.extend(b"\\t"),
            _ => into.extend(format!("\\u{byte:04x}").bytes()),
        }
    }
    into.extend_from_slice(&bytes[done..]);
    into.push(b'"');
}

/// Writes a value as JSON.
pub(crate) fn write(value: &Json<'_>, into: &mut Vec<u8>) {
    match value {
        Json::Null => into.extend(b"null"),
        Json::Bool(value) => into.extend(value.to_string().bytes()),
        Json::Number(text) => into.extend(text.bytes()),
        Json::String(text) => write_string(text, into),
        Json::Array(items) => {
            into.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write(item, into);
            }
            into.push(b']');
        }
        Json::Object(members) => {
            into.push(b'{');
            for (index, (key, item)) in members.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_string(key, into);
                into.push(b':');
                write(item, into);
            }
            into.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Json, Reader, write};

    #[test]
    fn values_are_read_strictly() {
        for good in ["null", "-0.5e+3", "\"a\\u00e9\\ud83d\\ude00\\n\"", "[1,[],{}]", " {\"a\" : [ true , null ] } "] {
            assert!(Json::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "nul", "1.", "01x", "\"\\x\"", "\"\\ud800\"", "[1,]", "{\"a\":}", "{a:1}", "1 2", "\"", "\"\\"]
        {
            assert!(Json::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_none());
        assert!(Reader::new("{\"a\":".repeat(100_000).as_bytes()).object(|_, _, _| ()).is_none());
    }

    #[test]
    fn values_are_written_as_read() {
        for text in [r#"{"a\"b":[1.50,"x\ny",null,true],"c":{}}"#, r#""\u0001""#] {
            let mut written = Vec::new();
            write(&Json::parse(text.as_bytes()).unwrap(), &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }
}
