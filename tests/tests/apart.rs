//! Agents in processes of their own, over a real Kafka: they say and agree on what those of one process do, whoever is
//! killed; and an agent of somebody else's takes part.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use dagwright_tests::{Ended, Workspace, daemon::Daemon, duckdb, http, kafka::Kafka, repository, tools};
use serde_json::Value;

/// What the request is called in every prefix, so that it is the same one.
const ID: &str = "copied-1";

/// Starts a process with some of the roles; `prefix` names the topics.
fn start(kafka: &Kafka, workspace: &Workspace, prefix: &str, roles: &str, more: &[(&str, &str)]) -> Daemon {
    let instance = format!("{prefix}-{}", roles.replace(',', "-"));
    let store = workspace.path(&format!("store-{instance}"));
    let mut variables = vec![
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PARTITIONS", "2"),
        ("DAGWRIGHT__KAFKA__PREFIX", prefix),
        ("DAGWRIGHT__KAFKA__GROUP", prefix),
        ("DAGWRIGHT__KAFKA__INSTANCE", &instance),
        // Whoever is to come does, however busy the machine is.
        ("DAGWRIGHT__AGENTS__PATIENCE", "2m"),
        ("DAGWRIGHT__STORE__PATH", store.to_str().expect("text")),
    ];
    variables.extend(more);
    Daemon::with(workspace, &variables, &["--roles", roles])
}

const ALL: &str = "orchestrator,extraction,transformation,loading";
const AGENTS: &str = "extraction,transformation,loading";

/// A workspace with a spec that copies a file.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    let path = |name: &str| workspace.path(name).display().to_string();
    let spec = format!(
        "version: 1\npipeline: copied\nsource: {{ uri: {} }}\nsink: {{ uri: {}, mode: replace }}\n",
        path("in.csv"),
        path("out.parquet"),
    );
    workspace.write("copied.yaml", spec);
    workspace
}

/// Panics unless a request ended with this exit code over a problem with this code.
#[track_caller]
fn expect_problem((ended, told): &(Ended, Value), exit: i32, code: &str) {
    ended.expect(exit);
    assert_eq!(told["request"]["problems"][0]["code"], code, "{told}");
}

fn submit(daemon: &Daemon, workspace: &Workspace, id: &str) -> (Ended, Value) {
    let mut command = daemon.client(workspace);
    let ended: Ended =
        command.args(["submit", "copied.yaml", "--wait", "--json", "--id", id]).output().expect("it starts").into();
    let told = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {ended:?}"));
    (ended, told)
}

/// Submits the request, and returns its transcript and its plan without what time alone changes; takes away what it loaded.
#[track_caller]
fn agreed(daemon: &Daemon, workspace: &Workspace) -> (Value, Value) {
    let (ended, told) = submit(daemon, workspace, ID);
    ended.expect(0);
    let loaded = format!("select count(*), sum(id) from '{}'", workspace.path("out.parquet").display());
    assert_eq!(duckdb(&loaded), ["3", "6"]);
    std::fs::remove_file(workspace.path("out.parquet")).expect("what was loaded");
    let request = told["request"]["request_id"].as_str().unwrap_or_else(|| panic!("no id: {told}"));
    let shown = daemon.get(&format!("/requests/{request}"));
    let mut transcript = daemon.get(&format!("/requests/{request}/transcript"));
    timeless(&mut transcript);
    (transcript, shown["plan_hash"].clone())
}

/// Takes out when things happened, and how much of the disk others leave.
fn timeless(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !["at", "bytes_free"].contains(&name.as_str()));
            members.values_mut().for_each(timeless);
        }
        Value::Array(values) => values.iter_mut().for_each(timeless),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[track_caller]
