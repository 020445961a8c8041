//! What is admitted, and with which code the rest is refused.

use std::{io::Write as _, sync::Arc};

use dagwright_model::{
    code::Code,
    record::{EventIdentity, Ingress},
    request::Request,
};
use dagwright_store::MemoryStore;
use serde_json::{Value, json};

use super::{Admission, Rejected, Requester, pipeline_of};
use crate::config::Config;

const SETTINGS: &str = r#"
[uris]
allow = ["/data/**", "s3://lake/raw/*"]
[policy.floor]
schema_change = "additive"
lossy_cast = "quarantine"
approval = "on_schema_change"
[connections.ops]
url = "postgresql://db/ops"
access = "read"
namespaces = ["a"]
"#;

fn spec() -> Value {
    json!({
        "version": 1, "pipeline": "p", "namespace": "a",
        "source": { "uri": "/data/in.csv" },
        "sink": { "uri": "/data/out.parquet", "mode": "replace" },
        "policy": { "approval": "on_schema_change" },
    })
}

/// Changes the spec at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = spec();
    *spec.pointer_mut(pointer).expect("a place") = value;
    spec
}

fn admit(request: Value, namespaces: Option<&[&str]>) -> Result<super::Admitted, Rejected> {
    admit_with(request, namespaces, true, false)
}

fn admit_with(
    request: Value,
    namespaces: Option<&[&str]>,
    may_submit: bool,
    may_operate: bool,
) -> Result<super::Admitted, Rejected> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SETTINGS.as_bytes()).unwrap();
    let config = Arc::new(Config::load(Some(file.path())).unwrap());
    let admission = Admission::new(config, Arc::new(MemoryStore::default())).unwrap();
    let request: Request = serde_json::from_value(request).unwrap();
    let requester = Requester {
        ingress: Ingress::Http,
        name: Some("ann".into()),
        namespaces: namespaces.map(|names| names.iter().map(|name| name.parse().unwrap()).collect()),
        may_submit,
        may_operate,
    };
    let identity = EventIdentity { source: "/here".into(), id: "1".into() };
    admission.admit(&request, identity, None, &requester)
}

