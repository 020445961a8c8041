//! As whom Airflow is called: passwords, tokens, and their renewal.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use dagwright_airflow::{Airflow, Api, Credentials, Error, Secret, Span};
use dagwright_model::code::Code;
use serde_json::json;
use wiremock::{
    Mock, Request, Respond, ResponseTemplate,
    matchers::{body_json, method, path},
};

use crate::{Fake, SECRET, problem};

/// Gives out tokens that last some seconds.
struct Tokens {
    lifetime: u64,
    given: AtomicU32,
}

/// Lets one token in.
struct LetsIn(&'static str);

impl Respond for Tokens {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let number = self.given.fetch_add(1, Ordering::SeqCst) + 1;
        let claims = json!({ "sub": number.to_string(), "iat": 1_000_000, "exp": 1_000_000 + self.lifetime });
        let token = format!("t{number}.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        ResponseTemplate::new(201).set_body_json(json!({ "access_token": token }))
    }
}

impl Respond for LetsIn {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let authorization =
            request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if authorization.starts_with(&format!("Bearer {}.", self.0)) {
            ResponseTemplate::new(200).set_body_json(json!({ "pools": [], "total_entries": 0 }))
        } else {
            ResponseTemplate::new(401).set_body_json(json!({ "detail": format!("Invalid token {authorization}") }))
        }
    }
}

fn password() -> Credentials {
    Credentials::Password { username: "ann".into(), password: Secret::new(SECRET) }
}

async fn with_tokens(lifetime: u64) -> Fake {
    let fake = Fake::start(Api::V2).await;
    Mock::given(method("POST"))
        .and(path("/auth/token"))
        .and(body_json(json!({ "username": "ann", "password": SECRET })))
        .respond_with(Tokens { lifetime, given: AtomicU32::new(0) })
        .mount(&fake.server)
        .await;
    fake
}

async fn lets_in(fake: &Fake, token: &'static str) {
    Mock::given(method("GET")).and(path("/api/v2/pools")).respond_with(LetsIn(token)).mount(&fake.server).await;
}

async fn logins(fake: &Fake) -> usize {
    fake.sent().await.iter().filter(|request| request.url.path() == "/auth/token").count()
}

