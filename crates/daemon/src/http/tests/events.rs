//! Events are told once each, in order, whoever asks from where.

use std::time::Duration;

use actix_web::{
    App,
    body::{BodySize, MessageBody},
    http::Method,
    middleware::from_fn,
    test::{TestRequest, init_service, try_call_service},
};
use dagwright_store::{Outbox, RequestState};
use serde_json::Value;

use super::{World, asks, spec};

/// Reads a stream until it has told this many events; returns each with its position.
async fn told(world: &World, request: TestRequest, count: usize) -> Vec<(Option<u64>, Value)> {
    let state = world.state.clone();
    let app = App::new()
        .configure(move |config| crate::http::service(config, state))
        .wrap(from_fn(crate::http::fault::explain));
    let app = init_service(app).await;
    let response = try_call_service(&app, request.to_request()).await.expect("an answer");
    assert_eq!(response.headers().get("content-type").and_then(|value| value.to_str().ok()), Some("text/event-stream"));
    let mut body = std::pin::pin!(response.into_body());
    assert_eq!(body.size(), BodySize::Stream);
    let mut told = Vec::new();
    while told.len() < count {
        let next = std::future::poll_fn(|context| body.as_mut().poll_next(context));
        let chunk = tokio::time::timeout(Duration::from_secs(60), next).await.expect("within a minute");
        let chunk = chunk.expect("no end").unwrap_or_else(|_| panic!("no fault"));
        let text = String::from_utf8(chunk.to_vec()).expect("text");
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
        if let Some(data) = field("data") {
            let event: Value = serde_json::from_str(&data).expect("JSON");
            assert_eq!(event["type"], format!("dev.dagwright.{}.v1", field("event").expect("a name")));
            told.push((field("id").map(|id| id.parse().expect("a position")), event));
        }
    }
    told
}

fn from(path: &str, after: Option<u64>) -> TestRequest {
    let request = asks(Method::GET, path);
    match after {
        Some(after) => request.insert_header(("last-event-id", after.to_string())),
        None => request,
    }
}

#[actix_web::test]
async fn a_reader_goes_on_without_gap_or_repeat() {
    let world = World::new().await;
    for key in ["a", "b"] {
        world.submitted(&spec("told"), key, RequestState::Succeeded).await;
    }
    let newest = world.store.newest_event().expect("reads");
    let all = told(&world, from("/api/v1/events?after=0", None), usize::try_from(newest).expect("few")).await;
    let positions: Vec<_> = all.iter().filter_map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=newest).collect::<Vec<_>>());
    for cut in [1, 4, newest - 1] {
        let rest = told(&world, from("/api/v1/events", Some(cut)), usize::try_from(newest - cut).expect("few")).await;
        assert_eq!(rest, all[usize::try_from(cut).expect("few")..]);
    }
    // The header counts more than the parameter, which an EventSource repeats as it was.
    let last = told(&world, from("/api/v1/events?after=0", Some(newest - 1)), 1).await;
    assert_eq!(last, all[all.len() - 1..]);
}

#[actix_web::test]
async fn a_request_is_told_from_its_beginning_to_its_end() {
    let world = World::new().await;
    world.hold();
    let id = world.submitted(&spec("followed"), "a", RequestState::Running).await;
    let release = world.let_end.clone();
    let watch = told(&world, from(&format!("/api/v1/events?request={id}"), None), 8);
    let release = async {
        tokio::task::yield_now().await;
        release.add_permits(1);
    };
    let (told, ()) = tokio::join!(watch, release);
    let kinds: Vec<_> = told.iter().map(|(_, event)| event["type"].as_str().expect("a type").to_owned()).collect();
    let wanted = [
        "request.accepted",
        "plan.sealed",
        "dag.compiled",
        "dag.compiled",
        "run.started",
        "task.started",
        "task.succeeded",
        "run.succeeded",
    ];
    assert_eq!(kinds, wanted.map(|kind| format!("dev.dagwright.{kind}.v1")));
    assert!(told.iter().all(|(_, event)| event["subject"] == id.as_str()));
}

#[actix_web::test]
async fn only_what_is_wanted_is_told() {
    let world = World::new().await;
    for pipeline in ["p", "q"] {
        world.submitted(&spec(pipeline), pipeline, RequestState::Succeeded).await;
    }
    let of_q = told(&world, from("/api/v1/events?pipeline=aviation.q&after=0", None), 8).await;
    assert!(of_q.iter().all(|(_, event)| event["data"]["pipeline"] == "aviation.q"));
}

#[actix_web::test]
async fn positions_of_nobody_are_refused() {
    let world = World::new().await;
    world.call(from("/api/v1/events", Some(99))).await.is_refused(400, "DW0801");
    world.get("/api/v1/events?after=99").await.is_refused(400, "DW0801");
    let odd = asks(Method::GET, "/api/v1/events").insert_header(("last-event-id", "odd"));
    world.call(odd).await.is_refused(400, "DW0801");
}

#[actix_web::test]
async fn streams_have_a_bound_and_end_with_the_service() {
    let world = World::new().await;
    let all = world.state.streams.clone().acquire_many_owned(u32::try_from(super::STREAMS_MAX).expect("few")).await;
    world.get("/api/v1/events").await.is_refused(503, "DW0812");
    drop(all);
    world.state.closing.cancel();
    // It has an end, so it can be read whole.
    assert!(world.get("/api/v1/events").await.text.starts_with("retry: 1000\nid: 0\n"));
}
