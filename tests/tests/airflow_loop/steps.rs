//! The steps of the story.

use dagwright_airflow::{Airflow as _, Clear, Deleted, RunState, Span, Trigger};
use serde_json::{Map, Value, json};

use crate::world::{World, type_of};

/// A request over Kafka becomes rows, and everything about it is told once.
pub(crate) fn a_request_is_loaded_rows(world: &mut World, major: u32) {
    let file = world.rows("in.csv", 0, 1000);
    let spec = world.spec("copied", &file);
    world.request("first", &json!({ "spec": spec }));
    let ended = world.told("first", "run.succeeded");
    assert_eq!(ended["data"]["rows"], json!({ "read": 1000, "loaded": 1000, "quarantined": 0, "superseded": 0 }));
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.copied"), "1000|1");

    let request = ended["data"]["request_id"].clone();
    let kinds = world.kinds(&request);
    for kind in ["request.accepted", "plan.sealed", "run.started", "task.started", "task.succeeded", "run.succeeded"] {
        assert_eq!(kinds.get(kind), Some(&1), "{kind} in {kinds:?}");
    }
    assert!(!kinds.contains_key("task.failed") && !kinds.contains_key("remedy.applied"), "{kinds:?}");
    let task = world.told("first", "task.succeeded");
    let run_id = format!("dagwright__{}", request.as_str().expect("an id"));
    assert_eq!(task["data"]["dag_run_id"], run_id.as_str());
    assert_eq!((&task["data"]["map_index"], &task["data"]["try_number"]), (&json!(-1), &json!(1)));

    let runs = world.runs("copied");
    assert_eq!(runs.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), [run_id.as_str()]);
    assert_eq!(runs[0].state, RunState::Success);
    assert_eq!(runs[0].bundle_version.is_some(), major == 3);
    let explained = world.daemon().run(&world.workspace, &["explain", request.as_str().expect("an id")]);
    assert!(explained.expect(0).stdout.contains(&run_id), "{}", explained.stdout);
}

/// Doctor sees that Airflow is there and reads what is deployed.
pub(crate) fn doctor_finds_nothing_wrong(world: &World) {
    let mut command = world.workspace.dagwright();
    command.arg("doctor").envs(world.variables());
    let found = dagwright_tests::Ended::from(command.output().expect("dagwright starts"));
    for fine in ["✓ airflow: ", "and Airflow reads what is there"] {
        assert!(found.stdout.contains(fine), "{}{}", found.stdout, found.stderr);
    }
}

/// The same request is one, and the same plan is deployed once however often it runs.
pub(crate) fn the_same_again_changes_nothing(world: &mut World, major: u32) {
    let file = world.workspace.path("in.csv");
    let spec = world.spec("copied", &file);
    world.request("first", &json!({ "spec": spec }));
    for again in ["second", "third"] {
        world.request(again, &json!({ "spec": spec }));
        world.told(again, "run.succeeded");
    }
    assert_eq!(world.runs("copied").len(), 3, "one for each request");
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.copied"), "3000|3");
    if major == 3 {
        // The first plan made the table, the second appends to it; from then on nothing changes.
        assert!(world.versions("copied").len() <= 2, "{:?}", world.versions("copied"));
    }
}

