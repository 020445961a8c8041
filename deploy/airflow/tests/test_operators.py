from types import SimpleNamespace

import pytest
from conftest import AIRFLOW_MAJOR, DAGS

import dagwright_airflow
from dagwright_airflow import DagwrightCleanup, DagwrightLoad, DagwrightOperator, DagwrightSplit
from dagwright_airflow.compat import AirflowException, AirflowFailException

COUNTS = {"sources": {}, "steps": {}, "gates": {}, "sinks": {"sink": {"loaded": 1}}}
PROBLEM = {"code": "DW0401", "subject": "sink", "message": "no route", "hint": "check the host"}


def golden(dag_id):
    (path,) = DAGS.glob(f"{dag_id}.*.plan.json")
    return str(path)


def load(dag_id="carriers", task_id="load_sink", operator=DagwrightLoad, **more):
    return operator(task_id=task_id, plan=golden(dag_id), retries=3, **more)


def execute(operator, **more):
    run = SimpleNamespace(dag_id="carriers", run_id="manual__1", conf={}, run_type="manual")
    pushed = more.setdefault("pushed", {})

    def push(key, value):
        pushed[key] = value

    ti = SimpleNamespace(max_tries=3, try_number=1, xcom_push=push)
    context = {"dag_run": run, "ti": ti, "params": {}, **more}
    # Past Airflow's guard that only its own runner calls `execute`.
    return DagwrightOperator.execute.__wrapped__(operator, context)


def outcome(**more):
    return {"event": "outcome", "status": "succeeded", "repeated": False, "counts": COUNTS, "problem": None, **more}


def test_counts_are_returned(fake):
    assert execute(load()) == COUNTS
    (given,) = fake.given()
    assert given["task"]["id"] == "load_sink"
    assert given["run"]["effect"] == "carriers/manual__1"


def test_a_split_returns_its_partitions(fake):
    split, pushed = load("parts", "split_source", DagwrightSplit), {}
    assert [partition["index"] for partition in execute(split, pushed=pushed)] == [0, 1, 2]
    assert pushed == {"counts": COUNTS}
    fake.plays(events=[outcome(partitions=[])])
    with pytest.raises(AirflowFailException, match="no partition"):
        execute(load("parts", "split_source", DagwrightSplit))


def test_events_of_assets_hold_what_was_counted(fake):
    if AIRFLOW_MAJOR == 2:
        from airflow.datasets import Dataset as Asset
        from airflow.utils.context import OutletEventAccessors
    else:
        from airflow.sdk import Asset
        from airflow.sdk.execution_time.context import OutletEventAccessors
    counts = {
        **COUNTS,
        "gates": {"named": 2},
        "sinks": {"sink": {"loaded": 1, "quarantined": 2}, "other": {"loaded": 3}},
    }
    fake.plays(events=[outcome(counts=counts)])
    of_sink, of_all = Asset("dagwright://carriers/sink"), Asset("s3://bucket/elsewhere")
    told = OutletEventAccessors()
    execute(load(outlets=[of_sink, of_all]), outlet_events=told)
    assert told[of_sink].extra == {"dagwright_counts": {**counts, "sinks": {"sink": counts["sinks"]["sink"]}}}
    assert told[of_all].extra == {"dagwright_counts": counts}


def test_the_daemons_secret_reaches_no_task(fake, daemon):
    execute(load())
    (given,) = fake.given()
    assert not [key for key in given["env"] if "FEEDBACK" in key]


@pytest.mark.parametrize(
    ("exit_code", "problem", "retried", "message"),
    [
        (11, None, True, "source"),
        (12, PROBLEM, True, "DW0401: no route \\(sink\\). check the host"),
        (10, None, False, "not valid"),
        (13, None, False, "drifted"),
        (14, None, False, "quality gate"),
        (15, None, False, "memory"),
        (16, None, False, "permission"),
        (17, None, False, "cancelled"),
        (18, PROBLEM, False, "DW0401"),
        (19, None, False, "elsewhere"),
        (101, None, True, "DW0603.*exit code 101"),
        (-9, None, True, "DW0607.*killed"),
        (-11, None, True, "DW0603.*exit code -11"),
    ],
)
def test_exit_codes_retry_or_fail(fake, exit_code, problem, retried, message):
    fake.plays(events=[outcome(status="failed", problem=problem)], exit=exit_code)
    pushed = {}
    with pytest.raises(AirflowException, match=message) as raised:
        execute(load(), pushed=pushed)
    assert isinstance(raised.value, AirflowFailException) is not retried
    # Of its reason the code alone is left for who tells people.
    code = "DW0401" if problem else {101: "DW0603", -11: "DW0603", -9: "DW0607"}.get(exit_code)
    assert pushed == ({"dagwright_code": code} if code else {})


@pytest.mark.parametrize("events", [[], ["junk"], [outcome(status="failed")]])
def test_success_needs_an_outcome_that_says_so(fake, events):
    fake.plays(events=events)
    with pytest.raises(AirflowException, match="DW0603"):
        execute(load())


def test_a_missing_binary_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AirflowFailException, match=r"DW0705: dagwright-task was not found.*DAGWRIGHT_TASK_COMMAND"):
        execute(load())
    broken = tmp_path / "dagwright-task"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(AirflowFailException, match="DW0705"):
        execute(load())


def test_a_variable_cannot_choose_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_VAR_DAGWRIGHT_TASK_COMMAND", "/bin/true")
    with pytest.raises(AirflowFailException, match="DW0705"):
        execute(load())


def test_plans_and_tasks_must_fit(fake):
    for operator in [
        load(task_id="other"),
        load(operator=DagwrightCleanup),
        DagwrightLoad(task_id="load_sink", plan="/nowhere/x.000000000000.plan.json"),
    ]:
        with pytest.raises(AirflowFailException, match="DW0120"):
            execute(operator)
    assert not fake.record.exists()


def test_connections_reach_the_task_alone(fake, monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_CONN_OPS_DB", "postgresql://ops.example.org/flights")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://u:p@warehouse.example.org/flights")
    monkeypatch.setenv("DAGWRIGHT_CONN_OTHER", "postgresql://other/other")
    execute(load("aviation.flights_daily"))
    (given,) = fake.given()
    assert {key: value for key, value in given["env"].items() if "CONN" in key} == {
        "DAGWRIGHT_CONN_OPS_DB": "postgresql://ops.example.org/flights",
        "DAGWRIGHT_CONN_WAREHOUSE": "postgresql://u:p@warehouse.example.org/flights",
    }
    assert "u:p@" not in str({key: value for key, value in given.items() if key != "env"})


def test_no_field_is_a_template():
    for name in dagwright_airflow.__all__:
        if name.startswith("Dagwright"):
            operator = getattr(dagwright_airflow, name)
            assert tuple(operator.template_fields) == ()
            assert tuple(operator.template_ext) == ()
