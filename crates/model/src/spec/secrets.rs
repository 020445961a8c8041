//! Finds credentials that stand in a spec, where none belong.
//!
//! A net, not a proof: it knows the forms in which credentials end up in pipeline definitions by habit (passwords in
//! URLs, signed URLs, connection strings, private keys). What it finds is named by its kind and never repeated.

/// Query parameters that carry a credential, in lower case.
const SECRET_PARAMETERS: [&str; 28] = [
    "access_key",
    "access_token",
    "accesskey",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "aws_secret_access_key",
    "aws_session_token",
    "client_secret",
    "credential",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pgpassword",
    "pwd",
    "secret",
    "secret_access_key",
    "secretaccesskey",
    "sig",
    "signature",
    "sslpassword",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-signature",
];

/// Finds a credential in a URI: user information, or a parameter of the query.
pub(super) fn in_uri(uri: &str) -> Option<&'static str> {
    if let Some((_, rest)) = uri.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        // A password may hold any of these characters unescaped, so the wider text counts as well.
        if authority.contains('@') {
            return Some("user information before the host");
        }
    }
    in_text(uri).or_else(|| {
        let query = uri.split_once('?')?.1;
        in_pairs(query.split(['&', ';', '#']))
    })
}

/// Finds a credential in free text: a URL with a password, or a private key.
pub(super) fn in_text(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        rest = &rest[at + 3..];
        // Up to the next white space or quote: a password may hold `/`, `?` or `#` where nobody escaped it.
        let word = rest.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>')).next()?;
        let user = word.rsplit_once('@').map(|(user, _)| user);
        let password = user.and_then(|user| user.split_once(':')).map(|(_, password)| password);
        // `https://host:8080/@scope/x` has a port and a path before the `@`, no password.
        let port_and_path = |text: &str| {
            text.split_once('/').is_some_and(|(port, _)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        };
        if password.is_some_and(|password| !password.is_empty() && !port_and_path(password) && !word.starts_with('/')) {
            return Some("a password in a URL");
        }
    }
    None
}

/// Finds a credential in a text literal of SQL: as in free text, or `password=…` of a connection string.
pub(super) fn in_literal(literal: &str) -> Option<&'static str> {
    in_uri(literal)
        .or_else(|| in_pairs(literal.split(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '?' | ','))))
}

/// Tells whether a key or parameter of this name carries a credential.
pub(super) fn is_secret_name(name: &str) -> bool {
    SECRET_PARAMETERS.contains(&name.trim().to_ascii_lowercase().as_str())
}

fn in_pairs<'a>(mut pairs: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let secret =
        |pair: &str| pair.split_once('=').is_some_and(|(name, value)| !value.is_empty() && is_secret_name(name));
    pairs.any(secret).then_some("a parameter that carries a credential")
}

#[cfg(test)]
mod tests {
    use super::{in_literal, in_text, in_uri};

    #[test]
    fn credentials_in_uris_are_found() {
        for uri in [
            "postgresql://me:hunter2@db/x",
            "postgresql://me:hun/ter2@db/x",
            "postgresql://:hunter2@db/x",
            "https://token@example.org/x.csv",
            "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature=0f",
            "az://c/x.csv?sv=2020&sig=abc%3D",
            "https://example.org/x.csv?a=1&PASSWORD=x",
            "https://example.org/x.csv?token=x",
        ] {
            assert!(in_uri(uri).is_some(), "{uri}");
        }
        for uri in [
            "data/flights-*.csv",
            "s3://bucket/a@b.csv",
            "https://example.org:8080/@scope/x.csv?page=1",
            "https://example.org/x.csv?token=",
            "file:///data/me:you@home.csv",
            "https://example.org/design=x",
        ] {
            assert_eq!(in_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn credentials_in_text_are_found() {
        assert!(in_text("see postgresql://me:pw@db/x for it").is_some());
        assert!(in_text("-----BEGIN RSA PRIVATE KEY-----\nMII").is_some());
        assert_eq!(in_text("see https://example.org/a:b, mail me@example.org"), None);
        assert!(in_literal("host=db user=me password=hunter2").is_some());
        assert!(in_literal("postgresql://db/x?user=me&password=hunter2").is_some());
        assert_eq!(in_literal("the password = of doors"), None);
        assert_eq!(in_literal("late"), None);
    }
}
