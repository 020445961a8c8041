//! Whatever the model can say survives protobuf, and nothing else gets in.

mod values;

use dagwright_model::{
    ask::Ask,
    code::Code,
    letter::{Letter, Post, Presence},
    message::Envelope,
    record::Record,
    task::TaskEvent,
    task::TaskRun,
};
use dagwright_wire::{
    Error, ask,
    letter::{self, Encoding},
    proto, record,
};
use proptest::prelude::{ProptestConfig, any, proptest};
use prost::Message;

/// Enough for every variant to occur many times; each case is some microseconds.
const CASES: u32 = 300;

/// Takes a value to bytes and back, and checks that equal values are equal bytes.
#[track_caller]
fn check<M, P>(value: &M)
where
    M: TryFrom<P, Error = Error> + PartialEq + std::fmt::Debug,
    P: for<'a> From<&'a M> + Message + Default,
{
    let bytes = P::from(value).encode_to_vec();
    let read = M::try_from(P::decode(&*bytes).expect("decodes")).expect("converts");
    assert_eq!(read, *value);
    assert_eq!(P::from(&read).encode_to_vec(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn task_runs_survive(run in values::task_run()) {
        check::<TaskRun, proto::TaskRun>(&run);
    }

    #[test]
    fn task_events_survive_protobuf_and_json(event in values::task_event()) {
        check::<TaskEvent, proto::TaskEvent>(&event);
        let mut decoder = dagwright_wire::jsonl::Decoder::default();
        assert_eq!(decoder.push(dagwright_wire::jsonl::encode(&event).as_bytes()), [event]);
    }

    #[test]
    fn envelopes_survive(envelope in values::envelope()) {
        check::<Envelope, proto::Envelope>(&envelope);
    }

    #[test]
    fn letters_survive_protobuf_and_json(envelope in values::envelope(), host in "[a-z0-9.-]{1,20}") {
        let session = dagwright_model::id::RequestId("s".into());
        let party = envelope.from.clone();
        let presence = Presence { party, host: host.clone(), incarnation: host.clone(), leaving: envelope.sequence % 2 == 0 };
        let envelope = Envelope { session, ..envelope };
        let letter = Letter { from_host: host.clone(), to_host: host, envelope };
        for post in [Post::Letter(letter), Post::Presence(presence)] {
            for encoding in [Encoding::Protobuf, Encoding::Json] {
                let bytes = letter::encode(&post, encoding);
                let (read, found) = letter::decode(&bytes).expect("reads");
                assert_eq!((&read, found), (&post, encoding));
                assert_eq!(letter::encode(&read, encoding), bytes);
            }
        }
    }

    #[test]
    fn junk_letters_are_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), json: bool) {
        if json {
            bytes.insert(0, b'{');
        }
        if let Err(error) = letter::decode(&bytes) {
            assert_eq!(error.code(), Code::MessageInvalid);
        }
    }

    #[test]
    fn records_survive(value in values::record()) {
        check::<Record, proto::Record>(&value);
        assert_eq!(record::decode(&record::encode(&value)).expect("reads"), value);
    }

    #[test]
    fn asks_survive(value in values::ask()) {
        check::<Ask, proto::Ask>(&value);
        assert_eq!(ask::decode(&ask::encode(&value)).expect("reads"), value);
        let key = ask::key(&value.request, value.kind());
        assert!(ask::is_key(key.as_bytes()) && !ask::is_key(format!("{}/7", value.request).as_bytes()));
    }

    #[test]
    fn junk_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Err(error) = record::decode(&bytes) {
            assert_eq!(error.code(), Code::MessageInvalid);
        }
    }

    #[test]
    fn damaged_records_are_refused_or_differ(value in values::record(), at in any::<proptest::sample::Index>(), bit in 0..8) {
        let mut bytes = record::encode(&value);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(read) = record::decode(&bytes) {
            // A flipped bit in a default that is not transmitted may read as the same value, but never as junk.
            let _ = record::encode(&read);
        }
    }
}

#[test]
fn letters_that_mean_no_good_are_refused() {
    let deep = format!("{{\"letter\":{}", "[".repeat(100_000));
    let nul = r#"{"presence":{"party":{"role":"loading","instance":"a"},"host":"a\u0000","incarnation":"1"}}"#;
    let long = format!(
        r#"{{"presence":{{"party":{{"role":"loading","instance":"a"}},"host":"a","incarnation":"{}"}}}}"#,
        "1".repeat(257)
    );
    let nameless = r#"{"presence":{"party":{"role":"loading","instance":"a"},"host":"","incarnation":"1"}}"#;
    let stranger = r#"{"presence":{"party":{"role":"cook","instance":"a"},"host":"a","incarnation":"1"}}"#;
    let twice = r#"{"letter":{},"presence":{}}"#;
    for (text, wanted) in [
        ("", "field post is missing"),
        ("{}", "does not hold the JSON"),
        (&deep, "does not hold the JSON"),
        (nul, "field presence.host is not a name"),
        (&long, "field presence.incarnation is not a name"),
        (nameless, "field presence.host is missing"),
        (stranger, "does not hold the JSON"),
        (twice, "does not hold the JSON"),
        (&" ".repeat(letter::POST_BYTES_MAX + 1), "at most"),
    ] {
        let error = letter::decode(text.as_bytes()).expect_err(text);
        assert!(error.to_string().contains(wanted), "{error} instead of {wanted}");
    }
}

#[test]
fn what_is_not_said_or_not_known_is_refused() {
    let outcome = |status| proto::Outcome { status, counts: Some(proto::Counts::default()), ..Default::default() };
    let event = |event| proto::TaskEvent { event };
    let read = |wire: proto::TaskEvent| TaskEvent::try_from(wire).map_err(|error| error.to_string());
    let ended = |status| read(event(Some(proto::task_event::Event::Outcome(outcome(status)))));
    assert!(ended(proto::Status::Succeeded.into()).is_ok());
    let cases = [
        (ended(0), "field outcome.status is missing"),
        (ended(77), "field outcome.status holds the unknown value 77"),
        (read(event(None)), "field task_event.event is missing"),
        (
            read(event(Some(proto::task_event::Event::Warning(proto::Problem {
                code: "DW9999".into(),
                ..Default::default()
            })))),
            "field problem.code is not an error code",
        ),
        (
            read(event(Some(proto::task_event::Event::Outcome(proto::Outcome {
                cursors: [("Robert'); --".to_string(), String::new())].into(),
                ..outcome(1)
            })))),
            "field outcome.cursors is not a name matching ^[a-z][a-z0-9_]{0,127}$",
        ),
    ];
    for (result, wanted) in cases {
        assert_eq!(result.expect_err(wanted), wanted);
    }
}

#[test]
fn nested_json_is_checked_and_never_quoted() {
    let secret = r#"{"kind":"move","hunter2":"#;
    let task = proto::TaskSpec {
        version: 1,
        pipeline: "p".into(),
        id: "t".into(),
        work_json: secret.into(),
        ..Default::default()
    };
    let error = dagwright_model::task::TaskSpec::try_from(task).expect_err("refused");
    assert!(error.to_string().starts_with("field task_spec.work_json does not hold the JSON wanted there"), "{error}");
    assert!(!error.to_string().contains("hunter2"));
}
