//! Signatures as Standard Webhooks has them: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64.
//!
//! Several secrets sign side by side, so that a receiver can be given a new one before the old one goes. What others sign is
//! checked by the same rule: it is theirs if one of their signatures is by one of our secrets.
//! Specification: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// What a secret may begin with, so that scanners for secrets find it.
const PREFIX: &str = "whsec_";

/// How long a secret is, in bytes (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How many signatures are looked at: nobody changes more secrets at a time.
const SIGNATURES_MAX: usize = 8;

/// Signs with one or more secrets, and checks what others signed with them.
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

    /// Tells whether there is no secret, so that nothing is signed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of the header `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signatures =
            self.digests(id, timestamp, body).map(|digest| format!("v1,{}", BASE64_STANDARD.encode(digest)));
        signatures.collect::<Vec<_>>().join(" ")
    }

    /// Tells whether one of the signatures in a header `webhook-signature` is by one of the secrets. How long that takes
    /// tells nothing of which, or of how much of it fits.
    pub(crate) fn verify(&self, id: &str, timestamp: u64, body: &[u8], signatures: &str) -> bool {
        let given = signatures.split_ascii_whitespace().take(SIGNATURES_MAX);
        let given = given.filter_map(|signature| BASE64_STANDARD.decode(signature.strip_prefix("v1,")?).ok());
        let given: Vec<_> = given.collect();
        let fits = self.digests(id, timestamp, body).fold(Choice::from(0), |fits, digest| {
            given.iter().fold(fits, |fits, given| fits | digest.as_slice().ct_eq(given))
        });
        bool::from(fits)
    }

    /// Returns what each secret makes of a message.
    fn digests(&self, id: &str, timestamp: u64, body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        self.0.iter().map(move |secret| {
            let mut mac = secret.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            mac.finalize().into_bytes().to_vec()
        })
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
    fn what_others_signed_is_told_from_what_they_did_not() {
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let other = format!("whsec_{}", "QUFB".repeat(8));
        let verify = |secrets: &str, signatures: &str| {
            Signer::new(secrets).expect("usable").verify(id, timestamp, body, signatures)
        };
        assert!(verify(SECRET, SIGNED));
        assert!(verify(&format!("{other} {SECRET}"), SIGNED), "the old one is still good");
        assert!(verify(SECRET, &sign(&format!("{other} {SECRET}"))), "the new one is not known yet");
        assert!(verify(SECRET, &format!("v1a,ed25519 junk v1,### {SIGNED}")));
        let unsigned = SIGNED.trim_start_matches("v1,");
        let short = format!("{}=", SIGNED.get(..40).expect("long"));
        for wrong in ["", "v1,", " ", unsigned, &short, &SIGNED.replace("v1,", "v2,"), &SIGNED.replace("v1,g", "v1,h")]
        {
            assert!(!verify(SECRET, wrong), "{wrong}");
        }
        assert!(!verify(&other, SIGNED));
        assert!(!verify("", SIGNED), "without a secret nobody is known");
        assert!(!verify(SECRET, &format!("{}{SIGNED}", "v1,QUFB ".repeat(8))), "as many as anybody needs");
        let signer = Signer::new(SECRET).expect("usable");
        for (id, timestamp, body) in [("x", timestamp, &body[..]), (id, timestamp + 1, body), (id, timestamp, b"{}")] {
            assert!(!signer.verify(id, timestamp, body, SIGNED));
        }
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
