//! The layout of the ordered map: which key holds what.
//!
//! Every key starts with a byte for its kind. Texts inside a key end with a zero byte and may hold none, so no key is
//! a prefix of another kind's or another text's. Numbers are big-endian: their order is the order of keys.

use dagwright_model::{
    ask::AskKind,
    id::{PlanHash, RequestId},
};

/// The longest text in a key, in bytes: twice the longest `dag_id`.
const TEXT_BYTES_MAX: usize = 512;

/// `r <request> <sequence>` → the record, protobuf.
const RECORD: u8 = b'r';
/// `s <request>` → its summary, JSON.
const SUMMARY: u8 = b's';
/// `p <pipeline> <accepted at> <request>` → nothing.
const OF_PIPELINE: u8 = b'p';
/// `u <run key>` → the newest unfinished request.
const UNFINISHED: u8 = b'u';
/// `b <pipeline>` → the plan it last ran.
const BASELINE: u8 = b'b';
/// `l <plan>` → the plan, canonical JSON.
const PLAN: u8 = b'l';
/// `f <question>` → the latest answer, JSON.
const FACT: u8 = b'f';
/// `o <accepted at> <request>` → nothing.
const OPEN: u8 = b'o';
/// `t <accepted at> <request>` → nothing.
const BY_TIME: u8 = b't';
/// `w <accepted at> <request>` → nothing; of those that were only planned.
const LOOKED: u8 = b'w';
/// `k <plan> <0: sealed, 1: used again> <request>` → nothing.
const OF_PLAN: u8 = b'k';
/// `q <pipeline>` → its summary, JSON.
const PIPELINE: u8 = b'q';
/// `e <position>` → the event, JSON.
const EVENT: u8 = b'e';
/// `c <log>` → the position up to which it was absorbed, big-endian.
const REACHED: u8 = b'c';
/// `d <reader>` → the position up to which it has delivered, big-endian.
const DELIVERED: u8 = b'd';
/// `m <name>` → how far something outside was read, big-endian.
const BOOKMARK: u8 = b'm';
/// `a <request> <kind>` → what is asked and not settled, protobuf.
const ASK: u8 = b'a';

pub(crate) fn record(request: &RequestId, sequence: u64) -> Vec<u8> {
    let mut key = texts(RECORD, &[&request.0]);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

pub(crate) fn summary(request: &RequestId) -> Vec<u8> {
    texts(SUMMARY, &[&request.0])
}

pub(crate) fn of_pipeline(pipeline: &str, accepted_at: u64, request: &RequestId) -> Vec<u8> {
    let mut key = texts(OF_PIPELINE, &[pipeline]);
    key.extend_from_slice(&accepted_at.to_be_bytes());
    key.extend_from_slice(request.0.as_bytes());
    key
}

/// Returns the first key of a pipeline's requests, and the first after them.
pub(crate) fn of_pipeline_range(pipeline: &str) -> (Vec<u8>, Vec<u8>) {
    until_next(texts(OF_PIPELINE, &[pipeline]))
}

/// Returns the request of a key made by [`of_pipeline`].
pub(crate) fn request_of_pipeline(key: &[u8], pipeline: &str) -> Option<RequestId> {
    let rest = key.get(1 + pipeline.len() + 1 + size_of::<u64>()..)?;
    String::from_utf8(rest.to_vec()).ok().map(RequestId)
}

pub(crate) fn unfinished(run_key: &str) -> Vec<u8> {
    texts(UNFINISHED, &[run_key])
}

pub(crate) fn baseline(pipeline: &str) -> Vec<u8> {
    texts(BASELINE, &[pipeline])
}

pub(crate) fn plan(hash: &PlanHash) -> Vec<u8> {
    texts(PLAN, &[&hash.0])
}

pub(crate) fn fact(key: &str) -> Vec<u8> {
    texts(FACT, &[key])
}

pub(crate) fn open(accepted_at: u64, request: &RequestId) -> Vec<u8> {
    timed(OPEN, accepted_at, &request.0)
}

pub(crate) fn by_time(accepted_at: u64, request: &RequestId) -> Vec<u8> {
    timed(BY_TIME, accepted_at, &request.0)
}

pub(crate) fn looked(accepted_at: u64, request: &RequestId) -> Vec<u8> {
    timed(LOOKED, accepted_at, &request.0)
}

/// Returns the time of a key made by [`open`], [`by_time`] or [`looked`].
pub(crate) fn time(key: &[u8]) -> Option<u64> {
    key.get(1..1 + size_of::<u64>())?.try_into().ok().map(u64::from_be_bytes)
}

/// Returns the key that a plan was sealed for a request.
pub(crate) fn sealed(plan: &PlanHash, request: &RequestId) -> Vec<u8> {
    of_plan(plan, 0, request)
}

/// Returns the key that a plan was used again for a request.
pub(crate) fn reused(plan: &PlanHash, request: &RequestId) -> Vec<u8> {
    of_plan(plan, 1, request)
}

/// Returns the first key of the requests that a plan was sealed for, the first of those that it was used again for, and
/// the first after both.
pub(crate) fn of_plan_ranges(plan: &PlanHash) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|kind| {
        let mut key = texts(OF_PLAN, &[&plan.0]);
        key.push(kind);
        key
    })
}

