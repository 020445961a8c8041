//! CloudEvents to the letter: what is accepted, what is refused, and that everything survives a round trip.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    code::Code,
    event::{EventData, EventKind},
};
use dagwright_wire::{
    cloudevent::{self, Binding, CloudEvent, Data, EVENT_BYTES_MAX, JsonText},
    cloudevents_proto as proto,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::{BoxedStrategy, Strategy, any, prop_oneof},
    proptest,
    sample::select,
    test_runner::Config,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{samples, with};

const JSON: [(&str, &str); 1] = [("content-type", "application/cloudevents+json; charset=utf-8")];
const PROTOBUF: [(&str, &str); 1] = [("content-type", "Application/CloudEvents+Protobuf")];

fn read(binding: Binding, headers: &[(&str, &str)], body: &[u8]) -> Result<Option<CloudEvent>, String> {
    with(binding, headers, body, cloudevent::decode).map_err(|error| format!("{} {error}", error.code()))
}

fn structured(event: &Value) -> Result<CloudEvent, String> {
    read(Binding::Kafka, &JSON, event.to_string().as_bytes()).map(|event| event.expect("a CloudEvent"))
}

/// A valid event, changed by one member; `null` takes it out.
fn changed(name: &str, value: Value) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": [1]},
    });
    event[name] = value;
    event
}

#[track_caller]
fn check_refused(event: &Value, wanted: &str) {
    assert_eq!(structured(event).expect_err(wanted), format!("DW0801 {wanted}"));
}

// === structured mode, JSON ===

