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
    // Each part is looked at once, however many there are.
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>')) {
        let mut parts: Vec<_> = word.split('@').collect();
        // What follows the last `@` is a host, not user information.
        parts.pop();
        let user_of = |part: &'_ str| part.rsplit_once("://").map(|(_, user)| user.to_owned());
        if parts.into_iter().filter_map(user_of).any(|user| has_password(&user)) {
            return Some("a password in a URL");
        }
    }
    None
}

/// Tells whether what stands between `://` and `@` is a user and a password, which may hold `/` where nobody escaped it.
fn has_password(user: &str) -> bool {
    let Some((name, password)) = user.split_once(':') else { return false };
    // `https://host:8080/@scope/x` has a port and a path there, `file:///me:you@home` only a path.
    let port = password.split_once('/').map(|(port, _)| port);
    let is_port = port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    !password.is_empty() && !name.contains('/') && !is_port
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
            "postgresql://me:hunter2@db/x?from=https://a@b",
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
            "s3://bucket/a:b@c.csv",
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