#[track_caller]
fn expect_unauthenticated(error: &Error) {
    assert_eq!(error.code(), Code::AirflowUnauthenticated, "{error}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
}

#[tokio::test]
async fn v1_takes_the_password_itself() {
    let fake = Fake::start(Api::V1).await;
    fake.answer("GET", "/pools", 200, json!({ "pools": [], "total_entries": 0 })).await;
    fake.client_of(password()).pools(Span::first()).await.expect("pools");
    let all = fake.server.received_requests().await.expect("requests");
    let (last, before) = all.split_last().expect("requests");
    assert_eq!(last.headers["authorization"], "Basic YW5uOmh1bnRlcjI=");
    assert!(before.iter().all(|request| !request.headers.contains_key("authorization")), "the version wants nobody");
}

#[tokio::test]
async fn whom_v1_does_not_know_is_told_from_who_may_not() {
    let forbidden = || json!({ "detail": null, "status": 403, "title": "Forbidden", "type": "about:blank" });
    for known in [true, false] {
        let fake = Fake::start(Api::V1).await;
        fake.answer("GET", "/pools", 403, forbidden()).await;
        let (status, list) = if known { (200, json!({ "dags": [], "total_entries": 0 })) } else { (403, forbidden()) };
        fake.answer("GET", "/dags", status, list).await;
        let error = fake.client_of(password()).pools(Span::first()).await.expect_err("refused");
        let code = if known { Code::AirflowDenied } else { Code::AirflowUnauthenticated };
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test]
async fn a_given_token_is_passed_on_and_not_renewed() {
    let fake = Fake::start(Api::V2).await;
    fake.answer("GET", "/pools", 401, problem(Api::V2, 401, "Invalid token hunter2")).await;
    let error = fake.client().pools(Span::first()).await.expect_err("refused");
    expect_unauthenticated(&error);
    let sent = fake.sent().await;
    assert_eq!((sent.len(), &sent[0].headers["authorization"]), (1, &"Bearer hunter2".parse().expect("a value")));
}

#[tokio::test]
async fn one_token_serves_many_calls_at_once() {
    let fake = with_tokens(3600).await;
    lets_in(&fake, "t1").await;
    let client = fake.client_of(password());
    let span = Span::first();
    let (a, b, c) = tokio::join!(client.pools(span), client.pools(span), client.pools(span));
    a.and(b).and(c).expect("pools");
    assert_eq!(logins(&fake).await, 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    // It lasts for no time at all.
    let fake = with_tokens(0).await;
    fake.answer("GET", "/pools", 200, json!({ "pools": [], "total_entries": 0 })).await;
    let client = fake.client_of(password());
    for _ in 0..3 {
        client.pools(Span::first()).await.expect("pools");
    }
    assert_eq!(logins(&fake).await, 3);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    // Airflow forgot the first token, as after its key was changed.
    let fake = with_tokens(3600).await;
    lets_in(&fake, "t2").await;
    let client = fake.client_of(password());
    client.pools(Span::first()).await.expect("pools");
    client.pools(Span::first()).await.expect("pools");
    assert_eq!(logins(&fake).await, 2);
    // And here it takes none.
    let fake = with_tokens(3600).await;
    lets_in(&fake, "t9").await;
    expect_unauthenticated(&fake.client_of(password()).pools(Span::first()).await.expect_err("refused"));
    assert_eq!(logins(&fake).await, 2);
}

#[tokio::test]
async fn calls_that_meet_the_same_refusal_renew_once() {
    let fake = with_tokens(3600).await;
    lets_in(&fake, "t2").await;
    let client = fake.client_of(password());
    let span = Span::first();
    let (a, b, c) = tokio::join!(client.pools(span), client.pools(span), client.pools(span));
    a.and(b).and(c).expect("pools");
    assert_eq!(logins(&fake).await, 2);
}

#[tokio::test]
async fn a_call_with_an_effect_is_sent_again_with_a_new_token() {
    let fake = with_tokens(3600).await;
    let posted = ResponseTemplate::new(200).set_body_json(json!({
        "id": 1, "asset_id": 1, "timestamp": "2025-01-01T00:00:00Z",
    }));
    fake.answer("GET", "/assets", 200, json!({ "assets": [{ "id": 1, "uri": "x://y" }], "total_entries": 1 })).await;
    fake.once("POST", "/assets/events", ResponseTemplate::new(401).set_body_json(problem(Api::V2, 401, "expired")))
        .await;
    fake.respond("POST", "/assets/events", posted).await;
    fake.client_of(password()).create_asset_event("x://y", &serde_json::Map::new()).await.expect("an event");
    assert_eq!(logins(&fake).await, 2);
}

#[tokio::test]
async fn what_a_login_does_not_like_are_the_credentials() {
    for status in [400, 401, 403, 422] {
        let fake = Fake::start(Api::V2).await;
        let refused = ResponseTemplate::new(status).set_body_json(json!({ "detail": "Invalid credentials hunter2" }));
        Mock::given(method("POST")).and(path("/auth/token")).respond_with(refused).mount(&fake.server).await;
        let error = fake.client_of(password()).pools(Span::first()).await.expect_err("refused");
        expect_unauthenticated(&error);
        assert_eq!(logins(&fake).await, 1);
    }
}

#[tokio::test]
async fn a_login_that_is_away_is_tried_again() {
    let fake = Fake::start(Api::V2).await;
    let away = ResponseTemplate::new(503);
    Mock::given(method("POST"))
        .and(path("/auth/token"))
        .respond_with(away)
        .up_to_n_times(2)
        .with_priority(1)
        .mount(&fake.server)
        .await;
    let tokens = Tokens { lifetime: 60, given: AtomicU32::new(0) };
    Mock::given(method("POST")).and(path("/auth/token")).respond_with(tokens).mount(&fake.server).await;
    lets_in(&fake, "t1").await;
    fake.client_of(password()).pools(Span::first()).await.expect("pools");
}

#[tokio::test]
async fn tokens_that_fit_into_no_header_are_not_taken() {
    for token in ["", "a\nb: c", &"x".repeat(20_000)] {
        let fake = Fake::start(Api::V2).await;
        let told = ResponseTemplate::new(201).set_body_json(json!({ "access_token": token }));
        Mock::given(method("POST")).and(path("/auth/token")).respond_with(told).mount(&fake.server).await;
        let error = fake.client_of(password()).pools(Span::first()).await.expect_err("no token");
        assert_eq!(error.code(), Code::AirflowUnreadable, "{error}");
    }
}