#[test]
fn a_full_event_is_read() {
    let event = structured(&json!({
        "specversion": "1.0", "id": "A234-1234-1234", "source": "/mycontext", "type": "com.example.someevent",
        "subject": "larger-context", "time": "2018-04-05T17:31:00.5+02:00", "dataschema": "urn:example:schema",
        "comexampleextension1": "value", "comexampleothervalue": 5, "flag": true, "unsetextension": null,
        "datacontenttype": "application/json", "data": {"appinfoA": "abc"},
    }));
    let event = event.expect("valid");
    assert_eq!((&*event.id, &*event.source, &*event.kind), ("A234-1234-1234", "/mycontext", "com.example.someevent"));
    assert_eq!(event.time.expect("a time").to_rfc3339(), "2018-04-05T15:31:00.500+00:00");
    let extensions = [("comexampleextension1", "value"), ("comexampleothervalue", "5"), ("flag", "true")];
    assert_eq!(event.extensions, extensions.map(|(name, value)| (name.into(), value.into())).into());
    assert_eq!(event.data, Some(Data::Json(JsonText::new(r#"{"appinfoA":"abc"}"#).expect("JSON"))));
}

#[test]
fn json_without_a_content_type_says_json() {
    let event = structured(&changed("data", json!("just a string"))).expect("valid");
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.data, Some(Data::Json(JsonText::new("\"just a string\"").expect("JSON"))));
    let null = read(Binding::Http, &JSON, br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":null}"#);
    assert_eq!(null.expect("valid").expect("an event").data, Some(Data::Json(JsonText::new("null").expect("JSON"))));
    let base64 =
        json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data_base64": "eyAieHl6IjogMTIzIH0="});
    let event = structured(&base64).expect("valid");
    assert_eq!((event.datacontenttype, event.data), (None, Some(Data::Bytes(br#"{ "xyz": 123 }"#.to_vec()))));
}

#[test]
fn each_attribute_is_held_to_its_type() {
    let absent = |name| {
        let mut event = changed(name, Value::Null);
        event.as_object_mut().expect("an object").remove(name);
        event
    };
    for (name, wanted) in [
        ("specversion", "attribute specversion must be given, as 1.0"),
        ("id", "attribute id must be given"),
        ("source", "attribute source must be given"),
        ("type", "attribute type must be given"),
    ] {
        check_refused(&absent(name), wanted);
        check_refused(&changed(name, Value::Null), wanted);
    }
    let uri_reference = "attribute source must be a URI-reference (RFC 3986)";
    let uri = "attribute dataschema must be an absolute URI (RFC 3986, section 4.3) without a fragment";
    let time = "attribute time must be an RFC 3339 instant such as 2025-01-01T03:00:00Z";
    let media_type = "attribute datacontenttype must be a media type (RFC 2046)";
    let characters = "must be text without control characters and Unicode's noncharacters";
    let kind = "must be text, a whole number of 32 bits, true or false";
    let name = "must be named in lower-case letters and digits, and not data";
    for (attribute, value, wanted) in [
        ("specversion", json!("1.0.2"), "attribute specversion must be 1.0"),
        ("specversion", json!("0.3"), "attribute specversion must be 1.0"),
        ("specversion", json!(1.0), "attribute specversion must be text"),
        ("id", json!(""), "attribute id must be a text that is not empty"),
        ("id", json!(7), "attribute id must be text"),
        ("id", json!("a\u{7}"), &format!("attribute id {characters}")),
        ("id", json!("a\u{85}"), &format!("attribute id {characters}")),
        ("id", json!("a\u{fdd0}"), &format!("attribute id {characters}")),
        ("id", json!("a\u{1fffe}"), &format!("attribute id {characters}")),
        ("type", json!(""), "attribute type must be a text that is not empty"),
        ("source", json!(""), "attribute source must be a text that is not empty"),
        ("source", json!("not a uri"), uri_reference),
        ("source", json!("/ä"), uri_reference),
        ("source", json!("/%zz"), uri_reference),
        ("source", json!("1:2:3//["), uri_reference),
        ("subject", json!(""), "attribute subject must be a text that is not empty, or left out"),
        ("dataschema", json!(""), uri),
        ("dataschema", json!("/relative"), uri),
        ("dataschema", json!("https://example.com/schema#part"), uri),
        ("dataschema", json!("https://example.com/a b"), uri),
        ("time", json!(""), time),
        ("time", json!("2018-04-05"), time),
        ("time", json!("2018-04-05 17:31:00Z"), time),
        ("time", json!("2018-04-05T17:31:00"), time),
        ("time", json!("2018-04-05T17:31:00+0100"), time),
        ("time", json!("2018-04-05T17:31Z"), time),
        ("time", json!("2018-02-30T17:31:00Z"), time),
        ("time", json!("18-04-05T17:31:00Z"), time),
        ("time", json!("2018-04-05T17:31:00\u{2212}01:00"), time),
        ("time", json!(" 2018-04-05T17:31:00Z"), time),
        ("datacontenttype", json!(""), media_type),
        ("datacontenttype", json!("json"), media_type),
        ("datacontenttype", json!("application/*"), media_type),
        ("traceparent", json!(""), "attribute traceparent must be a W3C trace context, or left out"),
        ("partitionkey", json!(""), "attribute partitionkey must be a text that is not empty, or left out"),
        ("ext", json!({"a": 1}), &format!("attribute ext {kind}")),
        ("ext", json!([1]), &format!("attribute ext {kind}")),
        ("ext", json!(1.5), &format!("attribute ext {kind}")),
        ("ext", json!(1e3), &format!("attribute ext {kind}")),
        ("ext", json!(2_147_483_648_u32), &format!("attribute ext {kind}")),
        ("Ext", json!("x"), &format!("attribute Ext {name}")),
        ("my_ext", json!("x"), &format!("attribute my_ext {name}")),
        ("", json!("x"), &format!("attribute \"\" {name}")),
        ("ä\n", json!("x"), &format!("attribute \"ä\\n\" {name}")),
        ("data_base64", json!("AA=="), "data_base64 must be left out, for there is data; an event has one of them"),
    ] {
        check_refused(&changed(attribute, value), wanted);
    }
}

#[test]
fn what_the_types_allow_is_accepted() {
    for (attribute, value) in [
        ("source", json!("1-555-123-4567")),
        ("source", json!("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66")),
        ("source", json!("mailto:cncf-wg-serverless@lists.cncf.io")),
        ("source", json!("https://example.com/%C3%A4?q=1#f")),
        ("source", json!("../a")),
        ("dataschema", json!("https://example.com/schema?v=1")),
        ("dataschema", json!("urn:example:schema")),
        ("time", json!("2018-04-05t17:31:00z")),
        ("time", json!("1985-04-12T23:20:50.52Z")),
        ("time", json!("1990-12-31T23:59:60Z")),
        ("time", json!("1937-01-01T12:00:27.87+00:20")),
        ("time", json!("2018-04-05T17:31:00-00:00")),
        ("datacontenttype", json!("TEXT/Json; CharSet=utf-8")),
        ("ext", json!("")),
        ("ext", json!(-2_147_483_648_i64)),
        ("0", json!("a name should start with a letter, and may not")),
        ("averylongnamethatshouldnotbethatlong", json!(true)),
        ("id", json!("\u{e000}\u{1f600}")),
    ] {
        let event = structured(&changed(attribute, value.clone()));
        assert!(event.is_ok(), "{attribute} {value}: {event:?}");
    }
}

#[test]
fn what_is_no_event_at_all_is_refused() {
    let refused = |body: &[u8]| read(Binding::Http, &JSON, body).expect_err("refused");
    assert_eq!(refused(b""), "DW0801 the event is not JSON (line 1, column 0)");
    assert_eq!(refused(b"[1]"), "DW0801 the event must be a JSON object");
    assert_eq!(refused(b"{\"a\":1}\n{}"), "DW0801 the event is not JSON (line 2, column 1)");
    assert_eq!(refused(b"{\"id\":\n\"1\", oops"), "DW0801 the event is not JSON (line 2, column 6)");
    assert_eq!(refused(b"\xff"), "DW0801 the event must be JSON in UTF-8");
    assert_eq!(refused(br#"{"id": "1", "id": "2"}"#), "DW0801 the key id is there twice");
    assert_eq!(refused(br#"{"data": 1, "data": 2}"#), "DW0801 the key data is there twice");
    let deep = format!("{{\"data\": {}", "[".repeat(1 << 20));
    assert!(refused(deep.as_bytes()).starts_with("DW0801 the event is not JSON"));
    let event = |data| format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t",{data}}}"#);
    for (data, wanted) in [
        (r#""data_base64":"AA=""#, "DW0801 data_base64 must be base64 (RFC 4648, section 4, with padding)"),
        (r#""data_base64":"_w==""#, "DW0801 data_base64 must be base64 (RFC 4648, section 4, with padding)"),
        (r#""data_base64":1"#, "DW0801 data_base64 must be text"),
        (r#""datacontenttype":"text/plain","data":1"#, "DW0801 data must be text"),
        (r#""datacontenttype":"text/json","data_base64":"ew==""#, "DW0801 data is not JSON (line 1, column 1)"),
        (r#""id":"\ud800""#, "DW0801 the key id is there twice"),
        (r#""ext":"\ud800""#, "DW0801 attribute ext must be text, a whole number of 32 bits, true or false"),
    ] {
        assert_eq!(refused(event(data).as_bytes()), wanted);
    }
}

#[test]
fn modes_are_told_apart_by_the_content_type() {
    for (content_type, wanted) in [
        (
            "application/cloudevents-batch+json",
            "DW0801 header content-type must be that of one event: a batch is refused, send its events one by one",
        ),
        (
            "APPLICATION/CLOUDEVENTS+avro",
            "DW0801 header content-type must be application/cloudevents+json or application/cloudevents+protobuf",
        ),
        (
            "application/cloudevents",
            "DW0801 header content-type must be application/cloudevents+json or application/cloudevents+protobuf",
        ),
        (
            "application/cloudevents+json; charset=latin1",
            "DW0801 header content-type must be a media type (RFC 2046), in UTF-8",
        ),
    ] {
        let refused = read(Binding::Http, &[("Content-Type", content_type)], b"{}").expect_err("refused");
        assert_eq!(refused, wanted);
    }
    let twice = [("content-type", "application/json"), ("Content-Type", "application/json")];
    assert_eq!(read(Binding::Http, &twice, b"{}"), Err("DW0801 header content-type is there twice".into()));
    assert_eq!(read(Binding::Http, &[("content-type", "application/json")], b"{}"), Ok(None));
    assert_eq!(read(Binding::Kafka, &[("ce-id", "1"), ("ce_ext", "x")], b"{}"), Ok(None));
}

#[test]
fn what_is_longer_than_any_request_is_refused_unread() {
    let body = vec![b' '; EVENT_BYTES_MAX - 30];
    let refused = with(Binding::Http, &JSON, &body, cloudevent::decode).expect_err("refused");
    assert_eq!(refused.code(), Code::RequestTooLarge);
    let read = with(Binding::Http, &JSON, &body[100..], cloudevent::decode).expect_err("refused");
    assert_eq!(read.code(), Code::RequestInvalid);
}

// === binary mode ===

const KAFKA: [(&str, &str); 4] = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "t")];
const HTTP: [(&str, &str); 4] = [("CE-SpecVersion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

fn http_subject(value: &str) -> Result<Option<String>, String> {
    let headers = [HTTP.as_slice(), &[("ce-subject", value)]].concat();
    read(Binding::Http, &headers, b"").map(|event| event.expect("an event").subject)
}

#[test]
fn http_headers_are_percent_decoded_once() {
    for (value, wanted) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("a b", "a b"),
        ("%c3%a4", "ä"),
        ("%41", "A"),
        ("%2541", "%41"),
        ("\"a \\\"b\\\" %20\"", "a \"b\"  "),
        ("  padded\t", "padded"),
    ] {
        assert_eq!(http_subject(value), Ok(Some(wanted.into())), "{value}");
    }
    for (value, wanted) in [
        ("%C0%A0", "percent-encoded UTF-8"),
        ("%ff", "percent-encoded UTF-8"),
        ("100%", "percent-encoded: after each % stand two hexadecimal digits"),
        ("%4", "percent-encoded: after each % stand two hexadecimal digits"),
        ("%zz", "percent-encoded: after each % stand two hexadecimal digits"),
        ("ä", "printable ASCII; write the rest as percent-encoded UTF-8"),
        ("\"a", "closed by the quote it opens with"),
        ("\"a\"b", "closed by the quote it opens with"),
        ("\"a\\", "closed by the quote it opens with"),
        ("%0A", "text without control characters and Unicode's noncharacters"),
        ("", "a text that is not empty, or left out"),
    ] {
        assert_eq!(http_subject(value), Err(format!("DW0801 attribute subject must be {wanted}")), "{value}");
    }
}

#[test]
fn binary_mode_is_held_to_the_same_rules() {
    let more = |more: (&'static str, &'static str)| [KAFKA.as_slice(), &[more]].concat();
    for (headers, wanted) in [
        (KAFKA[1..].to_vec(), "attribute specversion must be given, as 1.0"),
        (KAFKA[..3].to_vec(), "attribute type must be given"),
        (more(("ce_id", "2")), "attribute id is there twice"),
        (
            more(("ce_datacontenttype", "text/json")),
            "attribute datacontenttype must be the header content-type, and no header of its own",
        ),
        (more(("ce_Id", "2")), "attribute Id must be named in lower-case letters and digits, and not data"),
        (more(("ce_data", "2")), "attribute data must be named in lower-case letters and digits, and not data"),
        (more(("ce_", "2")), "attribute \"\" must be named in lower-case letters and digits, and not data"),
        (more(("content-type", "application/json")), "data is not JSON (line 1, column 2)"),
        (more(("content-type", "json")), "attribute datacontenttype must be a media type (RFC 2046)"),
    ] {
        assert_eq!(read(Binding::Kafka, &headers, b"{'"), Err(format!("DW0801 {wanted}")));
    }
    let not_text: crate::Headers<'_> = vec![("ce_id", b"\xff")];
    let message = cloudevent::Message { binding: Binding::Kafka, headers: &not_text, body: b"" };
    let refused = cloudevent::decode(message).expect_err("refused");
    assert_eq!(refused.to_string(), "attribute id must be text in UTF-8");
    let event = read(Binding::Kafka, &more(("ce_subject", "100% ä")), b"").expect("valid").expect("an event");
    assert_eq!((event.subject.as_deref(), event.data), (Some("100% ä"), None));
}

// === structured mode, protobuf ===

fn attr(value: proto::cloud_event::cloud_event_attribute_value::Attr) -> proto::cloud_event::CloudEventAttributeValue {
    proto::cloud_event::CloudEventAttributeValue { attr: Some(value) }
}

fn wire() -> proto::CloudEvent {
    let (id, source, r#type) = ("1".into(), "/s".into(), "t".into());
    proto::CloudEvent { id, source, r#type, spec_version: "1.0".into(), ..Default::default() }
}

#[test]
fn protobuf_events_are_read() {
    use proto::cloud_event::{Data as WireData, cloud_event_attribute_value::Attr};
    let timestamp = |seconds, nanos| Attr::CeTimestamp(prost_types::Timestamp { seconds, nanos });
    let mut event = wire();
    event.attributes = [
        ("time", timestamp(1_735_700_400, 500_000_000)),
        ("datacontenttype", Attr::CeString("text/plain".into())),
        ("dataschema", Attr::CeUri("urn:example:schema".into())),
        ("flag", Attr::CeBoolean(true)),
        ("number", Attr::CeInteger(-5)),
        ("bytes", Attr::CeBytes(vec![0xff])),
        ("reference", Attr::CeUriRef("/a".into())),
    ]
    .map(|(name, value)| (name.to_owned(), attr(value)))
    .into();
    event.data = Some(WireData::TextData("hello".into()));
    let read_event = |event: &proto::CloudEvent| read(Binding::Kafka, &PROTOBUF, &event.encode_to_vec());
    let found = read_event(&event).expect("valid").expect("an event");
    assert_eq!(found.time.expect("a time").to_rfc3339(), "2025-01-01T03:00:00.500+00:00");
    let extensions = [("bytes", "/w=="), ("flag", "true"), ("number", "-5"), ("reference", "/a")];
    assert_eq!(found.extensions, extensions.map(|(name, value)| (name.into(), value.into())).into());
    assert_eq!(found.data, Some(Data::Bytes(b"hello".to_vec())));

    let with_attribute = |name: &str, value| {
        let mut event = wire();
        event.attributes.insert(name.into(), value);
        read_event(&event).expect_err("refused")
    };
    let instant = "must be an instant between the years 1 and 9999";
    for (refused, wanted) in [
        (with_attribute("time", attr(timestamp(i64::MAX, 0))), format!("attribute time {instant}")),
        (with_attribute("time", attr(timestamp(0, -1))), format!("attribute time {instant}")),
        (
            with_attribute("id", attr(Attr::CeString("2".into()))),
            "attribute id must be a field of the event, and not among its attributes".into(),
        ),
        (
            with_attribute("ext", proto::cloud_event::CloudEventAttributeValue::default()),
            "attribute ext must be given a value".into(),
        ),
        (
            read_event(&proto::CloudEvent { spec_version: String::new(), ..wire() }).expect_err("refused"),
            "attribute specversion must be 1.0".into(),
        ),
        (
            read_event(&proto::CloudEvent { id: String::new(), ..wire() }).expect_err("refused"),
            "attribute id must be a text that is not empty".into(),
        ),
        (
            read(Binding::Kafka, &PROTOBUF, b"junk").expect_err("refused"),
            "the event must be a protobuf message of type io.cloudevents.v1.CloudEvent".into(),
        ),
    ] {
        assert_eq!(refused, format!("DW0801 {wanted}"));
    }
}

#[test]
fn a_protobuf_message_brings_its_type() {
    use proto::cloud_event::{Data as WireData, cloud_event_attribute_value::Attr};
    let type_url = "type.googleapis.com/a.B";
    let mut event = wire();
    event.attributes.insert("dataschema".into(), attr(Attr::CeUri(type_url.into())));
    event.data = Some(WireData::ProtoData(prost_types::Any { type_url: type_url.into(), value: vec![8, 1] }));
    let found = read(Binding::Http, &PROTOBUF, &event.encode_to_vec()).expect("valid").expect("an event");
    assert_eq!(found.data, Some(Data::Message { type_url: type_url.into(), value: vec![8, 1] }));
    assert_eq!((found.dataschema, found.datacontenttype.as_deref()), (None, Some("application/protobuf")));
}

// === Dagwright's own ===

/// Takes an event through every mode and binding, and back.
#[track_caller]
fn check_survives(event: &CloudEvent) {
    let body = event.to_structured();
    assert_eq!(read(Binding::Http, &JSON, &body), Ok(Some(event.clone())), "structured");
    for binding in [Binding::Http, Binding::Kafka] {
        let sent = event.to_binary(binding);
        let headers: crate::Headers<'_> =
            sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let received = cloudevent::decode(cloudevent::Message { binding, headers: &headers, body: &sent.body });
        assert_eq!(received.map_err(|error| error.to_string()), Ok(Some(event.clone())), "{binding:?}");
    }
}

#[test]
fn every_kind_of_event_is_a_valid_cloudevent() {
    for event in samples::every_form() {
        let cloudevent = cloudevent::of_event(&event);
        check_survives(&cloudevent);
        assert_eq!(cloudevent.id, event.id());
        assert_eq!(cloudevent.source, "/dagwright/pipelines/aviation.flights_daily");
        assert_eq!(cloudevent.extensions["partitionkey"], "aviation.flights_daily");
        let sequence = event.refused_try.is_none().then(|| format!("{:020}", event.sequence));
        assert_eq!(cloudevent.extensions.get("sequence"), sequence.as_ref());
        assert_eq!(cloudevent.time.map(|time| time.timestamp_millis()), i64::try_from(event.at).ok());
        let Some(Data::Json(data)) = &cloudevent.data else { panic!("{cloudevent:?}") };
        assert_eq!(serde_json::from_str::<EventData>(data.as_str()).expect("event data"), event.data);
    }
}

#[test]
fn every_kind_of_event_keeps_its_schema() {
    let mut ids = BTreeSet::new();
    for event in samples::every_form() {
        let schema = event.kind.json_schema();
        let data = serde_json::to_value(&event.data).expect("JSON");
        let validator = jsonschema::draft202012::new(&schema).expect("a valid schema");
        let faults: Vec<_> = validator.iter_errors(&data).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{:?}", event.kind);
        let said = schema["properties"].as_object().expect("properties");
        for (name, property) in said {
            assert!(property["type"].is_string() || property["oneOf"].is_array(), "{name}: {property}");
        }
        for name in data.as_object().expect("an object").keys() {
            assert!(said.contains_key(name), "{:?} says {name}, and its schema does not", event.kind);
        }
        for name in schema["required"].as_array().expect("a list") {
            let mut less = data.clone();
            less.as_object_mut().expect("an object").remove(name.as_str().expect("a name"));
            assert!(!validator.is_valid(&less), "{:?} without {name}", event.kind);
        }
        assert_eq!(schema["$id"], cloudevent::of_event(&event).dataschema.expect("a schema"));
        ids.insert(event.kind.schema_uri());
    }
    assert_eq!(ids.len(), EventKind::ALL.len());
}

#[test]
fn odd_names_are_escaped_where_they_must_be() {
    let mut event = samples::events().remove(0);
    event.data.pipeline = "a b/ä?".into();
    event.at = u64::MAX;
    let cloudevent = cloudevent::of_event(&event);
    assert_eq!(cloudevent.source, "/dagwright/pipelines/a%20b%2F%C3%A4%3F");
    assert_eq!(cloudevent.time, None);
    check_survives(&cloudevent);
    let sent = cloudevent.to_binary(Binding::Http);
    let (_, key) = sent.headers.iter().find(|(name, _)| name == "ce-partitionkey").expect("a partition key");
    assert_eq!(key, b"a%20b/%C3%A4?");
}

#[test]
fn sequences_are_in_the_order_of_their_texts() {
    let mut event = samples::events().remove(0);
    let mut text = |sequence| {
        event.sequence = sequence;
        cloudevent::of_event(&event).extensions["sequence"].clone()
    };
    let texts = [0, 9, 10, 1 << 40, u64::MAX].map(&mut text);
    assert!(texts.is_sorted(), "{texts:?}");
    assert!(texts.iter().all(|text| text.len() == 20));
}

// === properties ===

/// Text that attributes may hold.
fn text(range: std::ops::Range<usize>) -> BoxedStrategy<String> {
    let allowed =
        |c: &char| !c.is_control() && u32::from(*c) & 0xfffe != 0xfffe && !('\u{fdd0}'..='\u{fdef}').contains(c);
    vec(any::<char>().prop_filter("an allowed character", allowed), range).prop_map(String::from_iter).boxed()
}

fn data() -> BoxedStrategy<(Option<String>, Option<Data>)> {
    let json = text(0..8).prop_map(|text| {
        let json = JsonText::new(&json!({"a": [text, 1.5, null]}).to_string()).expect("JSON");
        (Some("application/vnd.acme+json".to_owned()), Some(Data::Json(json)))
    });
    let bytes =
        (select(vec![None, Some("application/protobuf"), Some("text/yaml; charset=utf-8")]), vec(any::<u8>(), 1..20))
            .prop_map(|(content_type, bytes)| (content_type.map(Into::into), Some(Data::Bytes(bytes))));
    let none = select(vec![None, Some("text/plain".to_owned())]).prop_map(|content_type| (content_type, None));
    prop_oneof![json, bytes, none].boxed()
}

fn event() -> BoxedStrategy<CloudEvent> {
    let time = (0..253_402_300_799_i64, 0..1_000_000_000_u32);
    let extensions = btree_map("x[a-z0-9]{0,12}", text(0..8), 0..4);
    let source = select(vec!["/s", "urn:a:b", "a%20b", "https://example.com/?q"]);
    (text(1..8), source, text(1..8), option::of(text(1..8)), option::of(time), any::<bool>(), extensions, data())
        .prop_map(|(id, source, kind, subject, time, schema, extensions, (datacontenttype, data))| CloudEvent {
            id,
            source: source.into(),
            kind,
            subject,
            time: time.map(|(seconds, nanos)| format_time(seconds, nanos)),
            dataschema: schema.then(|| "https://example.com/schema".into()),
            datacontenttype,
            extensions: extensions.into_iter().collect::<BTreeMap<_, _>>(),
            data,
        })
        .boxed()
}

fn format_time(seconds: i64, nanos: u32) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(seconds, nanos).expect("an instant")
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 300, ..Config::default() })]

    #[test]
    fn events_survive_every_mode(event in event()) {
        check_survives(&event);
    }
}
