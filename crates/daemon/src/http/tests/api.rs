//! What each endpoint answers.

use actix_web::http::{Method, StatusCode};
use dagwright_store::RequestState;
use serde_json::{Value, json};

use super::{World, asks, sends, spec};

#[actix_web::test]
async fn a_request_sent_twice_is_one() {
    let world = World::new().await;
    let first = world.submit(&spec("once"), "a").await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let id = first.json()["request_id"].as_str().expect("an id").to_owned();
    assert_eq!(first.header("location"), Some(&*format!("/api/v1/requests/{id}")));
    world.until(&id, RequestState::Succeeded).await;
    for key in ["a", "\"a\""] {
        let again = world.submit(&spec("once"), key).await;
        assert_eq!((again.status, &again.json()["request_id"]), (StatusCode::OK, &json!(id)));
        assert_eq!(again.json()["repeated"], true);
    }
    assert_eq!(world.get("/api/v1/requests").await.json()["items"].as_array().map(Vec::len), Some(1));
    let other = spec("once").replace("min_rows: 20000", "min_rows: 1");
    world.submit(&other, "a").await.is_refused(422, "DW0801");
    assert_ne!(world.submit(&other, "b").await.json()["request_id"], json!(id));
    for bad in ["", "a b", &"a".repeat(256)] {
        world.submit(&spec("once"), bad).await.is_refused(400, "DW0801");
    }
}

#[actix_web::test]
async fn a_cloud_event_is_taken_in_both_modes_and_known_by_source_and_id() {
    let world = World::new().await;
    let data = json!({ "spec": spec("event") });
    let structured = json!({
        "specversion": "1.0", "id": "7", "source": "/acme", "type": "dev.dagwright.pipeline.requested.v1", "data": data,
    });
    let post =
        |content_type: &str| asks(Method::POST, "/api/v1/requests").insert_header(("content-type", content_type));
    let first = world.call(post("application/cloudevents+json").set_payload(structured.to_string())).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let binary = post("application/json")
        .insert_header(("ce-specversion", "1.0"))
        .insert_header(("ce-id", "7"))
        .insert_header(("ce-source", "/acme"))
        .insert_header(("ce-type", "dev.dagwright.pipeline.requested.v1"))
        .set_payload(data.to_string());
    let again = world.call(binary).await;
    assert_eq!((again.status, &again.json()["request_id"]), (StatusCode::OK, &first.json()["request_id"]));
    // Whatever stands in it: an event that has this id is the first one.
    let mut other = structured.clone();
    other["data"]["spec"] = spec("event").replace("min_rows: 20000", "min_rows: 1").into();
    let again = world.call(post("application/cloudevents+json").set_payload(other.to_string())).await;
    assert_eq!((again.status, &again.json()["request_id"]), (StatusCode::OK, &first.json()["request_id"]));
    let id = first.json()["request_id"].as_str().expect("an id").to_owned();
    let shown = world.get(&format!("/api/v1/requests/{id}")).await.json();
    assert_eq!(shown["identity"], json!({ "source": "/acme", "id": "7" }));
}