#[track_caller]
fn check(request: Value, wanted: Code) {
    match admit(request.clone(), None) {
        Err(Rejected::Problem(problem)) => assert_eq!(problem.code, wanted, "{request}: {problem}"),
        Err(Rejected::Invalid(diagnostics)) => assert_eq!(diagnostics.0[0].code, wanted, "{request}"),
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn what_is_allowed_is_admitted_under_an_id_of_its_own() {
    let first = admit(json!({ "spec": spec() }), None).unwrap();
    assert_eq!((first.accepted.pipeline.as_str(), first.accepted.requester.as_deref()), ("a.p", Some("ann")));
    let as_text = admit(json!({ "spec": spec().to_string() }), None).unwrap();
    assert_eq!((as_text.request, as_text.accepted.spec_hash), (first.request, first.accepted.spec_hash));
    admit(json!({ "spec": spec() }), Some(&["a"])).unwrap();
}

#[test]
fn only_listed_uris_may_be_named() {
    for allowed in ["/data/a/b.csv", "file:///data/in.csv", "s3://lake/raw/in.csv"] {
        admit(json!({ "spec": with("/source/uri", allowed.into()) }), None).unwrap();
    }
    for refused in [
        "in.csv",
        "/etc/passwd.csv",
        "file:///etc/passwd.csv",
        "/database/in.csv",
        "s3://lake/raw/deep/in.csv",
        "s3://other/raw/in.csv",
        "https://example.org/in.csv",
    ] {
        check(json!({ "spec": with("/source/uri", refused.into()) }), Code::NotAllowed);
    }
    let climbing = admit(json!({ "spec": with("/source/uri", "/data/../etc/in.csv".into()) }), None);
    assert!(climbing.is_err());
    check(json!({ "spec": with("/sink/uri", "/elsewhere/out.parquet".into()) }), Code::NotAllowed);
}

#[test]
fn a_policy_may_only_be_tightened() {
    admit(json!({ "spec": with("/policy", json!({ "approval": "always", "schema_change": "none" })) }), None).unwrap();
    for looser in [
        json!({ "approval": "never" }),
        json!({ "approval": "always", "schema_change": "widening" }),
        json!({ "approval": "always", "lossy_cast": "null" }),
    ] {
        check(json!({ "spec": with("/policy", looser) }), Code::NotAllowed);
    }
}

#[test]
fn connections_are_open_to_whom_they_are_open() {
    let table = json!({ "connection": "ops", "table": "t" });
    admit(json!({ "spec": with("/source", table.clone()) }), None).unwrap();
    check(json!({ "spec": with("/source", json!({ "connection": "none", "table": "t" })) }), Code::ConnectionMissing);
    let written = json!({ "connection": "ops", "table": "t", "mode": "append" });
    check(json!({ "spec": with("/sink", written) }), Code::NotAllowed);
    let mut other = with("/source", table);
    other["namespace"] = "b".into();
    check(json!({ "spec": other }), Code::ConnectionMissing);
}

#[test]
fn a_request_says_what_it_wants() {
    check(json!({}), Code::RequestInvalid);
    check(json!({ "action": "run", "pipeline": "a.p" }), Code::RequestUnknown);
    check(json!({ "action": "pause", "pipeline": "a.p" }), Code::ScopeMissing);
    check(json!({ "spec": spec(), "pipeline": "a.q" }), Code::RequestInvalid);
    check(json!({ "spec": spec(), "revision": 3 }), Code::RequestInvalid);
    check(json!({ "action": "backfill", "spec": spec() }), Code::RequestInvalid);
    check(json!({ "spec": with("/pipeline", "P".into()) }), Code::SpecBadName);
    let backwards = json!({ "start": "2013-01-02T00:00:00Z", "end": "2013-01-01T00:00:00Z" });
    check(json!({ "spec": spec(), "run": { "interval": backwards } }), Code::RequestInvalid);
    check(json!({ "spec": spec(), "run": { "params": { "region": "eu" } } }), Code::SpecUnknownReference);
    assert!(admit(json!({ "spec": spec() }), Some(&["b"])).is_err());
}

#[test]
fn what_is_refused_is_told_to_a_pipeline_only_by_a_name_that_can_be_one() {
    let of = |request: Value| pipeline_of(&serde_json::from_value::<Request>(request).expect("a request"));
    assert_eq!(of(json!({ "spec": { "pipeline": "p", "namespace": "a", "surprise": 1 } })).as_deref(), Some("a.p"));
    assert_eq!(of(json!({ "spec": "pipeline: p\nsource: [" })), None);
    assert_eq!(of(json!({ "pipeline": "a.p" })).as_deref(), Some("a.p"));
    assert_eq!(of(json!({ "pipeline": "a.p", "spec": { "pipeline": "q" } })).as_deref(), Some("q"));
    for name in ["", "a.b.p", "A", "a/p", "a.", "\u{1b}[2J", &"p".repeat(251)] {
        assert_eq!(of(json!({ "pipeline": name })), None, "{name:?}");
    }
    assert_eq!(of(json!({})), None);
}

#[test]
fn each_scope_opens_what_it_says() {
    let run = json!({ "spec": spec() });
    let pause = json!({ "action": "pause", "pipeline": "a.p" });
    for (request, may_submit, may_operate, wanted) in [
        (&run, false, false, Some(Code::ScopeMissing)),
        (&run, false, true, Some(Code::ScopeMissing)),
        (&run, true, false, None),
        (&pause, false, true, Some(Code::ScopeMissing)),
        (&pause, true, false, Some(Code::ScopeMissing)),
        // Allowed, but nobody knows the pipeline.
        (&pause, true, true, Some(Code::RequestUnknown)),
    ] {
        let code = admit_with(request.clone(), None, may_submit, may_operate).err().map(|rejected| rejected.reason().0);
        assert_eq!(code, wanted, "{request} {may_submit} {may_operate}");
    }
}
