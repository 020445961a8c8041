//! Ten thousand seeded messages that mean no good: none panics, and each that is refused is refused with a code that
//! the requester can look up, in a message that is short and on one line.

use dagwright_model::{
    code::Code,
    request::Request,
    spec::{SPEC_BYTES_MAX, Spec},
};
use dagwright_wire::{
    cloudevent::{Binding, Message},
    proto::PipelineRequest,
    request::{self, REQUESTED},
};
use prost::Message as _;
use serde_json::json;

const MESSAGES: u64 = 10_000;

/// The longest message that an error may have: it goes into logs and headers.
const MESSAGE_LENGTH_MAX: usize = 250;

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

fn body(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
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
            let deep = chance.pick(&["[", "{\"a\":", "- ", "[{\"a\":["]).repeat(chance.below(40_000));
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
            let end = if chance.below(50) == 0 { 20_000 } else { 5 };
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

#[test]
fn hostile_messages_are_refused_with_a_code() {
    let seeds = seeds();
    let (mut accepted, mut refused, mut runnable) = (0, 0, 0);
    for seed in 0..MESSAGES {
        let mut chance = Chance(seed);
        let (headers, body) = (headers(&mut chance), body(&mut chance, &seeds));
        let headers: crate::Headers<'_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let binding = if chance.below(2) == 0 { Binding::Http } else { Binding::Kafka };
        match request::decode(Message { binding, headers: &headers, body: &body }) {
            Ok(received) => {
                accepted += 1;
                let Some(text) = received.spec_text() else { continue };
                match Spec::parse(text) {
                    Ok(_) => runnable += 1,
                    Err(diagnostics) => assert!(!diagnostics.0.is_empty(), "seed {seed}"),
                }
            }
            Err(error) => {
                refused += 1;
                let wanted = [Code::RequestInvalid, Code::RequestTooLarge, Code::SpecNotYet];
                assert!(wanted.contains(&error.code()), "seed {seed}: {} {error}", error.code());
                let message = error.to_string();
                let plain = message.chars().count() <= MESSAGE_LENGTH_MAX && !message.contains(char::is_control);
                assert!(plain, "seed {seed}: {message:?}");
            }
        }
    }
    // Every way out was taken more than once, so the messages were neither all junk nor all harmless.
    let enough = refused > 5_000 && accepted > 1_000 && runnable > 10;
    assert!(enough, "{refused} refused, {accepted} accepted, of which {runnable} are specs without a fault");
}

#[test]
fn the_largest_message_of_each_shape_is_read_within_its_bound() {
    let largest = |start: &str, fill: &str, end: &str| {
        let room = dagwright_wire::cloudevent::EVENT_BYTES_MAX - start.len() - end.len() - 100;
        format!("{start}{}{end}", fill.repeat(room / fill.len()))
    };
    let json = "application/cloudevents+json";
    for (content_type, body) in [
        (json, largest("{", "\"a\":1,", "\"b\":1}")),
        (json, largest("{\"data\":", "[", "")),
        (json, largest("{\"data\":", "{\"a\":", "")),
        (json, largest("{\"id\":\"", "\\u0041", "\"}")),
        ("application/json", largest("{\"run\":{\"params\":{\"a\":[", "1,", "1]}},\"oops\":1}")),
        ("application/json", largest("{\"spec\":{},\"spec\":", "[", "")),
        ("application/json", largest("", " ", "")),
    ] {
        let body = body.as_bytes();
        let read = crate::with(Binding::Http, &[("content-type", content_type)], body, request::decode);
        assert_eq!(read.expect_err("refused").code(), Code::RequestInvalid);
    }
    // The reader of requests leaves the length of specs to the reader of specs.
    let spec = largest("", "- ", "");
    let read = crate::with(Binding::Http, &[], spec.as_bytes(), request::decode).expect("text");
    let diagnostics = Spec::parse(read.spec_text().expect("a spec")).expect_err("refused");
    assert_eq!(diagnostics.0[0].code, Code::SpecTooLarge);
    assert!(spec.len() > SPEC_BYTES_MAX);
}