#[actix_web::test]
async fn what_is_wrong_is_told_as_the_command_line_does() {
    let world = World::new().await;
    let wrong = spec("wrong").replace("mode: replace", "mode: repalce").replace("version: 1", "version: 1\nbogus: 2");
    let details = world.submit(&wrong, "a").await.is_refused(422, "DW0102");
    let told = dagwright_model::spec::Spec::parse(&wrong).expect_err("wrong");
    assert_eq!(details["diagnostics"], serde_json::to_value(&told).expect("JSON"));
    assert!(told.0.len() >= 2 && told.0.iter().all(|diagnostic| diagnostic.line.is_some()));

    let outside = spec("outside").replace("/data/out/", "/etc/");
    world.submit(&outside, "a").await.is_refused(403, "DW0806");
    let json = |body: Value| {
        let request = asks(Method::POST, "/api/v1/requests").insert_header(("content-type", "application/json"));
        request.set_payload(body.to_string())
    };
    for (body, status, code) in [
        (json!({ "action": "run" }), 400, "DW0801"),
        (json!({ "action": "stop", "spec": spec("p") }), 400, "DW0801"),
        (json!({ "action": "run", "pipeline": "unknown" }), 404, "DW0803"),
        (json!({ "action": "run", "spec": spec("p"), "run": { "params": { "late_after": "x" } } }), 422, "DW0103"),
        (json!({ "intent": "load my flights" }), 422, "DW0110"),
    ] {
        world.call(json(body)).await.is_refused(status, code);
    }
    for (content_type, encoding, status) in
        [("text/plain", "identity", 415), ("application/json", "br", 415), ("application/json", "gzip", 400)]
    {
        let request = sends("{").insert_header(("content-type", content_type));
        world.call(request.insert_header(("content-encoding", encoding))).await.is_refused(status, "DW0801");
    }
    assert_eq!(world.get("/api/v1/requests").await.json(), json!({ "items": [] }));
}

#[actix_web::test]
async fn a_request_is_shown_with_everything_about_it() {
    let world = World::new().await;
    let id = world.submitted(&spec("shown"), "a", RequestState::Succeeded).await;
    let request = world.get(&format!("/api/v1/requests/{id}")).await.json();
    assert_eq!(
        (&request["state"], &request["is_final"], &request["run_id"]),
        (&json!("succeeded"), &json!(true), &json!(id))
    );
    assert_eq!(request["rows"], json!({ "read": 5, "loaded": 5, "quarantined": 0, "superseded": 0 }));
    for (name, link) in request["links"].as_object().expect("links") {
        if name != "events" {
            assert_eq!(world.get(link.as_str().expect("a path")).await.status, StatusCode::OK, "{name}");
        }
    }
    let said = world.get(&format!("/api/v1/requests/{id}/transcript")).await.json();
    let kinds: Vec<_> = said.as_array().expect("messages").iter().map(|said| said["message"]["type"].clone()).collect();
    assert!(kinds.contains(&json!("call_for_proposals")) && kinds.contains(&json!("sealed")), "{kinds:?}");

    let run = world.get(&format!("/api/v1/runs/{id}")).await.json();
    let tasks = run["particulars"]["tasks"].as_array().expect("tasks");
    assert_eq!((tasks.len(), &tasks[0]["task_id"], &tasks[0]["state"]), (1, &json!("load"), &json!("succeeded")));
    assert_eq!(run["particulars"]["counts"]["sinks"]["lake"]["loaded"], 5);
    assert_eq!(run["particulars"]["quarantine"], format!("/quarantine/aviation.shown/{id}/"));

    let hash = request["plan_hash"].as_str().expect("a plan");
    let plan = world.get(&format!("/api/v1/pipelines/aviation.shown/plans/{hash}")).await.json();
    assert_eq!(plan["plan"]["dag_id"], "aviation.shown");
    let plans = world.get("/api/v1/pipelines/aviation.shown/plans").await.json();
    assert_eq!((&plans["items"][0]["plan_hash"], &plans["items"][0]["request_id"]), (&json!(hash), &json!(id)));
    world.get(&format!("/api/v1/pipelines/aviation.other/plans/{hash}")).await.is_refused(404, "DW0803");

    let story = world.get(&format!("/api/v1/requests/{id}/explain")).await.json();
    assert!(story["summary"].as_str().expect("a sentence").contains("succeeded"), "{story}");
    let prose = asks(Method::GET, &format!("/api/v1/requests/{id}/explain")).insert_header(("accept", "text/plain"));
    let prose = world.call(prose).await;
    assert!(prose.text.starts_with(story["summary"].as_str().expect("a sentence")) && !prose.text.contains('\u{1b}'));
}

