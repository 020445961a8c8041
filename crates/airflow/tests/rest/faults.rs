//! What may go wrong between a call and its answer, and what is made of it.

use std::{fmt, time::Duration};

use dagwright_airflow::{Airflow, Api, Client, Credentials, Error, RunFilter, Settings, Span, TaskKey, Trigger};
use dagwright_model::code::Code;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

use crate::{BOTH, Fake, SECRET, problem};

/// What an answer is taken for.
#[track_caller]
fn expect<T: fmt::Debug>(answer: Result<T, Error>, code: Code, said: &str) -> Error {
    let error = answer.expect_err("a fault");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(said), "{error}: no {said:?}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    error
}

fn trigger(dag_id: &str, run_id: &str) -> Trigger {
    Trigger {
        dag_id: dag_id.into(),
        run_id: run_id.into(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        note: None,
    }
}

#[tokio::test]
async fn every_refusal_has_its_error() {
    let html = || ResponseTemplate::new(404).set_body_raw("<html>lost</html>", "text/html");
    let of = |status: u16, body: Value| ResponseTemplate::new(status).set_body_json(body);
    let missing =
        json!([{ "type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": { "a": 1 } }]);
    let both = [
        (400, Code::AirflowRefused),
        (401, Code::AirflowUnauthenticated),
        (403, Code::AirflowDenied),
        (404, Code::AirflowUnknown),
        (405, Code::AirflowRefused),
        (409, Code::AirflowConflict),
        (422, Code::AirflowRefused),
        (429, Code::AirflowUnavailable),
        (500, Code::AirflowUnavailable),
        (502, Code::AirflowUnavailable),
        (503, Code::AirflowUnavailable),
    ];
    for api in BOTH {
        for (status, code) in both {
            let fake = Fake::start(api).await;
            fake.answer("GET", "/dags/flights", status, problem(api, status, "the hunter2 reason")).await;
            fake.answer("GET", "/dags", 200, json!({ "dags": [], "total_entries": 0 })).await;
            let error = expect(fake.client().dag("flights").await, code, "the … reason");
            assert!(error.to_string().contains("read DAG \"flights\""), "{error}");
            assert_eq!(error.is_retryable(), matches!(code, Code::AirflowUnavailable), "{error}");
        }
    }
    let v2 = [
        (of(422, json!({ "detail": missing })), Code::AirflowRefused, "body.logical_date: Field required"),
        (
            of(409, json!({ "detail": { "reason": "Unique constraint violation", "statement": "hidden" } })),
            Code::AirflowConflict,
            "Unique constraint violation",
        ),
        (html(), Code::AirflowUnsupported, "a page of HTML"),
        (of(404, json!({ "detail": "Not Found" })), Code::AirflowUnsupported, "no endpoint to read DAG"),
        (of(404, json!({ "error": "API route not found" })), Code::AirflowUnsupported, "API route not found"),
        (ResponseTemplate::new(302).insert_header("location", "/login"), Code::AirflowRefused, "it sends elsewhere"),
        (of(200, json!("flights")), Code::AirflowUnreadable, "invalid type"),
        (of(200, json!({ "dag_id": 7 })), Code::AirflowUnreadable, "invalid type"),
        (ResponseTemplate::new(200).set_body_raw("<html>", "text/html"), Code::AirflowUnreadable, "a page of HTML"),
        (ResponseTemplate::new(204), Code::AirflowUnreadable, "EOF"),
    ];
    for (response, code, said) in v2 {
        let fake = Fake::start(Api::V2).await;
        fake.respond("GET", "/dags/flights", response).await;
        expect(fake.client().dag("flights").await, code, said);
    }
}

#[tokio::test]
async fn what_has_no_second_effect_is_tried_again() {
    for api in BOTH {
        for status in [429, 500, 502, 503, 504] {
            let fake = Fake::start(api).await;
            let away = ResponseTemplate::new(status).insert_header("retry-after", "0");
            fake.once("GET", "/pools", away.clone()).await;
            fake.once("POST", "/dags/flights/dagRuns", away).await;
            fake.answer("GET", "/pools", 200, json!({ "pools": [], "total_entries": 0 })).await;
            fake.answer("POST", "/dags/flights/dagRuns", 200, crate::run(api, "r1", "queued")).await;
            fake.client().pools(Span::first()).await.expect("pools");
            fake.client().trigger(&trigger("flights", "r1")).await.expect("a run has its id");
        }
    }
}

#[tokio::test]
async fn what_may_have_had_its_effect_is_not_tried_again() {
    let event = |client: Client| async move { client.create_asset_event("x://y", &Map::new()).await };
    for (status, tries) in [(500, 1), (503, 1), (429, 4)] {
        let fake = Fake::start(Api::V1).await;
        fake.answer("POST", "/datasets/events", status, json!({})).await;
        expect(event(fake.client()).await, Code::AirflowUnavailable, "it does not say why");
        assert_eq!(fake.sent().await.len(), tries, "{status}");
    }
}

#[tokio::test]
async fn tries_are_bounded() {
    let fake = Fake::start(Api::V2).await;
    fake.answer("GET", "/pools", 503, json!({ "detail": "Database is locked." })).await;
    expect(fake.client().pools(Span::first()).await, Code::AirflowUnavailable, "503: Database is locked.");
    assert_eq!(fake.sent().await.len(), 4);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let fake = Fake::start(Api::V2).await;
    let late = ResponseTemplate::new(200).set_delay(Duration::from_secs(600));
    fake.respond("GET", "/pools", late.clone()).await;
    fake.respond("PATCH", "/dags/flights/dagRuns/r1", late).await;
    let mut settings = fake.settings(Credentials::None);
    (settings.timeout, settings.tries_max) = (Duration::from_millis(1500), 2);
    let client = Client::new(settings).expect("a client");
    let error = expect(client.pools(Span::first()).await, Code::AirflowUnreachable, "did not answer in time");
    assert!(error.is_retryable());
    assert_eq!(fake.sent().await.len(), 2);
    expect(
        client.mark_run("flights", "r1", dagwright_airflow::RunMark::Failed).await,
        Code::AirflowUnreachable,
        "did not answer in time",
    );
    assert_eq!(fake.sent().await.len(), 3, "a mark may have been made");
}

#[tokio::test]
async fn nobody_there_is_told_without_the_url() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let url = format!("http://{free}/airflow-path").parse().expect("a URL");
    let mut settings = Settings::new(url, Credentials::None).expect("settings");
    (settings.pause, settings.tries_max) = (Duration::from_millis(1), 2);
    let client = Client::new(settings).expect("a client");
    let error = expect(client.dag("flights").await, Code::AirflowUnreachable, "could not reach Airflow");
    assert!(error.is_retryable());
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(!source.contains("airflow-path"), "{source}");
}

