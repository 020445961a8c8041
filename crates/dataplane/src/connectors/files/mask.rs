//! Makes values unreadable where they enter the process.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, new_null_array};
use dagwright_model::{code::Code, schema::DataType, spec::Mask};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::fault::Subject;
use crate::{error::Result, types::arrow_type};

/// What `mask: redact` shows.
const REDACTED: &str = "***";

/// A mask with its key.
#[derive(Clone)]
pub(crate) enum Masking {
    /// HMAC-SHA-256, keyed.
    Hmac(Box<Hmac<Sha256>>),
    /// A fixed text.
    Redact,
    /// NULL.
    Null,
}

// === impl Masking ===

impl Masking {
    /// Prepares a mask.
    ///
    /// # Errors
    /// DW0507 when it needs a key and there is none.
    pub(crate) fn new(mask: Mask, key: Option<&[u8]>, subject: &Subject) -> Result<Self> {
        Ok(match mask {
            Mask::Redact => Self::Redact,
            Mask::Null => Self::Null,
            Mask::Hmac => {
                let keyed = key.filter(|key| !key.is_empty()).and_then(|key| Hmac::new_from_slice(key).ok());
                Self::Hmac(Box::new(keyed.ok_or_else(|| {
                    subject.error(
                        Code::MaskKeyMissing,
                        "a column has `mask: hmac`, and there is no key",
                        "set DAGWRIGHT_MASK_KEY in the task's environment",
                    )
                })?))
            }
        })
    }

    /// Masks texts; NULL stays NULL. The result has type `data_type`, which is text unless the mask is NULL.
    pub(crate) fn apply(&self, texts: &StringArray, data_type: &DataType) -> ArrayRef {
        match self {
            Self::Null => new_null_array(&arrow_type(data_type), texts.len()),
            Self::Redact => Arc::new(texts.iter().map(|text| text.map(|_| REDACTED)).collect::<StringArray>()),
            Self::Hmac(keyed) => {
                let digest = |text: &str| {
                    let mut mac = keyed.as_ref().clone();
                    mac.update(text.as_bytes());
                    hex::encode(mac.finalize().into_bytes())
                };
                Arc::new(texts.iter().map(|text| text.map(digest)).collect::<StringArray>())
            }
        }
    }
}
