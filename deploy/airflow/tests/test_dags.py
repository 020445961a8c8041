"""Whole DAG runs of the compiler's goldens, with the fake in place of `dagwright-task`."""

import pytest
from airflows import dag_bag, without_deadline
from conftest import AIRFLOW_MAJOR, DAGS

from dagwright_airflow.run import generation

# As in the goldens.
RETRIES = 3

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def dags():
    bag = dag_bag(DAGS)
    assert not bag.import_errors
    for dag in bag.dags.values():
        without_deadline(dag)
        for task in dag.tasks:
            # A task that fails against expectation must not keep `dag.test()` waiting for its next try.
            if hasattr(task, "partial_kwargs"):
                task.partial_kwargs["retries"] = 0
            else:
                task.retries = 0
    return bag.dags


def states(dag_run):
    return sorted((ti.task_id, str(getattr(ti.state, "value", ti.state))) for ti in dag_run.get_task_instances())


def test_partitions_are_mapped(dags, fake):
    run = dags["parts"].test()
    assert states(run) == [
        ("cleanup", "success"),
        *[("load_sink", "success")] * 3,
        ("publish_sink", "success"),
        ("split_source", "success"),
    ]
    given = fake.given()
    assert [task["task"]["id"] for task in given] == ["split_source", *["load_sink"] * 3, "publish_sink", "cleanup"]
    partitions = [task["run"]["partition"] and task["run"]["partition"]["index"] for task in given]
    assert (partitions[0], sorted(partitions[1:4])) == (None, [0, 1, 2])
    # The publish is told how many there must be.
    assert given[4]["run"]["partition"]["count"] == 3
    assert given[5]["run"]["partition"] is None
    assert {task["run"]["effect"] for task in given} == {f"parts/{run.run_id}"}
    assert {(task["run"]["generation"], task["run"]["attempt"]) for task in given} == {(0, 1)}
    assert {task["run"]["interval"] is None for task in given} == {True}


def test_a_failure_cleans_up_and_fails_the_run(dags, fake):
    fake.plays(by_task=True, publish_sink={"events": [], "exit": 14})
    run = dags["parts"].test(run_conf={"dagwright_request_id": "request-1"})
    assert str(getattr(run.state, "value", run.state)) == "failed"
    assert ("cleanup", "success") in states(run)
    assert ("publish_sink", "failed") in states(run)
    assert fake.given()[-1]["task"]["id"] == "cleanup"
    assert {task["run"]["effect"] for task in fake.given()} == {"request-1"}


def test_params_reach_the_task(dags, fake):
    run = dags["late_departures"].test(run_conf={"batch": "b1", "late_after": 20, "region": "us"})
    assert {state for _, state in states(run)} == {"success"}
    assert fake.given()[0]["run"]["params"] == {
        "batch": "b1",
        "full": False,
        "late_after": 20,
        "limit": -1,
        "region": "us",
        "since": "2013-01-01",
        "until": "2013-02-01T00:00:00Z",
    }


def test_hostile_texts_arrive_unrendered(dags, fake):
    run = dags["hostile"].test()
    assert {state for _, state in states(run)} == {"success"}
    transform = fake.given()[2]
    assert "{{ ds }}" in transform["task"]["work"]["steps"][0]["sql"]
    assert "{{ ds }}" in transform["run"]["params"]["region"]


def test_airflow_counts_clears_as_generations(dags, fake):
    from airflow.models.taskinstance import clear_task_instances
    from airflow.utils.session import create_session

    dag = dags["carriers"]
    dag.get_task("load_sink").retries = RETRIES
    run = dag.test()
    found = []
    for _ in range(3):
        (instance,) = run.get_task_instances()
        found.append(generation(instance.max_tries, RETRIES))
        with create_session() as session:
            # 2.11 would look for the DAG in its database, where `dag.test()` puts none.
            clear_task_instances([session.merge(instance)], session, **({"dag": dag} if AIRFLOW_MAJOR == 2 else {}))
    assert found == [0, 1, 1], "the second clear came before another try: the same generation"


def test_what_makes_a_sink_visible_updates_its_asset(dags):
    updated = {
        f"{dag_id}.{task.task_id}": [outlet.uri for outlet in task.outlets]
        for dag_id, dag in dags.items()
        for task in dag.tasks
        if not hasattr(task, "partial_kwargs") and task.outlets
    }
    assert updated == {
        "aviation.chained.load": [
            "dagwright://aviation.chained/by_carrier",
            "dagwright://aviation.chained/copy",
        ],
        "aviation.flights_daily.load_sink": ["dagwright://aviation.flights_daily/sink"],
        "carriers.load_sink": ["dagwright://carriers/sink"],
        "hostile.load_sink": ["dagwright://hostile/sink"],
        "late_departures.load_sink": ["dagwright://late_departures/sink"],
        # Not what each partition stages.
        "parts.publish_sink": ["dagwright://parts/sink"],
    }


def test_a_pipeline_waits_for_assets_by_the_names_that_updates_have(dags):
    timetable = dags["aviation.chained"].timetable
    condition = timetable.dataset_condition if AIRFLOW_MAJOR == 2 else timetable.asset_condition
    waits = [asset.uri for asset in condition.objects]
    assert waits == ["dagwright://aviation.flights_daily/sink", "s3://bucket/carriers%20(new).csv"]
    (updated,) = dags["aviation.flights_daily"].get_task("load_sink").outlets
    assert updated.uri == waits[0]
