from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pendulum
import pytest

from dagwright_airflow import midnight, run
from dagwright_airflow.plan import Plan

PLAN = Plan(hash="ab" * 32, body={"params": {"region": {}, "unset": {}}})


def context(conf=None, start=None, end=None, run_type="scheduled"):
    return {
        "dag_run": SimpleNamespace(dag_id="a.b", run_id="scheduled__1", conf=conf, run_type=run_type),
        "ti": SimpleNamespace(max_tries=3, try_number=2),
        "params": {"region": "eu", "surprise": 1},
        "data_interval_start": start,
        "data_interval_end": end,
    }


def test_a_scheduled_run():
    berlin = pendulum.datetime(2025, 1, 2, 3, tz="Europe/Berlin")
    found = run.run_context(context(start=berlin - timedelta(days=1), end=berlin), PLAN, 3, None)
    assert found["effect"] == "a.b/scheduled__1"
    assert (found["generation"], found["attempt"], found["backfill"]) == (0, 2, False)
    assert found["interval"] == {"start": "2025-01-01T02:00:00Z", "end": "2025-01-02T02:00:00Z"}
    assert found["params"] == {"region": "eu"}
    assert found["plan_hash"] == PLAN.hash
    assert found["partition"] is None
    assert found["base"] is None
    assert found["staging"].endswith("/dagwright/staging")
    assert found["quarantine"].endswith("/dagwright/quarantine")


@pytest.mark.parametrize("run_type", ["dataset_triggered", "asset_triggered", SimpleNamespace(value="asset_triggered")])
def test_a_run_that_assets_started_has_no_interval(run_type):
    # As 2.11 gives it that of the run which updated the asset.
    start = pendulum.datetime(2025, 1, 1)
    found = run.run_context(context(start=start, end=start.add(days=1), run_type=run_type), PLAN, 3, None)
    assert found["interval"] is None


def test_settings_come_from_environment_then_variables(monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_DAGWRIGHT_BASE", "/variable")
    monkeypatch.setenv("AIRFLOW_VAR_DAGWRIGHT_STAGING", "/variable")
    monkeypatch.setenv("AIRFLOW__DAGWRIGHT__QUARANTINE", "s3://bucket/quarantine")
    monkeypatch.setenv("DAGWRIGHT_STAGING", "/environment")
    found = run.run_context(context(), PLAN, 3, None)
    assert (found["base"], found["staging"], found["quarantine"]) == (
        "/variable",
        "/environment",
        "s3://bucket/quarantine",
    )


def test_a_run_for_a_request_has_the_requests_effects():
    assert run.run_context(context({"dagwright_request_id": "0198-abc"}), PLAN, 3, None)["effect"] == "0198-abc"
    for bad in ["", "a/b", "../x", 7, "a\n", "x" * 201]:
        with pytest.raises(run.RunError):
            run.run_context(context({"dagwright_request_id": bad}), PLAN, 3, None)


def test_no_interval_is_none():
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    assert run.run_context(context(start=now, end=now), PLAN, 3, None)["interval"] is None
    assert run.run_context(context(), PLAN, 3, None)["interval"] is None


def test_a_backfill_is_marked():
    backfill = SimpleNamespace(value="backfill")
    assert run.run_context(context(run_type=backfill), PLAN, 3, None)["backfill"] is True


def test_a_request_may_bring_its_interval():
    asked = {"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00+01:00"}
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    found = run.run_context(context({"dagwright_interval": asked}, now, now + timedelta(days=1)), PLAN, 3, None)
    assert found["interval"] == asked
    for bad in [{}, [], "x", {"start": "now", "end": "then"}, {**asked, "more": 1}, {"start": 1, "end": 2}]:
        with pytest.raises(run.RunError):
            run.run_context(context({"dagwright_interval": bad}), PLAN, 3, None)


def test_a_request_may_be_a_backfill():
    assert run.run_context(context({"dagwright_backfill": True}), PLAN, 3, None)["backfill"] is True
    assert run.run_context(context({"dagwright_backfill": False}), PLAN, 3, None)["backfill"] is False
    with pytest.raises(run.RunError):
        run.run_context(context({"dagwright_backfill": "yes"}), PLAN, 3, None)


def test_a_request_may_go_on_from_what_its_run_staged():
    assert run.run_context(context(), PLAN, 3, None)["keep_staged"] is False
    assert run.run_context(context({"dagwright_keep_staged": True}), PLAN, 3, None)["keep_staged"] is True
    with pytest.raises(run.RunError):
        run.run_context(context({"dagwright_keep_staged": 1}), PLAN, 3, None)


def test_generations_count_clears_alone():
    assert run.generation(max_tries=3, retries=3) == 0
    assert run.generation(max_tries=4, retries=3) == 1
    # Retries were raised since the run started: nothing was cleared.
    assert run.generation(max_tries=3, retries=5) == 0


def test_midnight_is_local():
    start = midnight("2025-07-01", "Europe/Berlin")
    assert start.astimezone(timezone.utc) == datetime(2025, 6, 30, 22, tzinfo=timezone.utc)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        midnight("__import__('os')", "UTC")
