//! Ten thousand seeded messages that mean no good: none panics, and each that is refused is refused with a code that
//! the requester can look up, in a message that is short and on one line.

mod messages;

use dagwright_model::{
    code::Code,
    spec::{SPEC_BYTES_MAX, Spec},
};
use dagwright_wire::{
    cloudevent::{Binding, Message},
    request,
};

use self::messages::Hostility;

const MESSAGES: u64 = 10_000;

/// The longest message that an error may have: it goes into logs and headers.
const MESSAGE_LENGTH_MAX: usize = 250;

#[test]
fn hostile_messages_are_refused_with_a_code() {
    let hostility = Hostility::new(40_000, 20_000);
    let (mut accepted, mut refused, mut runnable) = (0, 0, 0);
    for seed in 0..MESSAGES {
        let message = hostility.message(seed);
        let headers: crate::Headers<'_> =
            message.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let binding = if message.heads { Binding::Http } else { Binding::Kafka };
        match request::decode(Message { binding, headers: &headers, body: &message.body }) {
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
