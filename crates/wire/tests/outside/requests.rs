//! Requests in every form they may come in, and what is refused of each.

use dagwright_model::{
    id::Name,
    record::EventIdentity,
    request::{Action, Request, RunWishes},
    spec::{Interval, Spec},
};
use dagwright_wire::{
    cloudevent::Binding,
    cloudevents_proto::{self, cloud_event},
    proto::PipelineRequest,
    request::{self, REQUESTED, Received},
};
use proptest::{
    collection::btree_map,
    option,
    prelude::{BoxedStrategy, Strategy, any, prop_oneof},
    proptest,
    sample::select,
    test_runner::Config,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::with;

const SPEC: &str = "# mine\nversion: 1\npipeline: p\nsource: {uri: s3://b/a.csv}\nsink: {uri: s3://b/out/, format: parquet, mode: replace}\n";

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const BINARY: [(&str, &str); 4] =
    [("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_source", "/acme"), ("ce_type", REQUESTED)];

fn read(headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Result<Received, String> {
    let read = with(Binding::Kafka, headers, body.as_ref(), request::decode);
    read.map_err(|error| format!("{} {error}", error.code()))
}

fn json_body(body: &Value) -> Result<Received, String> {
    read(&[("content-type", "application/json")], body.to_string())
}

/// Reads a request as the data of an event in structured mode.
fn event(data: &Value) -> Result<Received, String> {
    let event = json!({"specversion": "1.0", "id": "7", "source": "/acme", "type": REQUESTED, "data": data});
    read(&[("content-type", "application/cloudevents+json")], event.to_string())
}

fn run(spec: &str) -> Request {
    Request { spec: Some(spec.into()), ..Request::default() }
}

fn identity() -> Option<EventIdentity> {
    Some(EventIdentity { source: "/acme".into(), id: "7".into() })
}

/// An event of this source.
fn of_source(source: &str) -> Result<Received, String> {
    let event =
        json!({"specversion": "1.0", "id": "7", "source": source, "type": REQUESTED, "data": {"spec": "version: 1"}});
    read(&[("content-type", "application/cloudevents+json")], event.to_string())
}

#[test]
fn nobody_names_requests_as_dagwright_does() {
    for source in ["airflow", "/dagwright/http/ann", "/dagwright/pipelines/p", "/kafka/requests"] {
        let refused = of_source(source).expect_err(source);
        assert!(refused.contains("source"), "{refused}");
    }
    for source in ["/airflow", "airflow/dags", "https://airflow.example.org", "/dagwrights", "kafka"] {
        let identity = of_source(source).expect(source).identity.expect("an identity");
        assert_eq!(identity.source, source);
    }
}

// === bare ===

#[test]
fn a_bare_spec_keeps_its_text() {
    for headers in [
        vec![],
        vec![("content-type", "application/yaml")],
        vec![("content-type", "text/yaml; charset=utf-8")],
        vec![("Content-Type", " text/x-yaml ")],
    ] {
        let received = read(&headers, SPEC).expect("accepted");
        assert_eq!(received, Received { request: run(SPEC), identity: None, traceparent: None });
        assert!(Spec::parse(received.spec_text().expect("a spec")).is_ok());
    }
    let json = "{\n  \"version\": 1,\n  \"sorces\": {}, \"pipeline\": \"p\"\n}\n";
    for content_type in ["application/json", "application/yaml"] {
        assert_eq!(read(&[("content-type", content_type)], json).expect("accepted").request, run(json));
    }
    let diagnostics = Spec::parse(json).expect_err("refused").0;
    assert!(diagnostics.iter().any(|fault| fault.line == Some(3)), "{diagnostics:?}");
    let braces = "{version: 1, pipeline: p}";
    assert_eq!(read(&[], braces).expect("YAML").request, run(braces));
    assert!(read(&[("content-type", "application/json")], braces).is_err());
    let without_version = r#"{"pipeline": "p", "source": {}}"#;
    assert_eq!(read(&[], without_version).expect("a spec, whose faults it tells").request, run(without_version));
}

#[test]
fn a_bare_request_is_read() {
    let interval = Interval { start: "2025-01-01T00:00:00+01:00".into(), end: "2025-01-02T00:00:00.5z".into() };
    let received = json_body(&json!({
        "action": "backfill", "pipeline": "aviation.flights_daily", "spec": null,
        "run": {
            "interval": {"start": "2025-01-01T00:00:00+01:00", "end": "2025-01-02T00:00:00.5z"},
            "params": {"region": "eu", "limit": 5, "list": [null]},
        },
    }));
    let request = received.expect("accepted").request;
    assert_eq!((request.action, request.pipeline.as_deref()), (Action::Backfill, Some("aviation.flights_daily")));
    assert_eq!(request.run.interval, Some(interval));
    let params = [("limit", json!(5)), ("list", json!([null])), ("region", json!("eu"))];
    assert_eq!(request.run.params, params.map(|(name, value)| (Name::new(name).expect("a name"), value)).into());
    for action in Action::ALL {
        let received = json_body(&json!({
            "action": action.as_str(), "spec": "version: 1",
            "run": if *action == Action::Backfill {
                json!({"interval": {"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z"}})
            } else {
                json!({})
            },
        }));
        assert_eq!(received.expect("accepted").request.action, *action);
    }
    let headers = [("traceparent", TRACEPARENT)];
    let received = read(&headers, r#"{"action": "apply", "revision": 7, "spec": {"b":1, "a":1, "b":2}}"#);
    let received = received.expect("accepted");
    assert_eq!(received.request.revision, Some(7));
    assert_eq!(received.spec_text(), Some(r#"{"b":1, "a":1, "b":2}"#), "as it was sent");
    assert_eq!(received.traceparent.as_deref(), Some(TRACEPARENT));
    let broken = [("traceparent", "00-broken")];
    assert_eq!(read(&broken, SPEC).expect("accepted").traceparent, None);
}

#[test]
fn each_fault_is_named_with_its_place() {
    let known = "known are action, spec, pipeline, revision and run; a bare spec has version";
    for (body, wanted) in [
        (json!({"action": "stop"}), "DW0801 action must be run, apply, backfill, pause or delete".into()),
        (json!({"action": null}), "DW0801 action must be run, apply, backfill, pause or delete".into()),
        (json!({"action": "Run"}), "DW0801 action must be run, apply, backfill, pause or delete".into()),
        (json!({"acton": "run"}), format!("DW0801 the key acton is not known; {known}")),
        (json!({"a\nb": 1}), format!("DW0801 the key \"a\\nb\" is not known; {known}")),
        (json!({"intent": "load my flights"}), "DW0110 intent is not yet supported; send a spec".into()),
        (json!({"spec": 7}), "DW0801 spec must be a spec's object, or its text".into()),
        (json!({"spec": [1]}), "DW0801 spec must be a spec's object, or its text".into()),
        (json!({"pipeline": 7}), "DW0801 pipeline must be text".into()),
        (json!({"action": "apply", "spec": "", "revision": -1}), "DW0801 revision must be a whole number".into()),
        (json!({"action": "apply", "spec": "", "revision": 1.5}), "DW0801 revision must be a whole number".into()),
        (json!({"spec": "", "run": []}), "DW0801 run must be a JSON object".into()),
        (
            json!({"spec": "", "run": {"intervall": {}}}),
            "DW0801 the key run.intervall is not known; known are run.interval and run.params".into(),
        ),
        (
            json!({"spec": "", "run": {"interval": {"from": 1}}}),
            "DW0801 the key run.interval.from is not known; known are run.interval.start and run.interval.end".into(),
        ),
        (json!({"spec": "", "run": {"params": 1}}), "DW0801 run.params must be a JSON object".into()),
        (
            json!({"spec": "", "run": {"params": {"A": 1}}}),
            "DW0801 run.params.A must be named ^[a-z][a-z0-9_]{0,127}$".into(),
        ),
        (json!({"run": {"interval": {}}}), "DW0801 run.interval.start must be given".into()),
        (json!({"run": {"interval": {"start": "x"}}}), "DW0801 run.interval.end must be given".into()),
        (json!({"run": {"interval": {"start": 1}}}), "DW0801 run.interval.start must be text".into()),
        (json!({"run": {"interval": {"start": "x", "end": null}}}), "DW0801 run.interval.end must be text".into()),
    ] {
        assert_eq!(json_body(&body), Err(wanted.clone()), "bare");
        assert_eq!(event(&body), Err(wanted), "in an event");
    }
}

#[test]
fn what_is_no_request_at_all_is_refused() {
    let content_type =
        "must be application/json, application/yaml or that of a CloudEvent (application/cloudevents+json)";
    for (headers, body, wanted) in [
        (vec![], "", "the body must be a request or a spec, and is empty".to_owned()),
        (vec![], " \n", "the body must be a request or a spec, and is empty".into()),
        (vec![("content-type", "text/plain")], SPEC, format!("header content-type {content_type}")),
        (
            vec![("content-type", "application/x-www-form-urlencoded")],
            SPEC,
            format!("header content-type {content_type}"),
        ),
        (vec![("content-type", "yaml")], SPEC, "header content-type must be a media type (RFC 2046)".into()),
        (
            vec![("content-type", "application/json;charset=utf-16")],
            SPEC,
            "header content-type must be without another charset than utf-8".into(),
        ),
        (vec![("content-type", "application/json")], SPEC, "the request is not JSON (line 1, column 1)".into()),
        (vec![("content-type", "application/json")], "[]", "the request must be a JSON object".into()),
        (
            vec![("content-type", "application/json")],
            r#"{"spec": "", "spec": ""}"#,
            "the key spec is there twice".into(),
        ),
        (
            vec![("content-type", "application/json")],
            "{\"spec\": \"\",\n \"run\": {\"params\": {\"a\": 1, \"a\": 2}}}",
            "the key a is there twice".into(),
        ),
        (vec![("traceparent", "a"), ("Traceparent", "b")], SPEC, "header traceparent is there twice".into()),
    ] {
        assert_eq!(read(&headers, body), Err(format!("DW0801 {wanted}")));
    }
    assert_eq!(read(&[], b"a: \xff"), Err("DW0801 the body must be text in UTF-8".into()));
    let deep = format!(r#"{{"spec": "", "run": {{"params": {{"a": {}{}}}}}}}"#, "[".repeat(200), "]".repeat(200));
    let refused = read(&[], deep).expect_err("refused");
    assert!(refused.starts_with("DW0801 run.params.a is not JSON that nests less than 128 deep"), "{refused}");
    let long = "#".repeat(dagwright_wire::cloudevent::EVENT_BYTES_MAX + 1);
    assert!(read(&[], long).expect_err("refused").starts_with("DW0802 the request has 2097153 bytes"));
}

// === as CloudEvents ===

#[test]
fn an_event_carries_a_request_in_any_form() {
    let wanted = Received { request: run(SPEC), identity: identity(), traceparent: None };
    let envelope = |content_type: &str, data: (&str, Value)| {
        let mut event = json!({
            "specversion": "1.0", "id": "7", "source": "/acme", "type": REQUESTED, "datacontenttype": content_type,
        });
        event[data.0] = data.1;
        read(&[("content-type", "application/cloudevents+json")], event.to_string())
    };
    let with_type = |content_type: &'static str| [BINARY.as_slice(), &[("content-type", content_type)]].concat();
    let protobuf = PipelineRequest::from(&wanted.request).encode_to_vec();
    let base64 = base64_of(SPEC.as_bytes());
    for received in [
        event(&json!({"spec": SPEC})),
        envelope("application/yaml", ("data", json!(SPEC))),
        envelope("text/yaml", ("data_base64", json!(base64))),
        envelope("application/protobuf", ("data_base64", json!(base64_of(&protobuf)))),
        read(&BINARY, SPEC),
        read(&with_type("application/yaml"), SPEC),
        read(&with_type("application/json"), json!({"action": "run", "spec": SPEC}).to_string()),
        read(&with_type("application/protobuf"), &protobuf),
        protobuf_event("type.googleapis.com/dagwright.v1.PipelineRequest", &protobuf),
        protobuf_event("/dagwright.v1.PipelineRequest", &protobuf),
    ] {
        assert_eq!(received, Ok(wanted.clone()));
    }
    let object = event(&json!({"version": 1, "pipeline": "p"})).expect("a bare spec");
    assert_eq!(object.spec_text(), Some(r#"{"pipeline":"p","version":1}"#));
}

#[test]
fn what_an_event_must_not_carry_is_refused() {
    let with_type = |content_type: &'static str| [BINARY.as_slice(), &[("content-type", content_type)]].concat();
    let other_type = [&BINARY[..3], &[("ce_type", "dev.dagwright.pipeline.requested.v2")]].concat();
    for (received, wanted) in [
        (read(&other_type, SPEC), format!("attribute type must be {REQUESTED}")),
        (read(&BINARY, ""), "data must be a request or a spec, and is missing".into()),
        (
            read(&with_type("text/plain"), SPEC),
            "attribute datacontenttype must be application/json, application/yaml or that of a CloudEvent \
             (application/cloudevents+json)"
                .into(),
        ),
        (
            protobuf_event("type.googleapis.com/dagwright.v1.TaskSpec", b""),
            "data must be a message of type dagwright.v1.PipelineRequest".into(),
        ),
        (event(&json!("version: 1")), "the request must be a JSON object".into()),
        (event(&json!(null)), "the request must be a JSON object".into()),
    ] {
        assert_eq!(received, Err(format!("DW0801 {wanted}")));
    }
}

#[test]
fn the_trace_began_where_the_event_says() {
    let other = TRACEPARENT.replace("4bf9", "0000");
    let extension = [BINARY.as_slice(), &[("ce_traceparent", TRACEPARENT), ("traceparent", &other)]].concat();
    assert_eq!(read(&extension, SPEC).expect("accepted").traceparent.as_deref(), Some(TRACEPARENT));
    let header = [BINARY.as_slice(), &[("traceparent", other.as_str())]].concat();
    assert_eq!(read(&header, SPEC).expect("accepted").traceparent.as_deref(), Some(other.as_str()));
}

// === protobuf ===

#[test]
fn protobuf_requests_are_checked_like_json() {
    let read = |wire: &PipelineRequest| {
        let headers = [BINARY.as_slice(), &[("content-type", "application/protobuf")]].concat();
        read(&headers, wire.encode_to_vec()).map(|received| received.request)
    };
    let spec = || PipelineRequest { spec: Some("s".into()), ..Default::default() };
    let param = |name: &str, json: &str| PipelineRequest { params_json: [(name.into(), json.into())].into(), ..spec() };
    assert_eq!(read(&spec()), Ok(run("s")), "an action that is not said is run");
    for (wire, wanted) in [
        (PipelineRequest { action: 9, ..spec() }, "action must be run, apply, backfill, pause or delete"),
        (PipelineRequest { action: -1, ..spec() }, "action must be run, apply, backfill, pause or delete"),
        (param("A", "1"), "run.params.A must be named ^[a-z][a-z0-9_]{0,127}$"),
        (param("a", ""), "run.params.a is not JSON that nests less than 128 deep (line 1, column 0)"),
        (param("a", "{"), "run.params.a is not JSON that nests less than 128 deep (line 1, column 1)"),
    ] {
        assert_eq!(read(&wire), Err(format!("DW0801 {wanted}")));
    }
}

#[test]
fn a_protobuf_field_of_another_version_is_refused() {
    let headers = [BINARY.as_slice(), &[("content-type", "application/protobuf")]].concat();
    let known = PipelineRequest::from(&run("s")).encode_to_vec();
    let unknown = [known.as_slice(), &[7 << 3, 1]].concat();
    let wanted = "DW0801 field 7 of dagwright.v1.PipelineRequest is not known; known are 1 to 6";
    assert_eq!(read(&headers, unknown), Err(wanted.into()));
    let wanted = "DW0801 data must be a protobuf message of type dagwright.v1.PipelineRequest";
    for junk in [b"\x0a".as_slice(), b"\x08", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x12\x01\xff", b"\x0b"]
    {
        assert_eq!(read(&headers, junk), Err(wanted.into()), "{junk:?}");
    }
}

#[test]
fn the_schema_says_what_the_reader_does() {
    let schema = Request::json_schema();
    let validator = jsonschema::draft202012::new(&schema).expect("a valid schema");
    for (body, wanted) in [
        (json!({"spec": {"version": 1}}), true),
        (json!({"action": "apply", "spec": "version: 1", "revision": 3}), true),
        (json!({"action": "apply", "spec": "version: 1", "revision": null, "pipeline": null}), true),
        (json!({"pipeline": "p", "run": {"params": {"a": [1]}, "interval": null}}), true),
        (json!({"action": "stop", "pipeline": "p"}), false),
        (json!({"action": null, "pipeline": "p"}), false),
        (json!({"spec": 7}), false),
        (json!({"spec": "", "revision": -1}), false),
        (json!({"pipeline": "p", "run": null}), false),
        (json!({"pipeline": "p", "run": {"params": {"A": 1}}}), false),
        (json!({"pipeline": "p", "run": {"interval": {"start": "x"}}}), false),
        (json!({"pipeline": "p", "more": 1}), false),
    ] {
        assert_eq!(validator.is_valid(&body), wanted, "schema: {body}");
        assert_eq!(json_body(&body).is_ok(), wanted, "reader: {body}");
    }
}

fn protobuf_event(type_url: &str, value: &[u8]) -> Result<Received, String> {
    let any = prost_types::Any { type_url: type_url.into(), value: value.to_vec() };
    let event = cloudevents_proto::CloudEvent {
        id: "7".into(),
        source: "/acme".into(),
        spec_version: "1.0".into(),
        r#type: REQUESTED.into(),
        data: Some(cloud_event::Data::ProtoData(any)),
        ..Default::default()
    };
    read(&[("content-type", "application/cloudevents+protobuf")], event.encode_to_vec())
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

// === properties ===

/// Any request that has the form of one.
fn request() -> BoxedStrategy<Request> {
    let name = || "[a-z][a-z0-9_]{0,8}";
    let spec = option::of(any::<String>().prop_map(Value::String));
    let value = prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
    let params = btree_map(name().prop_map(|name| Name::new(name).expect("a name")), value, 0..3);
    let interval = (any::<String>(), any::<String>()).prop_map(|(start, end)| Interval { start, end });
    let run = (option::of(interval), params).prop_map(|(interval, params)| RunWishes { interval, params });
    (select(Action::ALL), spec, option::of(any::<String>()), any::<Option<u64>>(), run)
        .prop_map(|(action, spec, pipeline, revision, run)| Request { action, spec, pipeline, revision, run })
        .boxed()
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 300, ..Config::default() })]

    #[test]
    fn requests_survive_json_and_protobuf(request in request()) {
        let json = serde_json::to_value(&request).expect("JSON");
        let wanted = Received { request: request.clone(), identity: None, traceparent: None };
        assert_eq!(json_body(&json), Ok(wanted.clone()));
        assert_eq!(event(&json), Ok(Received { identity: identity(), ..wanted.clone() }));
        let protobuf = PipelineRequest::from(&request).encode_to_vec();
        let headers = [BINARY.as_slice(), &[("content-type", "application/protobuf")]].concat();
        assert_eq!(read(&headers, protobuf), Ok(Received { identity: identity(), ..wanted }));
    }
}