/// Returns the first key of a request's records, and the first after them.
pub(crate) fn records_range(request: &RequestId) -> (Vec<u8>, Vec<u8>) {
    let first = texts(RECORD, &[&request.0]);
    let mut end = first.clone();
    // The last byte is the zero that ends the text.
    *end.last_mut().expect("a key is not empty") = 1;
    (first, end)
}

/// Returns the request of a key made by [`open`], [`by_time`] or [`looked`].
pub(crate) fn timed_request(key: &[u8]) -> Option<RequestId> {
    let rest = key.get(1 + size_of::<u64>()..)?;
    String::from_utf8(rest.to_vec()).ok().map(RequestId)
}

/// Returns the first key of the open requests, and the first after them.
pub(crate) fn open_range() -> (Vec<u8>, Vec<u8>) {
    (vec![OPEN], vec![OPEN + 1])
}

/// Returns the first key of the requests by time.
pub(crate) fn by_time_first() -> Vec<u8> {
    vec![BY_TIME]
}

/// Returns the first key after the requests by time.
pub(crate) fn by_time_end() -> Vec<u8> {
    vec![BY_TIME + 1]
}

pub(crate) fn pipeline(pipeline: &str) -> Vec<u8> {
    texts(PIPELINE, &[pipeline])
}

/// Returns the first key after a pipeline's own (all of them for the empty text), and the first after all pipelines.
pub(crate) fn pipelines_after(pipeline: &str) -> (Vec<u8>, Vec<u8>) {
    let mut first = vec![PIPELINE];
    if !pipeline.is_empty() {
        first.extend_from_slice(pipeline.as_bytes());
        first.push(1);
    }
    (first, vec![PIPELINE + 1])
}

pub(crate) fn event(position: u64) -> Vec<u8> {
    let mut key = vec![EVENT];
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// Returns the position of a key made by [`event`].
pub(crate) fn event_position(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

pub(crate) fn reached(log: &str) -> Vec<u8> {
    texts(REACHED, &[log])
}

pub(crate) fn delivered(reader: &str) -> Vec<u8> {
    texts(DELIVERED, &[reader])
}

pub(crate) fn bookmark(name: &str) -> Vec<u8> {
    texts(BOOKMARK, &[name])
}

pub(crate) fn ask(request: &RequestId, kind: AskKind) -> Vec<u8> {
    texts(ASK, &[&request.0, kind.as_str()])
}

/// Returns the first key of what is asked about a request, and the first after it.
pub(crate) fn asks_of(request: &RequestId) -> (Vec<u8>, Vec<u8>) {
    until_next(texts(ASK, &[&request.0]))
}

/// Returns the first key of everything that is asked, and the first after it.
pub(crate) fn asks() -> (Vec<u8>, Vec<u8>) {
    (vec![ASK], vec![ASK + 1])
}

/// Returns the request and the kind of a key made by [`ask`].
pub(crate) fn asked(key: &[u8]) -> Option<(RequestId, AskKind)> {
    let mut parts = key.get(1..)?.split(|byte| *byte == 0).map(|part| str::from_utf8(part).ok());
    let (request, kind) = (parts.next()??, parts.next()??);
    Some((RequestId(request.into()), AskKind::named(kind)?))
}

/// Tells whether a text may stand in a key.
pub(crate) fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains('\0')
}

fn of_plan(plan: &PlanHash, kind: u8, request: &RequestId) -> Vec<u8> {
    let mut key = texts(OF_PLAN, &[&plan.0]);
    key.push(kind);
    key.extend_from_slice(request.0.as_bytes());
    key
}

/// Returns the start of some keys, which ends with a text, and the first key after them.
fn until_next(first: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = first.clone();
    // The last byte is the zero that ends the text.
    *end.last_mut().expect("a key is not empty") = 1;
    (first, end)
}

fn timed(kind: u8, at: u64, text: &str) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&at.to_be_bytes());
    key.extend_from_slice(text.as_bytes());
    key
}

fn texts(kind: u8, texts: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    for text in texts {
        key.extend_from_slice(text.as_bytes());
        key.push(0);
    }
    key
}