#[tokio::test]
async fn an_airflow_that_comes_up_later_is_found_then() {
    let fake = Fake::start(Api::V1).await;
    let starting = ResponseTemplate::new(503);
    Mock::given(method("GET"))
        .and(path("/api/v2/version"))
        .respond_with(starting)
        .up_to_n_times(4)
        .with_priority(1)
        .mount(&fake.server)
        .await;
    fake.answer("GET", "/pools", 200, json!({ "pools": [], "total_entries": 0 })).await;
    let client = fake.client();
    expect(client.pools(Span::first()).await, Code::AirflowUnavailable, "version");
    client.pools(Span::first()).await.expect("pools");
}

#[tokio::test]
async fn an_upgrade_is_noticed() {
    let fake = Fake::start(Api::V1).await;
    fake.answer("GET", "/dags/flights", 404, json!({ "error": "/api/v1 has been removed in Airflow 3" })).await;
    let client = fake.client();
    client.version().await.expect("2.11");
    let v3 = ResponseTemplate::new(200).set_body_json(json!({ "version": "3.3.2" }));
    Mock::given(method("GET")).and(path("/api/v2/version")).respond_with(v3).with_priority(1).mount(&fake.server).await;
    let gone =
        ResponseTemplate::new(404).set_body_json(problem(Api::V2, 404, "The Dag with ID: `flights` was not found"));
    Mock::given(method("GET")).and(path("/api/v2/dags/flights")).respond_with(gone).mount(&fake.server).await;
    // A DAG is not gone because its API is.
    let error = expect(client.dag("flights").await, Code::AirflowUnavailable, "Airflow 3.3.2 answers by now");
    assert!(error.is_retryable());
    expect(client.dag("flights").await, Code::AirflowUnknown, "The Dag with ID");
}