#[actix_web::test]
async fn unknown_things_are_not_found() {
    let world = World::new().await;
    for path in [
        "/api/v1/requests/x",
        "/api/v1/requests/x/transcript",
        "/api/v1/requests/x/explain",
        "/api/v1/requests/%00",
        "/api/v1/runs/x",
        "/api/v1/pipelines/x",
        "/api/v1/pipelines/x/plans",
        "/api/v1/pipelines/x/plans/y",
        "/api/v1/events?request=x",
        "/api/v1/nothing",
        "/api/v2/requests",
        "/",
    ] {
        world.get(path).await.is_refused(404, "DW0803");
    }
    for path in
        ["/api/v1/requests/x/cancel", "/api/v1/runs/x/cancel", "/api/v1/plans/x/approve", "/api/v1/plans/x/decline"]
    {
        world.call(asks(Method::POST, path)).await.is_refused(404, "DW0803");
    }
    let other = world.call(asks(Method::DELETE, "/api/v1/requests")).await;
    other.is_refused(405, "DW0801");
    assert_eq!(other.header("allow"), Some("GET, POST"));
}

#[actix_web::test]
async fn lists_come_in_parts_without_a_gap() {
    let world = World::new().await;
    let mut sent = Vec::new();
    for index in 0..7 {
        let id = world.submitted(&spec(&format!("p{}", index % 3)), &index.to_string(), RequestState::Succeeded).await;
        sent.insert(0, id);
    }
    let all = |path: &'static str, key: &'static str| {
        let world = &world;
        async move {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = world.get(&format!("{path}limit=2{cursor}")).await.json();
                let items = page["items"].as_array().expect("items").clone();
                assert!(items.len() <= 2);
                found.extend(items.into_iter().map(|item| item[key].as_str().expect("text").to_owned()));
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return found,
                }
            }
        }
    };
    assert_eq!(all("/api/v1/requests?", "request_id").await, sent);
    assert_eq!(all("/api/v1/requests?state=succeeded&", "request_id").await, sent);
    assert_eq!(all("/api/v1/runs?", "run_id").await, sent);
    let of_one: Vec<_> = sent.iter().rev().step_by(3).rev().cloned().collect();
    assert_eq!(all("/api/v1/requests?pipeline=aviation.p0&", "request_id").await, of_one);
    assert_eq!(all("/api/v1/requests?state=failed&", "request_id").await, Vec::<String>::new());
    assert_eq!(all("/api/v1/pipelines?", "pipeline").await, ["aviation.p0", "aviation.p1", "aviation.p2"]);
    for bad in ["limit=0", "limit=501", "limit=x", "cursor=%21", "cursor=e30", "state=odd", "nothing=1"] {
        world.get(&format!("/api/v1/requests?{bad}")).await.is_refused(400, "DW0801");
    }
}

#[actix_web::test]
async fn a_request_is_told_to_stop() {
    let world = World::new().await;
    world.hold();
    let running = world.submitted(&spec("stopped"), "a", RequestState::Running).await;
    let waiting = world.submitted(&spec("stopped"), "b", RequestState::Negotiating).await;
    world.call(asks(Method::POST, &format!("/api/v1/runs/{waiting}/cancel"))).await.is_refused(404, "DW0803");
    let stopped = world.call(asks(Method::POST, &format!("/api/v1/requests/{waiting}/cancel"))).await;
    assert_eq!(stopped.status, StatusCode::ACCEPTED, "{}", stopped.text);
    world.until(&waiting, RequestState::Cancelled).await;
    world.call(asks(Method::POST, &format!("/api/v1/requests/{waiting}/cancel"))).await.is_refused(409, "DW0811");
    let stopped = world.call(asks(Method::POST, &format!("/api/v1/runs/{running}/cancel"))).await;
    assert_eq!(stopped.status, StatusCode::ACCEPTED, "{}", stopped.text);
}
