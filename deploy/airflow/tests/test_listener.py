"""The listener in real DAG runs, and with whatever else Airflow, or somebody, may hand to it."""

import json
import logging
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import jsonschema
import pytest
from airflows import dag_bag, serialization
from conftest import AIRFLOW_MAJOR, DAGS, HERE

from dagwright_airflow import DagwrightLoad, events, feedback, listener, plan
from dagwright_airflow.compat import AirflowException, AirflowFailException

SAMPLES = HERE.parents[2] / "crates/engine/src/airflow/told/samples"
SCHEMA = json.loads((HERE.parents[2] / "docs/feedback.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
VALIDATOR.check_schema(SCHEMA)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def golden(dag_id):
    (path,) = DAGS.glob(f"{dag_id}.*.plan.json")
    return plan.read(path)


def dag_of(dag_id, *, retries=0):
    bag = dag_bag(DAGS / f"{dag_id}.py")
    assert not bag.import_errors
    for task in bag.dags[dag_id].tasks:
        if hasattr(task, "partial_kwargs"):
            task.partial_kwargs["retries"] = retries
        else:
            task.retries = retries
    return bag.dags[dag_id]


def told(daemon, count):
    """Return so many events, each of which the schema allows."""
    found = daemon.wait_taken(count)
    for event in found:
        VALIDATOR.validate(event)
    assert len({event["id"] for event in found}) == len(found)
    return found


# === real runs ===


@pytest.mark.usefixtures("database")
def test_a_run_is_told_from_start_to_end(daemon, fake):
    run = dag_of("parts").test(run_conf={"dagwright_request_id": "0198-abc"})
    # Two for each of six task instances, and the run's.
    found = told(daemon, 13)
    tasks = [event for event in found if event["kind"] == "task_instance"]
    assert sorted((event["task_id"], event["map_index"], event["state"]) for event in tasks) == sorted(
        (task, index, state)
        for task, index in [
            ("split_source", -1),
            ("load_sink", 0),
            ("load_sink", 1),
            ("load_sink", 2),
            ("publish_sink", -1),
            ("cleanup", -1),
        ]
        for state in ("running", "success")
    )
    for event in found:
        assert (event["dag_id"], event["dag_run_id"]) == ("parts", run.run_id)
        assert event["request_id"] == "0198-abc"
        assert event["plan_hash"] == golden("parts").hash
        assert event["run_type"] == "manual"
        assert event["data_interval"] is None
        assert (event["ended_at"] is None) == (event["state"] == "running")
    for event in tasks:
        assert event["try_number"] == 1
        assert (event["counts"] is None) == (event["state"] == "running")
        assert event["error"] is None
    (of_run,) = [event for event in found if event["kind"] == "dag_run" and event["state"] != "running"]
    assert of_run["state"] == "success"
    assert of_run is found[-1]
    # What the daemon's tests read was posted by this package: it must still look like that.
    (recorded,) = SAMPLES.glob(f"posted-{AIRFLOW_MAJOR}.*.jsonl")
    samples = map(json.loads, recorded.read_text().splitlines())
    fields = {sample["kind"]: sample.keys() for sample in samples}
    assert all(event.keys() == fields[event["kind"]] for event in found)


@pytest.mark.usefixtures("database")
def test_a_failure_is_told_with_its_code(daemon, fake):
    problem = {"code": "DW0501", "subject": "has_carrier", "message": "too many", "hint": "look"}
    failed = {"event": "outcome", "status": "failed", "counts": {}, "problem": problem}
    fake.plays(by_task=True, load_sink={"events": [failed], "exit": 14})
    dag_of("carriers", retries=3).test()
    found = told(daemon, 3)
    (event,) = [event for event in found if event["kind"] == "task_instance" and event["state"] != "running"]
    assert event["state"] == "failed", "for good, whatever tries are left"
    assert event["error"] == {
        "code": "DW0501",
        "type": "AirflowFailException",
        "message": "DW0501: too many (has_carrier). look",
    }
    assert event["counts"] is None
    assert found[-1]["kind"] == "dag_run"
    assert found[-1]["state"] == "failed"


@pytest.mark.usefixtures("database")
def test_tasks_go_on_while_the_daemon_is_away(daemon, fake, monkeypatch):
    monkeypatch.setattr(feedback, "PAUSE_SECONDS_FIRST", 0.01)
    daemon.answers = [(503, {})] * 3
    run = dag_of("carriers").test()
    assert str(getattr(run.state, "value", run.state)) == "success"
    assert [event["state"] for event in told(daemon, 3)] == ["running", "success", "success"]


@pytest.mark.usefixtures("database")
def test_a_spool_that_cannot_be_written_fails_nothing(daemon, fake, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SPOOL", str(tmp_path / "file" / "spool"))
    run = dag_of("carriers").test()
    assert str(getattr(run.state, "value", run.state)) == "success"
    assert "could not tell Dagwright" in caplog.text
    assert daemon.posts == []


OTHER = """
from datetime import datetime
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
from dagwright_airflow.compat import BaseOperator

class DagwrightLoad(BaseOperator):
    def execute(self, context):
        return 1

with DAG("other", start_date=datetime(2025, 1, 1), schedule=None, tags=["dagwright"]):
    DagwrightLoad(task_id="t")
"""


@pytest.mark.usefixtures("database")
def test_other_dags_are_nobodys_business(daemon, fake):
    (DAGS / "other.py").write_text(OTHER)
    try:
        run = dag_of("other").test()
    finally:
        (DAGS / "other.py").unlink()
    assert str(getattr(run.state, "value", run.state)) == "success"
    dag_of("carriers").test()
    assert {event["dag_id"] for event in told(daemon, 3)} == {"carriers"}


@pytest.mark.usefixtures("database")
def test_the_link_is_in_xcom_and_counts_of_a_split_too(fake, monkeypatch):
    from airflow.utils.session import create_session

    monkeypatch.setenv("DAGWRIGHT_URL", "http://127.0.0.1:8642")
    run = dag_of("parts").test(run_conf={"dagwright_request_id": "0198-abc"})
    if AIRFLOW_MAJOR == 2:
        from airflow.models.xcom import XCom as Model
    else:
        from airflow.models.xcom import XComModel as Model
    with create_session() as session:
        rows = session.query(Model).filter(Model.run_id == run.run_id).all()
        found = {(row.task_id, row.map_index, row.key): row.value for row in rows}
    linked = {key[:2] for key in found if key[2] == "dagwright_explain"}
    assert len(linked) == 6
    assert all("0198-abc/explain" in str(found[(*key, "dagwright_explain")]) for key in linked)
    assert "loaded" in str(found["split_source", -1, "counts"])
    assert "loaded" in str(found["load_sink", 0, "return_value"])
    if AIRFLOW_MAJOR == 2:
        serialized = web_server_operator("parts", "split_source")
        instance = next(ti for ti in run.get_task_instances() if ti.task_id == "split_source")
        link = serialized.get_extra_links(instance, "Dagwright")
        assert link == "http://127.0.0.1:8642/api/v1/requests/0198-abc/explain"


def web_server_operator(dag_id, task_id):
    """Return an operator as 2.11's web server has it."""
    return serialization().from_dict(serialization().to_dict(dag_of(dag_id))).get_task(task_id)


@pytest.mark.usefixtures("database")
def test_the_scheduler_knows_serialized_dags(daemon):
    """In the scheduler a run has the DAG as Airflow serialized it."""
    serialized = serialization().from_dict(serialization().to_dict(dag_of("parts")))
    listener.on_dag_run_running(dag_run(dag=serialized))
    (event,) = told(daemon, 1)
    assert event["plan_hash"] == golden("parts").hash


# === other things ===


def dag_run(**more):
    fields = {
        "dag_id": "parts",
        "run_id": "scheduled__1",
        "run_type": SimpleNamespace(value="scheduled"),
        "logical_date": NOW,
        "data_interval_start": NOW,
        "data_interval_end": NOW + timedelta(days=1),
        "start_date": NOW,
        "end_date": None,
        "conf": {},
        "clear_number": 0,
        "bundle_version": "ab" * 32,
        "dag": None,
    }
    return SimpleNamespace(**{**fields, **more})


def task_instance(**more):
    fields = {
        "dag_id": "parts",
        "run_id": "scheduled__1",
        "task_id": "load_sink",
        "map_index": 2,
        "try_number": 1,
        "max_tries": 3,
        "start_date": NOW,
        "end_date": NOW,
        "state": SimpleNamespace(value="success"),
        "task": DagwrightLoad(task_id="load_sink", plan="x"),
    }
    return SimpleNamespace(**{**fields, **more})


def test_the_fields_of_a_run():
    event = events.dag_run(dag_run(conf={"dagwright_request_id": "r1"}), "running")
    VALIDATOR.validate(event)
    assert {key: event[key] for key in ("logical_date", "data_interval", "request_id", "bundle_version", "state")} == {
        "logical_date": "2026-01-02T03:04:05.678901Z",
        "data_interval": {"start": "2026-01-02T03:04:05.678901Z", "end": "2026-01-03T03:04:05.678901Z"},
        "request_id": "r1",
        "bundle_version": "ab" * 32,
        "state": "running",
    }


def test_ids_tell_changes_apart_and_know_a_repeat():
    def run_id(state="running", **more):
        return events.dag_run(dag_run(conf={"dagwright_request_id": "r1"}, **more), state)["id"]

    def task_id(state="success", error=None, **more):
        return events.task_instance(task_instance(**more), state, error)["id"]

    assert run_id() == run_id()
    changed = [run_id(), run_id("success"), run_id(clear_number=1), run_id(start_date=NOW + timedelta(1))]
    changed += [run_id(dag_id="x"), run_id(run_id="x")]
    changed += [task_id(), task_id("running"), task_id(map_index=1), task_id(try_number=2), task_id(task_id="x")]
    changed += [task_id("failed"), task_id(end_date=NOW + timedelta(1))]
    assert len(set(changed)) == len(changed)
    assert task_id() == task_id()
    # What does not change what happened does not change its id.
    assert task_id(max_tries=9) == task_id()


@pytest.mark.parametrize(
    ("state", "tries", "error", "told_state"),
    [
        ("up_for_retry", 1, AirflowException("x"), "up_for_retry"),
        ("failed", 4, AirflowException("x"), "failed"),
        # Where Airflow has not yet said so itself.
        ("running", 1, AirflowException("x"), "up_for_retry"),
        ("running", 4, AirflowException("x"), "failed"),
        ("running", 1, AirflowFailException("x"), "failed"),
    ],
)
def test_a_try_that_failed_is_told_from_a_task_that_failed(state, tries, error, told_state):
    event = events.task_instance(task_instance(state=state, try_number=tries), "failed", error)
    VALIDATOR.validate(event)
    assert event["state"] == told_state


def test_texts_of_others_exceptions_are_not_told():
    def error(found):
        return events.task_instance(task_instance(state="failed"), "failed", found)["error"]

    assert error(ValueError("row 7: jane@example.org")) == {"code": None, "type": "ValueError", "message": None}
    assert error("marked by hand") == {"code": None, "type": None, "message": "marked by hand"}
    assert error(None) is None
    assert error(AirflowException("DW0401: away"))["code"] == "DW0401"


def test_secrets_are_masked():
    from dagwright_airflow.compat import mask_secret

    mask_secret("correct horse battery")
    error = AirflowException("DW0401: no route for correct horse battery")
    event = events.task_instance(task_instance(state="failed"), "failed", error)
    assert event["error"]["message"] == "DW0401: no route for ***"


HOSTILE = [
    "\x00\x1b[2J\r\nx: y",
    "\ud800",
    "x" * 100_000,
    "{{ ds }}",
    "🛫\u2028",
    "'; DROP TABLE x; --",
    7,
    1.5,
    [],
    {},
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_make_valid_events(value, daemon):
    own = DagwrightLoad(task_id="load_sink", plan="x")
    own.plan, own.counts = value, {"sinks": value} if value != HOSTILE[1] else {value: float("nan")}
    dag = SimpleNamespace(tasks=[own], doc_md=value)
    hostile = dag_run(
        **dict.fromkeys(("dag_id", "run_id", "run_type", "logical_date", "bundle_version", "clear_number"), value),
        **dict.fromkeys(("data_interval_start", "data_interval_end", "start_date", "end_date", "run_after"), value),
        conf={"dagwright_request_id": value},
        dag=dag,
    )
    listener.on_dag_run_failed(hostile)
    instance = task_instance(
        **dict.fromkeys(("dag_id", "run_id", "task_id", "map_index", "try_number", "max_tries", "id", "state"), value),
        start_date=value,
        task=own,
        dag_run=hostile,
    )
    listener.on_task_instance_success(instance)
    listener.on_task_instance_failed(instance, AirflowException(f"DW0401: {value}"))
    found = told(daemon, 3)
    assert all(len(json.dumps(event)) < 40_000 for event in found)


@pytest.mark.parametrize("thing", [None, object(), 7, "x", SimpleNamespace(task=None), SimpleNamespace(dag=7, conf=7)])
def test_whatever_else_it_is_given_it_raises_nothing(thing, daemon, caplog):
    caplog.set_level(logging.ERROR)
    for hook in (listener.on_dag_run_running, listener.on_dag_run_success, listener.on_dag_run_failed):
        hook(thing)
    for hook in (listener.on_task_instance_running, listener.on_task_instance_success):
        hook(thing)
    listener.on_task_instance_failed(thing, thing)
    listener.on_task_instance_skipped(thing)
    listener.on_starting(thing)
    listener.before_stopping(thing)
    assert daemon.posts == []


class Detached:
    """What a database's row does when its session is gone."""

    dag_id = "parts"
    conf = {"dagwright_request_id": "r1"}  # noqa: RUF012

    def __getattr__(self, name):
        raise RuntimeError("detached")


def test_what_cannot_be_told_is_logged(daemon, caplog):
    listener.on_dag_run_running(Detached())
    assert "detached" in caplog.text
    assert "could not tell Dagwright" in caplog.text


def test_what_can_be_told_is_told(daemon):
    subject = Detached()
    subject.run_id = "scheduled__1"
    listener.on_dag_run_running(subject)
    (event,) = told(daemon, 1)
    assert (event["dag_run_id"], event["request_id"], event["run_type"]) == ("scheduled__1", "r1", None)


def test_a_plan_hash_is_told_only_where_all_agree():
    document = f"Plan `{'a' * 64}`, sealed for spec `{'b' * 64}`."
    own = DagwrightLoad(task_id="load_sink", plan="x")

    def plan_hash(doc, path="x"):
        own.plan = path
        own_dag = SimpleNamespace(tasks=[own], doc_md=doc)
        subject = SimpleNamespace(**{**vars(dag_run()), "dag": own_dag})
        of_run = events.dag_run(subject, "running")["plan_hash"]
        return of_run, events._plan_hash(own_dag, path)

    assert plan_hash(document, f"/x/y.{'a' * 12}.plan.json") == ("a" * 64, "a" * 64)
    assert plan_hash(document, f"/x/y.{'c' * 12}.plan.json") == ("a" * 64, None)
    assert plan_hash(f"{document}\nPlan `{'c' * 64}`, sealed for spec `{'b' * 64}`.") == (None, None)
    assert plan_hash(f"x {document}") == (None, None)
    assert plan_hash(None) == (None, None)


def test_no_daemon_no_events(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SPOOL", str(tmp_path / "spool"))
    listener.on_task_instance_success(task_instance())
    listener.on_starting(None)
    listener.before_stopping(None)
    assert not (tmp_path / "spool").exists()
