//! Steps of the story in which calls, credentials and events are lost.

use std::path::Path;

use dagwright_airflow::{Airflow as _, RunState};
use dagwright_tests::line::Fault;
use serde_json::json;

use crate::world::World;

/// As many events as a spool holds.
const SPOOL_MAX: usize = 10_000;

/// A trigger that Airflow did not hear is heard the next time; one whose answer was lost finds the run that it started.
pub(crate) fn a_call_that_is_lost_is_made_again(world: &mut World) {
    let file = world.rows("lost.csv", 0, 50);
    let spec = world.spec("lost", &file);
    for (id, fault) in [
        ("unheard", Fault::Unheard),
        ("unanswered", Fault::Unanswered),
        ("busy", Fault::Status(503)),
        ("both", Fault::Unanswered),
    ] {
        world.line.strike(fault, |call| call.is("POST", "/dagRuns"));
        if id == "both" {
            world.line.strike(Fault::Unheard, |call| call.is("GET", "/dagRuns/dagwright__"));
        }
        world.request(id, &json!({ "spec": spec }));
        world.told(id, "run.succeeded");
        world.line.until_struck();
    }
    assert_eq!(world.runs("lost").len(), 4, "one for each request");
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.lost"), "200|4");
}

/// Airflow takes the credentials no longer, wherever the daemon is; it gets others, or waits until they are taken again.
pub(crate) fn credentials_that_are_no_longer_taken_are_renewed(world: &mut World, major: u32) {
    let spec = world.spec("lost", &world.workspace.path("lost.csv"));
    let _ = world.line.calls();
    for (id, method, part) in [
        ("expired at the trigger", "POST", "/dagRuns"),
        ("expired at a look", "GET", "/dagRuns/dagwright__"),
        ("expired at the tasks", "GET", "/taskInstances"),
    ] {
        world.line.strike(Fault::Status(401), move |call| call.is(method, part));
        world.request(id, &json!({ "spec": spec }));
        world.told(id, "run.succeeded");
        world.line.until_struck();
    }
    let renewed = world.line.calls().iter().filter(|call| call.is("POST", "/auth/token")).count();
    assert_eq!(renewed, if major == 3 { 3 } else { 0 }, "Airflow 2 has no tokens");
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.lost"), "350|7");
}

/// No event comes out of Airflow: what became of its runs is seen all the same.
pub(crate) fn a_run_that_nobody_tells_of_is_found(world: &mut World) {
    let spool = world.workspace.path("spool");
    empty(&spool);
    // Nothing can be put where there is no folder.
    std::fs::write(&spool, "").expect("a file");
    let spec = world.spec("lost", &world.workspace.path("lost.csv"));
    world.request("untold", &json!({ "spec": spec }));
    let ended = world.told("untold", "run.succeeded");
    assert_eq!(ended["data"]["rows"]["loaded"], 50);
    assert_eq!(world.kinds(&ended["data"]["request_id"]).get("task.succeeded"), Some(&1));
    std::fs::remove_file(&spool).expect("removed");
}

/// While the daemon is away the spool overflows, and what was to be told of a run is dropped.
pub(crate) fn a_spool_that_is_full_loses_no_run(world: &mut World) {
    let spec = world.spec("lost", &world.workspace.path("lost.csv"));
    world.request("overflown", &json!({ "spec": spec }));
    world.told("overflown", "run.started");
    let runs = async |world: &World| {
        let filter = dagwright_airflow::RunFilter { dag_id: Some("lost".into()), ..Default::default() };
        world.client.runs(&filter, dagwright_airflow::Span::first()).await.map(|page| page.items)
    };
    // That it started is told before Airflow is asked for it.
    let has_all = async |world: &World| Ok((runs(world).await?.len() == 9).then_some(()));
    world.until("the run to be triggered", || has_all(world));
    world.kill_daemon();
    fill(&world.workspace.path("spool"));
    let all_ended = async |world: &World| {
        let runs = runs(world).await?;
        Ok((runs.len() == 9 && runs.iter().all(|run| run.state == RunState::Success)).then_some(()))
    };
    world.until("the run to end while no daemon is there", || all_ended(world));
    world.start_daemon();
    let ended = world.told("overflown", "run.succeeded");
    assert_eq!(ended["data"]["rows"]["loaded"], 50);
    assert_eq!(world.query("select count(*), count(distinct _dagwright_run_id) from public.lost"), "450|9");
    empty(&world.workspace.path("spool"));
}

/// Fills a spool with events that are younger than any, so that those which come are the ones that go.
fn fill(spool: &Path) {
    std::fs::create_dir_all(spool).expect("a folder");
    let event = json!({ "id": format!("{:032x}", 1), "type": "of a later version" }).to_string();
    for index in 0..=SPOOL_MAX {
        let name = format!("{:020}-1-{index}-{}.json", u64::MAX - 1, event.len());
        std::fs::write(spool.join(name), &event).expect("a file");
    }
}

/// Removes a spool, while others may put something into it.
fn empty(spool: &Path) {
    while spool.exists() {
        // Something was put meanwhile.
        let _ = std::fs::remove_dir_all(spool);
    }
}