/// Somebody triggers the DAG in Airflow: that run is followed like any other.
pub(crate) fn a_run_that_somebody_starts_is_followed(world: &mut World) {
    let trigger = Trigger {
        dag_id: "copied".into(),
        run_id: "by-hand".into(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        note: None,
    };
    world.call(world.client.trigger(&trigger));
    let of_run = |event: &Value| event["data"]["dag_run_id"] == "by-hand" && event["type"] == type_of("task.succeeded");
    let task = world.event("the task of a run by hand", of_run);
    let request = task["data"]["request_id"].clone();
    let is_end = |event: &Value| event["data"]["request_id"] == request && event["type"] == type_of("run.succeeded");
    let ended = world.event("the end of a run by hand", is_end);
    assert_eq!(ended["data"]["rows"]["loaded"], 1000);
    assert_eq!(world.kinds(&request).get("request.accepted"), Some(&1));
    assert_eq!(world.query("select count(*) from public.copied"), "4000");
}

/// Somebody clears a run that had ended: it runs again, replaces what it wrote, and is followed as another request.
pub(crate) fn a_cleared_run_is_followed_anew(world: &mut World) {
    let clear =
        Clear { dag_id: "copied".into(), run_id: "by-hand".into(), tasks: None, only_failed: false, downstream: false };
    assert!(!world.call(world.client.clear(&clear)).is_empty());
    let second = |event: &Value| {
        event["data"]["dag_run_id"] == "by-hand"
            && event["data"]["try_number"] == 2
            && event["type"] == type_of("task.succeeded")
    };
    let task = world.event("the second try of a run by hand", second);
    let request = task["data"]["request_id"].clone();
    let is_end = |event: &Value| event["data"]["request_id"] == request && event["type"] == type_of("run.succeeded");
    world.event("the end of a cleared run", is_end);
    assert_eq!(world.query("select count(*) from public.copied"), "4000", "its rows were replaced");
}

/// A daemon is killed while its run is under way, and the next one sees it to its end: one run, no row twice.
pub(crate) fn a_daemon_that_was_killed_goes_on(world: &mut World) {
    let file = world.rows("more.csv", 0, 500);
    let spec = world.spec("killed", &file);
    for (id, until) in [("at-sealed", "plan.sealed"), ("at-started", "run.started"), ("at-task", "task.started")] {
        world.request(id, &json!({ "spec": spec }));
        world.told(id, until);
        world.kill_daemon();
        world.start_daemon();
        let ended = world.told(id, "run.succeeded");
        assert_eq!(world.kinds(&ended["data"]["request_id"]).get("run.succeeded"), Some(&1));
        assert_eq!(ended["data"]["rows"]["loaded"], 500);
    }
    assert_eq!(world.runs("killed").len(), 3);
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.killed"), "1500|3");
}

/// All DAGs go to one loader, where they are the same DAGs; a change of one is none of the others, and a plan that cannot be
/// read harms no other.
pub(crate) fn all_dags_go_to_one_loader(world: &mut World, major: u32) {
    // 2.11 has no versions.
    let versions = |world: &World| if major == 3 { world.versions("killed") } else { Vec::new() };
    let (before, versions_before) = (world.dag("killed"), versions(world).len());
    world.lay_out("loader");
    let is_loaded = async |world: &World, dag_id: &str| {
        let dag = world.client.dag(dag_id).await?;
        let is_loaded = dag.fileloc.as_deref().is_some_and(|file| file.ends_with("/dagwright_loader.py"));
        Ok(Some(dag).filter(|dag| is_loaded && dag.is_active))
    };
    for dag_id in ["copied", "killed"] {
        let moved = world.until("a DAG of the loader", async || is_loaded(world, dag_id).await);
        assert!(moved.dag_id != "killed" || moved.tags == before.tags, "it has another plan: {moved:?}");
    }
    // Of another file, a DAG is one version more.
    let moved = world.until("a version of the loader's file", async || {
        if major == 2 {
            return Ok(Some(Vec::new()));
        }
        let versions = world.client.dag_versions("killed", Span::first()).await?.items;
        Ok(Some(versions).filter(|versions| versions.len() > versions_before))
    });
    assert!(moved.len() <= versions_before + 1, "{moved:?}");

    // A new pipeline, a changed one, and the same again.
    let file = world.rows("loaded.csv", 0, 300);
    for (id, pipeline) in [("loaded", "loaded"), ("loaded anew", "loaded"), ("killed in the loader", "killed")] {
        let file = if pipeline == "killed" { world.workspace.path("more.csv") } else { file.clone() };
        let mut spec = world.spec(pipeline, &file);
        if id == "loaded anew" {
            spec["description"] = json!("It changed.");
        }
        world.request(id, &json!({ "spec": spec }));
        world.told(id, "run.succeeded");
        let now = versions(world);
        assert_eq!(
            now.len(),
            moved.len(),
            "{id} is no change of another: {moved:?}, {now:?}, {:?}",
            world.dag("killed")
        );
    }
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.loaded"), "600|2");

    if major == 2 {
        // A plan file is torn where Airflow reads it, which a folder lets happen.
        let plan_file = world.plan_file("loaded");
        std::fs::write(&plan_file, "{").expect("written");
        let mut spec = world.spec("copied", &world.workspace.path("in.csv"));
        spec["description"] = json!("It changed too.");
        world.request("beside a torn plan", &json!({ "spec": spec }));
        world.told("beside a torn plan", "run.succeeded");
        let stands_in = world.dag("loaded");
        assert!(stands_in.is_active && stands_in.tags.contains(&"dagwright-unreadable".to_owned()), "{stands_in:?}");
        assert!(stands_in.description.as_deref().is_some_and(|text| text.starts_with("DW0120: ")), "{stands_in:?}");
        // The next request for it writes it anew.
        world.request("mended", &json!({ "spec": world.spec("loaded", &file) }));
        world.told("mended", "run.succeeded");
        assert!(!world.dag("loaded").tags.contains(&"dagwright-unreadable".to_owned()));
    }
}

/// All DAGs go back to files of their own.
pub(crate) fn all_dags_go_back_to_files(world: &mut World) {
    world.lay_out("file");
    let file = world.workspace.path("loaded.csv");
    // Airflow's version is known from the first deployment on, by which their files can be compiled.
    let mut spec = world.spec("loaded", &file);
    spec["description"] = json!("It goes back.");
    world.request("back", &json!({ "spec": spec }));
    world.told("back", "run.succeeded");
    for dag_id in ["copied", "killed", "loaded"] {
        let file = format!("/{dag_id}.py");
        world.until("a DAG of its own file", async || {
            let dag = world.client.dag(dag_id).await?;
            let is_own = dag.fileloc.as_deref().is_some_and(|path| path.ends_with(&file));
            Ok(Some(()).filter(|()| is_own && dag.is_active))
        });
    }
}

/// Airflow is taken away before a plan is deployed; what was asked for is done when it is back.
pub(crate) fn an_airflow_that_is_away_is_waited_for(world: &mut World) {
    world.airflow.stop();
    let file = world.rows("patient.csv", 0, 100);
    let spec = world.spec("patient", &file);
    world.request("patient", &json!({ "spec": spec }));
    world.told("patient", "plan.sealed");
    world.kill_daemon();
    world.start_daemon();
    world.airflow.start_again();
    world.told("patient", "run.succeeded");
    assert_eq!(world.runs("patient").len(), 1);
    assert_eq!(world.query("select count(*) from public.patient"), "100");
}

/// Airflow's database is reset while a run is under way: the request has its run again, and no row twice.
pub(crate) fn an_airflow_that_forgot_everything_is_told_again(world: &mut World) {
    let file = world.rows("forgotten.csv", 0, 200);
    let spec = world.spec("forgotten", &file);
    world.request("forgotten", &json!({ "spec": spec }));
    world.told("forgotten", "run.started");
    world.airflow.reset();
    world.airflow.start_again();
    world.told("forgotten", "run.succeeded");
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.forgotten"), "200|1");
}

/// Somebody deletes a DAG with its history, while its file is there: the next request brings it back.
pub(crate) fn a_dag_that_was_deleted_by_hand_comes_back(world: &mut World) {
    assert_eq!(world.call(world.client.delete_dag("killed")), Deleted::Now);
    let spec = world.spec("killed", &world.workspace.path("more.csv"));
    world.request("after the deletion", &json!({ "spec": spec }));
    world.told("after the deletion", "run.succeeded");
    assert_eq!(world.runs("killed").len(), 1);
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.killed"), "2500|5");
}

/// A source that went away fails the run; that is helped by clearing it later, until somebody wants no more of it.
/// Those whom its spec names are told of it meanwhile.
pub(crate) fn what_is_away_is_waited_for_until_somebody_cancels(world: &mut World) {
    let file = world.rows("away.csv", 0, 10);
    let mut spec = world.spec("away", &file);
    spec["alerts"] = json!({ "on_failure": ["ops", "nowhere"] });
    world.request("there", &json!({ "spec": spec }));
    world.told("there", "run.succeeded");
    // Nothing is negotiated anew where Airflow runs it by itself.
    std::fs::remove_file(&file).expect("removed");
    let trigger = Trigger {
        dag_id: "away".into(),
        run_id: "without-its-source".into(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        note: None,
    };
    world.call(world.client.trigger(&trigger));
    let failed = |event: &Value| event["data"]["pipeline"] == "away" && event["type"] == type_of("task.failed");
    let task = world.event("a task without its source", failed);
    assert_eq!(task["data"]["error"]["code"], "DW0301", "{task}");
    let request = task["data"]["request_id"].clone();
    let helped = |event: &Value| event["data"]["request_id"] == request && event["type"] == type_of("remedy.applied");
    let remedy = world.event("a remedy", helped);
    assert_eq!(remedy["data"]["error"]["code"], "DW0301", "{remedy}");
    let alert = world.alert("away");
    assert_eq!((&alert["kind"], &alert["dag_run_id"]), (&json!("run_failed"), &json!("without-its-source")));
    // In 3.0 callbacks are told of no code.
    let code = if world.version.starts_with("3.0.") { Value::Null } else { json!("DW0301") };
    assert_eq!(alert["failed_tasks"], json!([{ "task_id": "load_sink", "map_index": -1, "error": { "code": code } }]));
    let pipeline = format!("{}/api/v1/pipelines/away", world.daemon_url());
    assert_eq!(alert["explain_url"], pipeline.as_str(), "nobody requested it");
    let id = request.as_str().expect("an id");
    world.daemon().run(&world.workspace, &["cancel", id]).expect(0);
    let cancelled = |event: &Value| event["data"]["request_id"] == request && event["type"] == type_of("run.cancelled");
    world.event("the end of a cancelled run", cancelled);
    let explained = world.daemon().run(&world.workspace, &["explain", id]);
    assert!(explained.expect(0).stdout.contains("the tasks that failed were to run again"), "{}", explained.stdout);
}

/// A run that takes longer than its deadline is ended, and those who wait for it are told.
pub(crate) fn a_missed_deadline_is_told(world: &mut World, major: u32) {
    let file = world.rows("late.csv", 0, 10);
    let mut spec = world.spec("late", &file);
    // Its task waits for ever, as there is no such pool.
    spec["airflow"] = json!({ "pool": "nobody" });
    spec["goals"] = json!({ "deadline": "2s" });
    spec["alerts"] = json!({ "on_deadline": ["ops"] });
    world.request("late", &json!({ "spec": spec }));
    let alert = world.alert("late");
    let failed = world.told("late", "run.failed");
    let run_id = format!("dagwright__{}", failed["data"]["request_id"].as_str().expect("an id"));
    assert_eq!(alert["dag_run_id"], run_id.as_str());
    // 3.0 has no deadlines either.
    if major == 2 || world.version.starts_with("3.0.") {
        assert_eq!((&alert["kind"], &alert["reason"]), (&json!("run_failed"), &json!("timed_out")));
    } else {
        assert_eq!(alert["kind"], "deadline_missed");
        assert!(alert["deadline"].is_string(), "{alert}");
    }
}

/// A source changes between the plan and its run: the run fails over that, another plan is made, waits for a person who sees both
/// schemas, and runs as a run of its own.
pub(crate) fn what_drifted_is_planned_anew(world: &mut World) {
    let file = world.rows("drifted.csv", 0, 50);
    let mut spec = world.spec("drifted", &file);
    spec["policy"] = json!({ "schema_change": "additive", "approval": "always" });
    world.request("drifting", &json!({ "spec": spec }));
    let first = world.told("drifting", "approval.needed");
    assert_eq!(first["data"].get("drift"), None, "{first}");
    let rows: String = (0..60).map(|id| format!("{id},{}\n", id * 2)).collect();
    world.workspace.write("drifted.csv", format!("id,amount\n{rows}"));
    let approve = |world: &World, event: &Value| {
        let hash = event["data"]["plan_hash"].as_str().expect("a plan");
        world.daemon().run(&world.workspace, &["approve", hash]).expect(0);
    };
    approve(world, &first);

    let request = first["data"]["request_id"].clone();
    let of_request = |kind: &'static str| {
        let (request, name) = (request.clone(), type_of(kind));
        move |event: &Value| event["data"]["request_id"] == request && event["type"] == name
    };
    let is_remedy = of_request("remedy.applied");
    let remedy = world.event("another plan", |event| is_remedy(event) && event["data"]["replan"]["version"] == 2);
    assert_eq!(remedy["data"]["error"]["code"], "DW0305", "{remedy}");
    let needs_approval = of_request("approval.needed");
    let second = world.event("its approval", |event| {
        needs_approval(event) && event["data"]["plan_hash"] != first["data"]["plan_hash"]
    });
    assert_eq!(second["data"]["drift"][0]["change"], "breaking", "{second}");
    // Whoever is asked next goes on from there, too.
    world.kill_daemon();
    world.start_daemon();
    approve(world, &second);

    let ended = world.told("drifting", "run.succeeded");
    assert_eq!(ended["data"]["rows"]["loaded"], 60);
    let kinds = world.kinds(&request);
    assert_eq!((kinds.get("run.started"), kinds.get("run.failed")), (Some(&2), None), "{kinds:?}");
    let of_version = |version: &str| format!("dagwright__{}{version}", request.as_str().expect("an id"));
    let runs = world.runs("drifted");
    let state = |run_id: &str| runs.iter().find(|run| run.run_id == run_id).map(|run| run.state.clone());
    assert_eq!(runs.len(), 2, "one for each version of the plan");
    assert_eq!(state(&of_version("")), Some(RunState::Failed));
    assert_eq!(state(&of_version("__v2")), Some(RunState::Success));
    assert_eq!(
        world.query("select count(*), count(distinct _dagwright_run_id), sum(amount) from public.drifted"),
        "60|1|3540"
    );
    let explained = world.daemon().run(&world.workspace, &["explain", request.as_str().expect("an id")]);
    assert!(
        explained.expect(0).stdout.contains("The source source was: id int32, text string."),
        "{}",
        explained.stdout
    );
}

/// A pipeline that is paused rests in Airflow; one that is deleted is gone from where Airflow reads DAGs.
pub(crate) fn a_pipeline_rests_and_goes(world: &mut World) {
    let is_paused = async |world: &World| world.client.dag("copied").await.map(|dag| dag.is_paused);
    world.request("rest", &json!({ "action": "pause", "pipeline": "copied" }));
    world.told("rest", "dag.removed");
    assert!(world.call(is_paused(world)));
    let spec = world.spec("copied", &world.workspace.path("in.csv"));
    world.request("go on", &json!({ "action": "apply", "spec": spec }));
    world.told("go on", "dag.deployed");
    assert!(!world.call(is_paused(world)));
    world.request("go", &json!({ "action": "delete", "pipeline": "copied" }));
    world.told("go", "dag.removed");
    world
        .until("the DAG to be gone", async || Ok(Some(world.client.dag("copied").await?).filter(|dag| !dag.is_active)));
}
