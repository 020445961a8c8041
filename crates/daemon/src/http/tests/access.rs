//! Who may do what, and how much of it.

use actix_web::http::{Method, StatusCode};
use dagwright_store::RequestState;
use serde_json::json;

use super::{World, asks, sends, spec};

const TOKENS: &str = "
[http.tokens.reader]
token_env = \"READER\"
scopes = [\"read\"]
[http.tokens.ann]
token_env = \"ANN\"
scopes = [\"read\", \"submit\"]
[http.tokens.eve]
token_env = \"EVE\"
scopes = [\"read\", \"submit\", \"operate\"]
[http.tokens.bob]
token_env = \"BOB\"
scopes = [\"operate\"]
[http.tokens.guest]
token_env = \"GUEST\"
scopes = [\"read\", \"submit\", \"operate\"]
namespaces = [\"elsewhere\"]
";

const VALUES: [(&str, &str); 5] = [
    ("READER", "reader-0123456789abcdef"),
    ("ANN", "ann-0123456789abcdef"),
    ("EVE", "eve-0123456789abcdef"),
    ("BOB", "bob-0123456789abcdef"),
    ("GUEST", "guest-0123456789abcdef"),
];

async fn guarded() -> World {
    World::with(TOKENS, &VALUES).await
}

fn of(request: actix_web::test::TestRequest, who: &str) -> actix_web::test::TestRequest {
    request.insert_header(("authorization", format!("Bearer {who}-0123456789abcdef")))
}

#[actix_web::test]
async fn each_scope_opens_what_it_says() {
    let world = guarded().await;
    let nobody = world.get("/api/v1/requests").await;
    nobody.is_refused(401, "DW0807");
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer"));
    for wrong in ["Bearer nonsense-0123456789abcdef", "Basic YW5uOmFubg==", "Bearer", "bearer  "] {
        let asked = asks(Method::GET, "/api/v1/requests").insert_header(("authorization", wrong));
        world.call(asked).await.is_refused(401, "DW0807");
    }
    let (get, post) = (Method::GET, Method::POST);
    for (who, method, path, refused) in [
        ("reader", &get, "/api/v1/requests", None),
        ("reader", &post, "/api/v1/requests", Some((403, "DW0808"))),
        ("reader", &post, "/api/v1/requests/x/cancel", Some((403, "DW0808"))),
        ("ann", &post, "/api/v1/requests/x/cancel", Some((403, "DW0808"))),
        ("ann", &post, "/api/v1/plans/x/approve", Some((403, "DW0808"))),
        ("eve", &post, "/api/v1/plans/x/approve", Some((404, "DW0803"))),
        ("eve", &get, "/api/v1/events?request=x", Some((404, "DW0803"))),
    ] {
        let answer = world.call(of(asks(method.clone(), path), who)).await;
        match refused {
            Some((status, code)) => drop(answer.is_refused(status, code)),
            None => assert_eq!(answer.status, StatusCode::OK, "{who} {path}: {}", answer.text),
        }
    }
    for open in ["/livez", "/readyz", "/api/v1/openapi.json"] {
        assert_eq!(world.get(open).await.status, StatusCode::OK, "{open}");
    }
    let pause = json!({ "action": "pause", "pipeline": "aviation.p" }).to_string();
    let pause = sends(&pause).insert_header(("content-type", "application/json"));
    world.call(of(pause, "ann")).await.is_refused(403, "DW0808");
}

#[actix_web::test]
async fn what_is_not_ready_says_why() {
    let world = World::new().await;
    world.state.service.drain(std::time::Duration::ZERO).await;
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["reasons"][0]["check"], "draining");
}

#[actix_web::test]
async fn nobody_decides_about_what_they_asked_for() {
    let world = guarded().await;
    let text = spec("decided").replace("approval: never", "approval: always");
    for (verb, end) in [("approve", RequestState::Succeeded), ("decline", RequestState::Failed)] {
        let sent = world.call(of(sends(&text).insert_header(("idempotency-key", verb)), "eve")).await.json();
        let id = sent["request_id"].as_str().expect("an id").to_owned();
        world.until(&id, RequestState::AwaitingApproval).await;
        let shown = world.call(of(asks(Method::GET, &format!("/api/v1/requests/{id}")), "eve")).await.json();
        assert_eq!(shown["requester"], "eve");
        let path = format!("/api/v1/plans/{}/{verb}", shown["plan_hash"].as_str().expect("a plan"));
        let decide = async |who| world.call(of(asks(Method::POST, &path), who)).await;
        decide("eve").await.is_refused(403, "DW0810");
        decide("guest").await.is_refused(404, "DW0803");
        let decided = decide("bob").await;
        assert_eq!(decided.json()["requests"], json!([id]), "{}", decided.text);
        world.until(&id, end).await;
        decide("bob").await.is_refused(409, "DW0811");
        let story = world.call(of(asks(Method::GET, &format!("/api/v1/requests/{id}/explain")), "ann")).await;
        assert!(story.text.contains(&format!("bob {verb}d it.")), "{}", story.text);
    }
}

#[actix_web::test]
async fn other_namespaces_are_as_if_they_were_not() {
    let world = guarded().await;
    let sent = world.call(of(sends(&spec("hidden")), "ann")).await.json();
    let id = sent["request_id"].as_str().expect("an id").to_owned();
    world.until(&id, RequestState::Succeeded).await;
    let guest = async |path: &str| world.call(of(asks(Method::GET, path), "guest")).await;
    for list in ["/api/v1/requests", "/api/v1/runs", "/api/v1/pipelines"] {
        assert_eq!(guest(list).await.json()["items"], json!([]), "{list}");
    }
    for path in [
        format!("/api/v1/requests/{id}"),
        format!("/api/v1/requests/{id}/explain"),
        format!("/api/v1/runs/{id}"),
        format!("/api/v1/events?request={id}"),
        "/api/v1/pipelines/aviation.hidden".into(),
        "/api/v1/pipelines/aviation.hidden/plans".into(),
    ] {
        guest(&path).await.is_refused(404, "DW0803");
    }
    world.call(of(sends(&spec("hidden")), "guest")).await.is_refused(403, "DW0806");
}

#[actix_web::test]
async fn without_tokens_browsers_are_kept_out() {
    let world = World::new().await;
    for (name, value, is_let_in) in [
        ("host", "127.0.0.1:8642", true),
        ("host", "[::1]:8642", true),
        ("host", "localhost", true),
        ("host", "rebound.example", false),
        ("host", "localhost.example:8642", false),
        ("host", "127.0.0.1.example", false),
        ("host", "", false),
        ("origin", "http://localhost:3000", true),
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "cross-site", false),
    ] {
        let answer = world.call(asks(Method::GET, "/api/v1/requests").insert_header((name, value))).await;
        if is_let_in {
            assert_eq!(answer.status, StatusCode::OK, "{name}: {value}");
        } else {
            answer.is_refused(403, "DW0806");
        }
    }
}

#[actix_web::test]
async fn bodies_have_a_bound() {
    let world = World::with("[http]\nbody_max = \"4KiB\"\n", &[]).await;
    world.submit(&"#".repeat(5_000), "a").await.is_refused(413, "DW0802");
}

#[actix_web::test]
async fn each_caller_has_a_share() {
    let world = World::with("[http]\nrequests_per_second = 2\n", &[]).await;
    let mut refused = None;
    for _ in 0..20 {
        let answer = world.get("/api/v1/requests").await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("more than two of twenty in less than nine seconds");
    refused.is_refused(429, "DW0812");
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!(wait >= 1);
}

#[test]
fn tokens_that_cannot_be_told_apart_or_guessed_are_refused() {
    use std::io::Write as _;

    use crate::{config::Config, http::auth::Gate};

    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(TOKENS.as_bytes()).expect("written");
    let config = Config::load(Some(file.path())).expect("valid");
    let with = |values: &[(&str, &str)]| {
        let values = values.to_vec();
        let found = Gate::with(&config.http, |name| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        found.err().map(|error| error.to_string())
    };
    assert_eq!(with(&VALUES), None);
    assert!(with(&VALUES[..4]).expect("refused").contains("GUEST, which is not set"));
    let mut short = VALUES;
    short[1].1 = "short";
    assert!(with(&short).expect("refused").contains("fewer than"));
    let mut twice = VALUES;
    twice[2].1 = VALUES[1].1;
    let told = with(&twice).expect("refused");
    let both = with(&[VALUES[0], VALUES[1], ("BOB", "short"), VALUES[4]]).expect("refused");
    assert!(both.contains("EVE, which is not set") && both.contains("http.tokens.bob"), "{both}");
    assert!(told.contains("the same token") && !told.contains("0123456789abcdef"), "{told}");
}
