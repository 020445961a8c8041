//! Messages that mean no good: each from a seed, and the same everywhere. The end-to-end tests send them, too.

use dagwright_model::request::Request;
use dagwright_wire::{proto::PipelineRequest, request::REQUESTED};
use prost::Message as _;
use serde_json::json;

/// A message.
pub(crate) struct Hostile {
    /// Its headers, in order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Its content.
    pub(crate) body: Vec<u8>,
    /// A side of a coin that was tossed for it.
    pub(crate) heads: bool,
}

/// Makes messages.
pub(crate) struct Hostility {
    seeds: Vec<Vec<u8>>,
    /// The deepest nesting.
    depth_max: usize,
    /// How often a body may be repeated, now and then.
    repeats_max: usize,
}

/// Values that attributes, members and headers are given.
const VALUES: [&str; 24] = [
    "",
    "null",
    "true",
    "-1",
    "1e999",
    "99999999999999999999",
    "\"\"",
    "\"1.0\"",
    "\"0.3\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\u{7f}\"",
    "\"not a uri\"",
    "\"../..\"",
    "\"2025-13-01T00:00:00Z\"",
    "\"application/*\"",
    "\"%C0%A0\"",
    "{}",
    "[]",
    "{\"a\":1,\"a\":2}",
    "{\"interval\":{\"start\":\"\"}}",
    "'",
    "\u{feff}{",
    "!!python/object:os.system",
];

const NAMES: [&str; 24] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "dataschema",
    "datacontenttype",
    "data",
    "data_base64",
    "traceparent",
    "partitionkey",
    "action",
    "spec",
    "pipeline",
    "revision",
    "run",
    "intent",
    "version",
    "sink",
    "",
    "X",
    "a\nb",
    "__proto__",
];

const CONTENT_TYPES: [&str; 12] = [
    "application/cloudevents+json",
    "application/cloudevents+json; charset=utf-8",
    "application/cloudevents+protobuf",
    "application/cloudevents-batch+json",
    "application/cloudevents+avro",
    "application/json",
    "application/yaml",
    "application/protobuf",
    "text/plain",
    "text/yaml; charset=utf-16",
    "json",
    "",
];

/// SplitMix64: small, seeded, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Bodies that are accepted, or nearly.
fn seeds() -> Vec<Vec<u8>> {
    let request = Request { spec: Some("version: 1\npipeline: p\n".into()), ..Request::default() };
    let event = |data: serde_json::Value| {
        json!({
            "specversion": "1.0", "id": "7", "source": "/acme", "type": REQUESTED, "time": "2025-01-01T00:00:00Z",
            "data": data,
        })
    };
    vec![
        b"version: 1\npipeline: p\nsource: {uri: s3://b/a.csv}\nsink: {uri: s3://b/out/, format: parquet, mode: replace}\n".to_vec(),
        event(json!({"action": "backfill", "pipeline": "p", "run": {"params": {"a": [1, {"b": null}]}}}))
            .to_string()
            .into(),
        event(json!({"version": 1, "pipeline": "p", "sources": {}})).to_string().into(),
        json!({"action": "apply", "revision": 7, "spec": {"version": 1, "pipeline": "p"}}).to_string().into(),
        PipelineRequest::from(&request).encode_to_vec(),
    ]
}

// === impl Hostility ===

impl Hostility {
    /// Makes them as deep and as long as is wanted.
    pub(crate) fn new(depth_max: usize, repeats_max: usize) -> Self {
        Self { seeds: seeds(), depth_max, repeats_max }
    }

    /// Makes the message of a seed.
    pub(crate) fn message(&self, seed: u64) -> Hostile {
        let mut chance = Chance(seed);
        let (headers, body) = (headers(&mut chance), self.body(&mut chance));
        Hostile { headers, body, heads: chance.below(2) == 0 }
    }

    fn body(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.seeds[chance.below(self.seeds.len())].clone();
        match chance.below(8) {
            // Bytes of no form at all.
            0 => (0..chance.below(300)).map(|_| chance.next().to_le_bytes()[0]).collect(),
            // A member that should not be there, or not so.
            1 | 2 if bytes.starts_with(b"{") => {
                let (name, value) = (chance.pick(&NAMES), chance.pick(&VALUES));
                let member = format!("{{{}:{value},", json!(name));
                bytes.splice(..1, member.into_bytes());
                bytes
            }
            // Something that nests without end, in the place of the data or alone.
            3 => {
                let deep = chance.pick(&["[", "{\"a\":", "- ", "[{\"a\":["]).repeat(chance.below(self.depth_max));
                let around = chance.pick(&["", "{\"run\":{\"params\":{\"a\":", "{\"spec\":", "{\"data\":", "a: "]);
                format!("{around}{deep}").into()
            }
            // Only the first part.
            4 => {
                bytes.truncate(chance.below(bytes.len()));
                bytes
            }
            // The same thing more often than it may be, and longer than it may be now and then.
            5 => {
                let end = if chance.below(50) == 0 { self.repeats_max } else { 5 };
                bytes.repeat(chance.below(end))
            }
            // Some bits are others.
            _ => {
                for _ in 0..=chance.below(8) {
                    let at = chance.below(bytes.len());
                    bytes[at] ^= 1 << chance.below(8);
                }
                bytes
            }
        }
    }
}

fn headers(chance: &mut Chance) -> Vec<(String, Vec<u8>)> {
    let mut headers = Vec::new();
    if chance.below(4) > 0 {
        headers.push(("content-type".to_owned(), chance.pick(&CONTENT_TYPES).as_bytes().to_vec()));
    }
    if chance.below(2) == 0 {
        let prefix = chance.pick(&["ce-", "ce_", "CE-"]);
        for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/acme"), ("type", REQUESTED)] {
            if chance.below(20) > 0 {
                headers.push((format!("{prefix}{name}"), value.into()));
            }
        }
        for _ in 0..chance.below(3) {
            let mut value = chance.pick(&VALUES).as_bytes().to_vec();
            if chance.below(4) == 0 {
                value.push(0xff);
            }
            headers.push((format!("{prefix}{}", chance.pick(&NAMES)), value));
        }
    }
    headers
}
