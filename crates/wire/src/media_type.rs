//! Content types: the grammar is crate `mime`'s, what they mean here is ours.

use mime::Mime;

/// Reads a content type (RFC 2046).
pub(crate) fn parse(text: &str) -> Option<Mime> {
    let parsed: Mime = text.parse().ok()?;
    // The parser lets an empty subtype pass, and a range such as `text/*`, which asks for a type and is none.
    let is_one = |name: mime::Name<'_>| name != "" && name != mime::STAR;
    (is_one(parsed.type_()) && is_one(parsed.subtype())).then_some(parsed)
}

/// Tells whether data of this type is JSON: `*/json` or `*/*+json`.
pub(crate) fn is_json(media_type: &Mime) -> bool {
    media_type.subtype() == mime::JSON || media_type.suffix() == Some(mime::JSON)
}

/// Tells whether data of this type is YAML, by RFC 9512 or as it was called before.
pub(crate) fn is_yaml(media_type: &Mime) -> bool {
    matches!(media_type.subtype().as_str(), "yaml" | "x-yaml") || media_type.suffix().is_some_and(|it| it == "yaml")
}

/// Tells whether data of this type is a protobuf message.
pub(crate) fn is_protobuf(media_type: &Mime) -> bool {
    matches!(media_type.essence_str(), "application/protobuf" | "application/x-protobuf")
}

/// Tells whether text of this type is UTF-8, as JSON and YAML here always are.
pub(crate) fn is_utf8(media_type: &Mime) -> bool {
    let charset = media_type.get_param(mime::CHARSET);
    charset.is_none_or(|charset| charset == mime::UTF_8 || charset.as_str().eq_ignore_ascii_case("us-ascii"))
}

#[cfg(test)]
mod tests {
    use super::{is_json, is_utf8, is_yaml, parse};

    #[test]
    fn content_types_are_read_as_rfc_2046_writes_them() {
        for (text, wanted) in [
            ("application/json", Some((true, false, true))),
            ("APPLICATION/JSON; Charset=\"UTF-8\"", Some((true, false, true))),
            ("application/vnd.acme+json", Some((true, false, true))),
            ("text/json", Some((true, false, true))),
            ("application/yaml", Some((false, true, true))),
            ("text/x-yaml;charset=utf-8", Some((false, true, true))),
            ("text/yaml; charset=latin1", Some((false, true, false))),
            ("application/jsonp", Some((false, false, true))),
            ("application", None),
            ("", None),
            ("/json", None),
            ("application/", None),
            ("application/*", None),
            ("*/*", None),
            ("a b/json", None),
            ("application/json; charset", None),
            ("application/json\n", None),
            ("application/jsön", None),
        ] {
            let found = parse(text).map(|it| (is_json(&it), is_yaml(&it), is_utf8(&it)));
            assert_eq!(found, wanted, "{text:?}");
        }
    }
}
