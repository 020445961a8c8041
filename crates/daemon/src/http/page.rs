//! Lists in parts: how far a part goes, and where the next one starts.
//!
//! A cursor is a place in the order of the list, not a number of items, so nothing is missed or told twice while things
//! are added. It is opaque: callers send back what they were given.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use dagwright_model::id::RequestId;
use dagwright_store::{Error as StoreError, Register, RequestSummary};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::Fault;

/// How many items a part has where nobody says.
const LIMIT: usize = 50;

/// The most items of one part.
const LIMIT_MAX: usize = 500;

/// The most requests that are looked at for one part, however few of them are wanted.
const SCAN_MAX: usize = 2_000;

/// How many are read at a time.
const BATCH: usize = 200;

/// A place in the list of requests: when the last one told came in, and its id.
pub(super) type Place = (u64, String);

/// Checks how many items are wanted.
pub(super) fn limit(wanted: Option<usize>) -> Result<usize, Fault> {
    match wanted {
        None => Ok(LIMIT),
        Some(wanted @ 1..=LIMIT_MAX) => Ok(wanted),
        Some(_) => {
            Err(Fault::bad(format!("limit is not between 1 and {LIMIT_MAX}"), "ask for fewer, and go on with next")
                .about("limit"))
        }
    }
}

/// Renders a place.
pub(super) fn cursor(place: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// Reads a place.
pub(super) fn place<T: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<T>, Fault> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let fault = || Fault::bad("cursor is none that this service has given", "send `next` of the part before");
    place.map(Some).ok_or_else(|| fault().about("cursor"))
}

/// Returns the newest requests after a place that `make` makes something of, at most `limit`, and where to go on.
pub(super) fn recent<T>(
    register: &dyn Register,
    pipeline: Option<&str>,
    mut place: Option<Place>,
    limit: usize,
    make: impl Fn(RequestSummary) -> Option<T>,
) -> Result<(Vec<T>, Option<Place>), StoreError> {
    let (mut items, mut scanned) = (Vec::new(), 0);
    loop {
        let before = place.take().map(|(at, request)| (at, RequestId(request)));
        let wanted = BATCH.min(limit - items.len());
        let found = register.recent(pipeline, before.as_ref().map(|(at, request)| (*at, request)), wanted)?;
        let is_end = found.len() < wanted;
        scanned += found.len();
        place = found.last().map(|last| (last.accepted_at, last.request.0.clone()));
        items.extend(found.into_iter().filter_map(&make));
        if is_end {
            return Ok((items, None));
        }
        if items.len() == limit || scanned >= SCAN_MAX {
            return Ok((items, place));
        }
    }
}
