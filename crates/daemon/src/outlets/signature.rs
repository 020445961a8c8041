//! Signatures as Standard Webhooks has them: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64.
//!
//! Several secrets sign side by side, so that a receiver can be given a new one before the old one goes.
//! Specification: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret may begin with, so that scanners for secrets find it.
const PREFIX: &str = "whsec_";

/// How long a secret is, in bytes (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with one or more secrets.
#[derive(Clone)]
pub(crate) struct Signer(Vec<Hmac<Sha256>>);

/// Says why secrets cannot be used; holds nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("holds a secret that is not base64")]
    NotBase64,
    #[error("holds a secret of fewer than {min} or more than {max} bytes", min = SECRET_BYTES.start(), max = SECRET_BYTES.end())]
    Length,
}

// === impl Signer ===

impl Signer {
    /// Reads secrets with white space between them.
    pub(crate) fn new(secrets: &str) -> Result<Self, Unusable> {
        let read = |secret: &str| {
            let encoded = secret.strip_prefix(PREFIX).unwrap_or(secret);
            let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| Unusable::NotBase64)?;
            if !SECRET_BYTES.contains(&bytes.len()) {
                return Err(Unusable::Length);
            }
            Hmac::new_from_slice(&bytes).map_err(|_| Unusable::Length)
        };
        secrets.split_whitespace().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the value of the header `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let sign = |secret: &Hmac<Sha256>| {
            let mut mac = secret.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::{Signer, Unusable};

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn sign(secrets: &str) -> String {
        let signer = Signer::new(secrets).expect("usable");
        signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
    }

    #[test]
    fn the_specifications_example_is_signed_as_there() {
        assert_eq!(sign(SECRET), SIGNED);
        assert_eq!(sign(SECRET.trim_start_matches("whsec_")), SIGNED);
    }

    #[test]
    fn each_secret_signs() {
        let both = sign(&format!("whsec_{} {SECRET}", "QUFB".repeat(8)));
        let (first, second) = both.split_once(' ').expect("two");
        assert_eq!(second, SIGNED);
        assert!(first.starts_with("v1,") && first != SIGNED);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_told() {
        for (secrets, why) in [("whsec_#", Unusable::NotBase64), ("aHVudGVyMg==", Unusable::Length)] {
            let refused = Signer::new(secrets).expect_err("refused");
            assert_eq!(refused, why);
            assert!(!refused.to_string().contains(secrets));
        }
        assert_eq!(format!("{:?}", Signer::new(SECRET).expect("usable")), "***");
    }
}