#[tokio::test]
async fn what_is_no_airflow_is_not_taken_for_one() {
    let answer = |status: u16, body: &str| ResponseTemplate::new(status).set_body_raw(body, "application/json");
    for (response, said) in [
        (answer(200, r#"{"version": "2.10.5"}"#), "2.10.5"),
        (answer(200, r#"{"version": "4.0.0"}"#), "4.0.0"),
        (answer(200, r#"{"version": "\u001b[31m"}"#), r#"\u{1b}[31m"#),
        (answer(200, "<html>"), "a page of HTML"),
        (answer(404, "{}"), "no endpoint"),
        (answer(302, ""), "it sends elsewhere"),
    ] {
        let server = wiremock::MockServer::start().await;
        Mock::given(method("GET")).respond_with(response).mount(&server).await;
        let settings = Settings::new(server.uri().parse().expect("a URL"), Credentials::None).expect("settings");
        let client = Client::new(settings).expect("a client");
        expect(client.version().await, Code::AirflowUnsupported, said);
        expect(client.dag("flights").await, Code::AirflowUnsupported, said);
    }
}

#[tokio::test]
async fn large_answers_are_not_read() {
    let fake = Fake::start(Api::V2).await;
    fake.answer("GET", "/pools", 200, json!({ "pools": [], "padding": "x".repeat(5000) })).await;
    fake.answer("GET", "/dags/flights", 500, json!({ "detail": "x".repeat(1 << 20) })).await;
    let mut settings = fake.settings(Credentials::None);
    settings.answer_bytes_max = 4096;
    let client = Client::new(settings).expect("a client");
    expect(client.pools(Span::first()).await, Code::AirflowUnreadable, "more than 4096 bytes");
    let error = expect(client.dag("flights").await, Code::AirflowUnavailable, "xxx");
    assert!(error.to_string().len() < 1200, "{}", error.to_string().len());
}

#[tokio::test]
async fn a_body_without_an_end_is_not_read() {
    // No length is told, so the bound has to be found while reading.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while stream.write_all(b"400\r\n").await.is_ok() && stream.write_all(&[b' '; 1024]).await.is_ok() {
                if stream.write_all(b"\r\n").await.is_err() {
                    break;
                }
            }
        }
    });
    let client = Client::new(Settings::new(url, Credentials::None).expect("settings")).expect("a client");
    expect(client.version().await, Code::AirflowUnsupported, "more than 16777216 bytes");
    serving.abort();
}

#[tokio::test]
async fn a_log_that_goes_on_is_read_as_far_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let body = if request[..read].starts_with(b"GET /api/v2/version") {
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 20\r\n\r\n{\"version\": \"3.3.2\"}"
            } else {
                // The first message, and then nothing for as long as the task runs.
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{\"event\":\"one\"}\n\r\n"
            };
            let _ = stream.write_all(body.as_bytes()).await;
            open.push(stream);
        }
    });
    let mut settings = Settings::new(url, Credentials::None).expect("settings");
    settings.timeout = Duration::from_millis(1500);
    let client = Client::new(settings).expect("a client");
    let key = TaskKey { dag_id: "flights".into(), run_id: "r1".into(), task_id: "load".into(), map_index: None };
    let log = client.log(&key, 1, 1000).await.expect("a log");
    assert_eq!((log.text.as_str(), log.is_complete), ("one\n", false));
    serving.abort();
}

#[tokio::test]
async fn hostile_names_are_never_sent() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let client = fake.client();
        client.version().await.expect("a version");
        for name in ["..", ".", "~", "", "a/b", "a\\b", "a\nb"] {
            expect(client.delete_dag(name).await, Code::AirflowRefused, "has for nothing");
            expect(client.run("flights", name).await, Code::AirflowRefused, "has for nothing");
            expect(client.trigger(&trigger("flights", name)).await, Code::AirflowRefused, "has for nothing");
            expect(
                client
                    .xcom(
                        &TaskKey { dag_id: "a".into(), run_id: "b".into(), task_id: name.into(), map_index: None },
                        "k",
                    )
                    .await,
                Code::AirflowRefused,
                "has for nothing",
            );
            let filter = RunFilter { dag_id: Some(name.into()), ..RunFilter::default() };
            expect(client.runs(&filter, Span::first()).await, Code::AirflowRefused, "has for nothing");
        }
        assert_eq!(fake.said().await, [""; 0]);
        fake.answer("GET", "/dags/a%20b%3Fc%23d%25", 404, problem(api, 404, "no such DAG")).await;
        expect(client.dag("a b?c#d%").await, Code::AirflowUnknown, "read DAG \"a b?c#d%\"");
    }
}

#[tokio::test]
async fn calls_under_way_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    let serving = tokio::spawn(async move {
        let answer = async |mut stream: tokio::net::TcpStream, body: &str| {
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        };
        answer(listener.accept().await.expect("a call").0, r#"{"version": "3.3.2"}"#).await;
        let mut most = 0;
        for _ in 0..2 {
            // Two calls are under way, and nobody is answered before it is clear that there is no third.
            let mut open = vec![listener.accept().await.expect("a call").0, listener.accept().await.expect("a call").0];
            if let Ok(third) = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await {
                open.push(third.expect("a call").0);
            }
            most = most.max(open.len());
            for stream in open {
                answer(stream, r#"{"pools": [], "total_entries": 0}"#).await;
            }
        }
        most
    });
    let mut settings = Settings::new(url, Credentials::None).expect("settings");
    settings.connections_max = 2;
    let client = Client::new(settings).expect("a client");
    client.version().await.expect("a version");
    let span = Span::first();
    let (a, b, c, d) = tokio::join!(client.pools(span), client.pools(span), client.pools(span), client.pools(span));
    a.and(b).and(c).and(d).expect("pools");
    assert_eq!(serving.await.expect("a count"), 2);
}

#[test]
fn clients_show_no_credentials() {
    let url = "http://127.0.0.1:1".parse().expect("a URL");
    let credentials = Credentials::Token(dagwright_airflow::Secret::new(SECRET));
    let client = Client::new(Settings::new(url, credentials).expect("settings")).expect("a client");
    assert!(!format!("{client:?}").contains(SECRET));
}
