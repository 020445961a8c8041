//! Compiled DAGs in real Airflows: 2.11.2 and 3.3.2, and by `make compat` the versions between them, each with its own home,
//! SQLite, and no examples.
//!
//! Both import every golden of the compiler, and run two of them on real data with the real `dagwright-task`. The
//! operators' own tests, which need an Airflow but no Dagwright, run here too.

mod real_data;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use dagwright_tests::{airflow, repository};
use serde_json::{Value, json};

/// An Airflow that the tests run against.
struct Airflow {
    version: String,
    /// The compiler's target for it, and the folder of its goldens.
    target: &'static str,
}

impl Airflow {
    fn of_2() -> Self {
        Self { version: airflow::version_2(), target: "airflow2" }
    }

    fn of_3() -> Self {
        Self { version: airflow::version_3(), target: "airflow3" }
    }

    /// Returns a Python command in this Airflow, installing it first where it is missing.
    fn python(&self, home: &Path) -> Command {
        let script = repository().join("tests/scripts/tools.sh");
        let installed = Command::new(&script).args(["airflow", &self.version]).output().expect("bash is installed");
        expect_success(&format!("{} airflow {}", script.display(), self.version), &installed);
        let mut command = Command::new(tools().join(format!("airflow-{}/bin/python", self.version)));
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("AIRFLOW") || name.starts_with("DAGWRIGHT") {
                command.env_remove(&variable);
            }
        }
        command
            .current_dir(home)
            .env("AIRFLOW_HOME", home)
            .env("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
            .env("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", repository().join("deploy/airflow/src"));
        command
    }

    fn goldens(&self) -> PathBuf {
        repository().join("crates/compiler/tests/golden").join(self.target)
    }

    /// Imports every golden and returns what Airflow made of them.
    fn describe(&self) -> Value {
        let home = tempfile::tempdir().expect("a temporary folder");
        let output = self
            .python(home.path())
            .env("AIRFLOW__CORE__DAGS_FOLDER", self.goldens())
            .arg(repository().join("tests/tests/airflow/describe.py"))
            .arg(self.goldens())
            .output()
            .expect("Python starts");
        expect_success(&format!("describe.py in Airflow {}", self.version), &output);
        last_line(&output)
    }
}

fn tools() -> PathBuf {
    let cache = || Some(PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("dagwright"));
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/dagwright"));
    let own = std::env::var_os("DAGWRIGHT_TOOLS").map(PathBuf::from);
    own.or_else(cache).or_else(home).expect("DAGWRIGHT_TOOLS, XDG_CACHE_HOME or HOME is set")
}

#[track_caller]
fn expect_success(what: &str, output: &Output) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{error}", output.status);
}

/// Returns the JSON on the last line of standard output; Airflow writes what it likes above it.
#[track_caller]
fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.trim_end().lines().next_back().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

/// Returns what an Airflow must make of a target's plan files: tasks, edges, timetable, by DAG id.
fn expected(airflow: &Airflow) -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(airflow.goldens()).expect("goldens").map(|entry| entry.expect("a file").path());
    let plans = files.filter(|path| path.to_string_lossy().ends_with(".plan.json"));
    plans
        .map(|path| {
            let document: Value = serde_json::from_slice(&std::fs::read(path).expect("a plan file")).expect("JSON");
            let plan = &document["plan"];
            (plan["dag_id"].as_str().expect("an id").to_owned(), expected_dag(plan))
        })
        .collect()
}

fn expected_dag(plan: &Value) -> Value {
    let tasks = plan["tasks"].as_array().expect("tasks");
    let operator = |task: &Value| match (task["spec"]["work"]["kind"].as_str(), task["role"].as_str()) {
        (Some("split"), _) => "DagwrightSplit",
        (Some("publish"), _) => "DagwrightPublish",
        (Some("cleanup"), _) => "DagwrightCleanup",
        (_, Some("extraction")) => "DagwrightExtract",
        (_, Some("transformation")) => "DagwrightTransform",
        _ => "DagwrightLoad",
    };
    let described = |task: &Value| {
        let mut after: Vec<_> = task["after"].as_array().expect("after").iter().map(Value::as_str).collect();
        after.sort_unstable();
        let facts = json!({
            "operator": operator(task),
            "upstream": after,
            "mapped": !task["mapped_over"].is_null(),
            "teardown": task["teardown"],
            "retries": plan["retries"]["max"],
            "pool": plan["airflow"]["pool"],
            "priority_weight": plan["airflow"]["priority_weight"],
            "timeout_seconds": 3600,
            "template_fields": [],
        });
        (task["spec"]["id"].as_str().expect("an id").to_owned(), facts)
    };
    json!({
        "tasks": tasks.iter().map(described).collect::<BTreeMap<_, _>>(),
        "cron": plan["schedule"]["cron"],
        "timezone": plan["schedule"]["timezone"],
        "catchup": plan["schedule"]["catchup"].as_bool().unwrap_or(false),
        "max_active_runs": plan["airflow"]["max_active_runs"],
        "params": plan["params"].as_object().expect("params").keys().collect::<Vec<_>>(),
    })
}

fn check_import(airflow: &Airflow) {
    let found = airflow.describe();
    assert_eq!(found["import_errors"], json!({}), "Airflow {}", airflow.version);
    let wanted = expected(airflow);
    assert_eq!(found["dags"].as_object().expect("DAGs").len(), wanted.len());
    for (dag_id, wanted) in wanted {
        for (fact, value) in wanted.as_object().expect("facts") {
            assert_eq!(found["dags"][&dag_id][fact], *value, "Airflow {}, {dag_id}, {fact}", airflow.version);
        }
    }
    // Both must mean the same instants: around the night when Berlin's clocks go forward at 02:00.
    assert_eq!(
        found["dags"]["aviation.flights_daily"]["intervals"],
        json!([
            ["2025-03-28T02:00:00+00:00", "2025-03-29T02:00:00+00:00"],
            ["2025-03-29T02:00:00+00:00", "2025-03-30T01:00:00+00:00"],
            ["2025-03-30T01:00:00+00:00", "2025-03-31T01:00:00+00:00"],
        ]),
        "Airflow {}",
        airflow.version
    );
    assert_eq!(found["dags"]["aviation.flights_daily"]["start_date"], "2024-12-31T23:00:00+00:00");
    // Who clears a task that reads what others staged clears those too.
    assert_eq!(
        found["dags"]["late_departures"]["cleared_with"]["load_sink"],
        json!(["cleanup", "extract_airlines", "extract_flights", "load_sink", "transform"])
    );
    assert_eq!(found["dags"]["parts"]["cleared_with"]["publish_sink"], json!(["cleanup", "load_sink", "publish_sink"]));
}

#[test]
fn goldens_import_into_airflow_2() {
    check_import(&Airflow::of_2());
}

#[test]
fn goldens_import_into_airflow_3() {
    check_import(&Airflow::of_3());
}

fn check_package(airflow: &Airflow) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let package = repository().join("deploy/airflow");
    let mut command = airflow.python(home.path());
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(&package).current_dir(&package);
    expect_success(&format!("pytest in Airflow {}", airflow.version), &command.output().expect("Python starts"));
}

#[test]
fn operators_pass_their_tests_in_airflow_2() {
    check_package(&Airflow::of_2());
}

#[test]
fn operators_pass_their_tests_in_airflow_3() {
    check_package(&Airflow::of_3());
}