fn same(found: &(Value, Value), wanted: &(Value, Value)) {
    assert!(found.1.is_string(), "a plan: {found:?}");
    assert_eq!(found.1, wanted.1, "the plan");
    let (found, wanted) = (found.0.as_array().expect("messages"), wanted.0.as_array().expect("messages"));
    assert!(found.len() > 10, "{found:?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
}

/// What a single process comes to.
fn alone(kafka: &Kafka, workspace: &Workspace, prefix: &str) -> (Value, Value) {
    agreed(&start(kafka, workspace, prefix, ALL, &[]), workspace)
}

#[test]
fn agents_in_other_processes_say_and_agree_on_the_same() {
    let kafka = Kafka::shared();
    let workspace = workspace();
    let wanted = alone(kafka, &workspace, "one");
    for (prefix, splits) in [
        ("two", &["orchestrator", AGENTS][..]),
        ("four", &["orchestrator", "extraction", "transformation", "loading"]),
        ("three", &["orchestrator,loading", "extraction,transformation", AGENTS]),
    ] {
        let processes: Vec<_> = splits.iter().map(|roles| start(kafka, &workspace, prefix, roles, &[])).collect();
        same(&agreed(&processes[0], &workspace), &wanted);
    }
}

#[test]
fn a_process_with_agents_alone_answers_for_itself_and_owns_nothing() {
    let kafka = Kafka::shared();
    let workspace = workspace();
    let mut agents = start(kafka, &workspace, "watched", AGENTS, &[]);
    let get = |path: &str| http::call(agents.address, "GET", path, &[], b"");
    assert_eq!(get("/livez").status, 200);
    let ready = get("/readyz").expect(200).json();
    assert_eq!((&ready["ready"], &ready["checked"]), (&true.into(), &serde_json::json!(["agents"])));
    assert!(get("/metrics").expect(200).body.contains("dagwright_agent_records_refused_total"));
    assert_eq!(get("/api/v1/requests").status, 404);
    assert!(!workspace.path(&format!("store-watched-{}", AGENTS.replace(',', "-"))).exists(), "it keeps nothing");
    // Nobody takes the request, and whoever comes with the right role does.
    let leader = start(kafka, &workspace, "watched", "orchestrator", &[]);
    let (ended, _) = submit(&leader, &workspace, "taken");
    ended.expect(0);
    agents.signal("TERM");
    assert_eq!(agents.ended(), Some(0));
    // It said that it goes: nobody is there any longer.
    let impatient = [("DAGWRIGHT__AGENTS__PATIENCE", "0s")];
    drop(leader);
    let leader = start(kafka, &workspace, "watched", "orchestrator", &impatient);
    let ready = http::call(leader.address, "GET", "/readyz", &[], b"");
    assert!(ready.status == 503 && ready.body.contains("extraction@main"), "{ready:?}");
    expect_problem(&submit(&leader, &workspace, "lonely"), 3, "DW0204");
}

#[test]
fn a_process_that_could_not_do_its_part_is_refused_at_start() {
    let workspace = workspace();
    for arguments in [&["serve", "--roles", "loading"][..], &["serve", "--roles", "loading,cook"]] {
        workspace.run(arguments).expect_problem(2, "DW0701");
    }
}

#[test]
fn agents_look_only_at_what_their_own_process_opens() {
    let kafka = Kafka::shared();
    let workspace = workspace();
    let leader = start(kafka, &workspace, "fenced", "orchestrator", &[]);
    let _agents = start(kafka, &workspace, "fenced", AGENTS, &[("DAGWRIGHT__URIS__ALLOW", "/nowhere/**")]);
    expect_problem(&submit(&leader, &workspace, "peek"), 1, "DW0806");
}

/// Makes a worker that says at `listener` that it was started, and then waits for as long as that is open.
fn stalling(workspace: &Workspace, listener: &TcpListener) -> String {
    let port = listener.local_addr().expect("an address").port();
    let script = format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\ncat <&3 >/dev/null\nexit 1\n");
    let path = workspace.write("stall.sh", script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may run");
    path.display().to_string()
}

#[test]
fn agents_that_are_killed_midway_and_started_again_go_on() {
    let kafka = Kafka::shared();
    let workspace = workspace();
    let wanted = alone(kafka, &workspace, "undisturbed");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stall = stalling(&workspace, &listener);
    let leader = start(kafka, &workspace, "killed", "orchestrator", &[]);
    let first = start(kafka, &workspace, "killed", AGENTS, &[("DAGWRIGHT__TASK__COMMAND", &stall)]);
    let found = std::thread::scope(|scope| {
        let found = scope.spawn(|| agreed(&leader, &workspace));
        // It is asked, and looks.
        let looking = listener.accept().expect("a worker");
        first.signal("KILL");
        let _second = start(kafka, &workspace, "killed", AGENTS, &[]);
        let found = found.join().expect("an end");
        drop(looking);
        found
    });
    same(&found, &wanted);
}

/// The agent of `examples/agent.py`, which ends with the test.
struct Guard(Child);

impl Guard {
    fn start(kafka: &Kafka, workspace: &Workspace, prefix: &str) -> Self {
        // Topics are named by the daemons' prefix; the example has the default.
        let source = std::fs::read_to_string(repository().join("examples/agent.py")).expect("the example");
        let source = source.replace("\"dagwright.agents.v1\"", &format!("\"{prefix}.agents.v1\""));
        let path = workspace.write("agent.py", source);
        let mut command = Command::new(tools().join("tools/bin/python"));
        command.arg(path).arg(kafka.bootstrap()).arg(workspace.path("frozen.txt")).stdin(Stdio::null());
        Self(command.spawn().expect("run `make tools` first"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_in_another_language_takes_part_and_can_veto() {
    let kafka = Kafka::shared();
    let workspace = workspace();
    workspace.write("frozen.txt", "public.flights\n");
    let parties = "extraction@main,transformation@main,loading@main,loading@freeze";
    let daemon = start(kafka, &workspace, "guarded", ALL, &[("DAGWRIGHT__AGENTS__PARTIES", parties)]);
    let _guard = Guard::start(kafka, &workspace, "guarded");

    let (ended, told) = submit(&daemon, &workspace, "open");
    ended.expect(0);
    assert_eq!(duckdb(&format!("select count(*) from '{}'", workspace.path("out.parquet").display())), ["3"]);
    let request = told["request"]["request_id"].as_str().expect("an id").to_owned();
    let transcript = daemon.get(&format!("/requests/{request}/transcript"));
    let said = transcript.as_array().expect("messages").iter().filter(|said| said["from"]["instance"] == "freeze");
    let kinds: Vec<_> = said.map(|said| said["message"]["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["refuse", "refuse", "committed"]);
    let story = daemon.run(&workspace, &["explain", &request]);
    assert!(story.stdout.contains("loading@freeze") && story.stdout.contains("frozen"), "{story:?}");

    let sink = workspace.path("out.parquet").display().to_string();
    std::fs::remove_file(&sink).expect("what was loaded");
    workspace.write("frozen.txt", format!("public.flights\n{sink}\n"));
    let frozen = submit(&daemon, &workspace, "frozen");
    expect_problem(&frozen, 4, "DW0205");
    let told = frozen.1;
    assert!(!workspace.path("out.parquet").exists(), "nothing is loaded");
    let request = told["request"]["request_id"].as_str().expect("an id").to_owned();
    let story = daemon.run(&workspace, &["explain", &request]);
    assert!(story.stdout.contains("loading@freeze") && story.stdout.contains("is frozen"), "{story:?}");
}
