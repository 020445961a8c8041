//! Daemons are killed in the middle of calls of Airflow: at each step between a sealed plan and the end of its run.
//!
//! `make test` does it a few times, `make chaos` often: `DAGWRIGHT_CHAOS_KILLS` says how often, and `DAGWRIGHT_CHAOS_SEED`
//! repeats the choices of an earlier run. Nothing is asserted about time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dagwright_tests::line::Fault;
use fastrand::Rng;
use serde_json::json;

use crate::world::World;

/// How many kills there are unless the environment says otherwise.
const KILLS: usize = 6;

/// How many pipelines are asked for; the requests of one wait for each other.
const PIPELINES: usize = 4;

/// What a daemon asks Airflow between a sealed plan and the end of its run.
const CALLS: [(&str, &str); 6] = [
    ("GET", "/dags/chaos_"),
    ("PUT", "/parseDagFile/"),
    ("POST", "/dagRuns"),
    ("GET", "/dagRuns/dagwright__"),
    ("GET", "/taskInstances"),
    ("GET", "/dags/~/dagRuns"),
];

/// How long a call is waited for: some are made only where something changed.
const CALL_WAIT: Duration = Duration::from_secs(60);

/// However often daemons are killed, each request has one run, which ends well, and no row twice.
pub(crate) fn daemons_are_killed_in_the_middle_of_calls(world: &mut World) {
    let seed = number("DAGWRIGHT_CHAOS_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
    });
    eprintln!("DAGWRIGHT_CHAOS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let kills = number("DAGWRIGHT_CHAOS_KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("a count"));
    let mut requests = [0; PIPELINES];
    for kill in 0..kills {
        let (method, part) = CALLS[(kill + rng.usize(0..CALLS.len())) % CALLS.len()];
        let fault = if rng.bool() { Fault::Unheard } else { Fault::Unanswered };
        world.line.strike(fault, move |call| call.is(method, part));
        let pipeline = rng.usize(0..PIPELINES);
        // Other rows now and then: the same pipeline, another file, another plan.
        let file = world.rows(&format!("chaos_{}.csv", kill % 3), 0, 20);
        let spec = world.spec(&format!("chaos_{pipeline}"), &file);
        world.request(&format!("chaos-{pipeline}-{}", requests[pipeline]), &json!({ "spec": spec }));
        requests[pipeline] += 1;
        let struck = world.line.is_struck_within(CALL_WAIT);
        eprintln!("kill {kill}: {fault:?} {method} {part}{}", if struck { "" } else { ", which did not come" });
        world.kill_daemon();
        world.start_daemon();
    }
    for (pipeline, count) in requests.into_iter().enumerate() {
        for index in 0..count {
            let ended = world.told(&format!("chaos-{pipeline}-{index}"), "run.succeeded");
            assert_eq!(ended["data"]["rows"]["loaded"], 20, "{ended}");
            assert_eq!(world.kinds(&ended["data"]["request_id"]).get("run.succeeded"), Some(&1));
        }
        let name = format!("chaos_{pipeline}");
        if count > 0 {
            assert_eq!(world.runs(&name).len(), count, "one for each request of {name}");
            let sql = format!("select count(*), count(distinct _dagwright_run_id) from public.{name}");
            assert_eq!(world.query(&sql), format!("{}|{count}", 20 * count), "{name}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}
