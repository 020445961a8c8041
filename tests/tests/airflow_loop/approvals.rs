//! People approve plans in Airflow (3.1 and later).

use dagwright_airflow::{Airflow as _, Answer, RunState, TaskKey};
use dagwright_tests::http;
use serde_json::{Value, json};

use crate::world::World;

/// What Airflow calls the questions.
const DAG: &str = "dagwright_approvals";

/// A plan that waits is asked about in Airflow; as somebody answers there, so it is decided.
pub(crate) fn people_decide_in_airflow(world: &mut World) {
    for (id, option, ends) in [("asked", "Approve", "run.succeeded"), ("asked again", "Reject", "request.rejected")] {
        let (request, question) = ask(world, id);
        // A crash forgets no question, and asks none twice.
        world.kill_daemon();
        world.start_daemon();
        answer(world, &question, option);
        let ended = world.told(id, ends);
        assert_eq!(ended["data"]["request_id"], request);
        let explained = world.daemon().run(&world.workspace, &["explain", request.as_str().expect("an id")]);
        // As whom the test answered.
        assert!(explained.expect(0).stdout.contains("admin"), "{}", explained.stdout);
    }
    assert_eq!(world.query("select count(*) from public.asked"), "10");
}

/// Somebody approves by the API: the question in Airflow ends with it.
pub(crate) fn what_is_decided_elsewhere_is_asked_no_longer(world: &mut World) {
    let (_, question) = ask(world, "decided elsewhere");
    let plan = world.told("decided elsewhere", "approval.needed")["data"]["plan_hash"].clone();
    world.daemon().run(&world.workspace, &["approve", plan.as_str().expect("a hash")]).expect(0);
    world.told("decided elsewhere", "run.succeeded");
    world.until("the question to end", async || {
        Ok(Some(world.client.run(DAG, &question).await?).filter(|run| run.state == RunState::Failed))
    });
}

/// Requests a run that somebody must approve; returns the request, and the run of its question.
fn ask(world: &mut World, id: &str) -> (Value, String) {
    let file = world.rows("asked.csv", 0, 10);
    let mut spec = world.spec("asked", &file);
    spec["sink"]["mode"] = "replace".into();
    spec["policy"] = json!({ "approval": "always" });
    world.request(id, &json!({ "spec": spec }));
    let needed = world.told(id, "approval.needed");
    let request = needed["data"]["request_id"].clone();
    let hash = needed["data"]["plan_hash"].as_str().expect("a hash");
    let question = format!("approve__{}__{}", request.as_str().expect("an id"), &hash[..12]);
    world.until("the question", async || {
        Ok(Some(world.client.run(DAG, &question).await?).filter(|run| run.state == RunState::Running))
    });
    (request, question)
}

/// Answers a question as people do, by what Airflow's web interface calls.
fn answer(world: &World, question: &str, option: &str) {
    let address = world.airflow.url.trim_start_matches("http://").parse().expect("an address");
    let json = ("content-type", "application/json");
    let login = json!({ "username": "admin", "password": world.airflow.password }).to_string();
    let token = http::call(address, "POST", "/auth/token", &[json], login.as_bytes());
    let token = format!("Bearer {}", token.expect(201).json()["access_token"].as_str().expect("a token"));
    let path = format!("/api/v2/dags/{DAG}/dagRuns/{question}/taskInstances/approve/-1/hitlDetails");
    let body = json!({ "chosen_options": [option], "params_input": {} }).to_string();
    let key = TaskKey { dag_id: DAG.into(), run_id: question.into(), task_id: "approve".into(), map_index: None };
    let answered = world.until("the question to be answered", async || {
        let reply = http::call(address, "PATCH", &path, &[json, ("authorization", &token)], body.as_bytes());
        // Before the task waits there is nothing to answer.
        assert!([200, 404].contains(&reply.status), "{}: {}", reply.status, reply.body);
        world.client.answer(&key).await
    });
    assert_eq!(answered, Answer { chosen: vec![option.into()], by: Some("admin".into()) });
}
