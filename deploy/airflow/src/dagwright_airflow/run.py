"""The run a task belongs to, as `dagwright-task` is told it."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dagwright_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagwright_airflow.plan import Plan

# Set by who triggers a run for a request: the request's effects are then its own, whatever DAG run carries them.
REQUEST_ID_KEY = "dagwright_request_id"

# The request's data interval, `{"start": …, "end": …}`: Airflow 3 ties a run's own interval to its logical date, of
# which a DAG has one run only, while many requests may be about one interval.
INTERVAL_KEY = "dagwright_interval"

# True where committed cursors neither bound the reading nor move, as in a backfill of Airflow's own.
BACKFILL_KEY = "dagwright_backfill"

# True where staged relations outlive a run that fails over a schema: another plan of the request may go on from them.
KEEP_STAGED_KEY = "dagwright_keep_staged"

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
# As 2.11 and 3.x call it.
_STARTED_BY_ASSETS = ("dataset_triggered", "asset_triggered")

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class RunError(Exception):
    """A DAG run that cannot be carried out as it was triggered."""


def run_context(
    context: Mapping[str, Any], plan: Plan, retries: int, partition: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the run context of the task instance that Airflow's `context` describes."""
    dag_run, task_instance = context["dag_run"], context["ti"]
    params = context["params"]
    run_type = getattr(dag_run.run_type, "value", dag_run.run_type)
    return {
        "effect": _effect(dag_run),
        "generation": generation(task_instance.max_tries, retries),
        "plan_hash": plan.hash,
        "attempt": task_instance.try_number,
        "base": settings.base(),
        "staging": settings.staging(),
        "quarantine": settings.quarantine(),
        "interval": _interval(context, run_type),
        # A run's conf may bring further ones, which the plan knows nothing of.
        "params": {name: params[name] for name in plan.body["params"] if name in params},
        "partition": partition,
        "backfill": _is_backfill(dag_run, run_type),
        "keep_staged": _flag(dag_run, KEEP_STAGED_KEY) is True,
    }


def generation(max_tries: int, retries: int) -> int:
    """Return 0, or a number that grows whenever the task instance is cleared.

    Airflow lets an instance have `retries` tries beyond its first, and on clearing it as many beyond those it had:
    `max_tries` then becomes the tries so far plus `retries`, in 2.11 and 3.x alike. Plain retries leave it alone.
    """
    return max(0, max_tries - retries)


def request_id(dag_run: Any) -> str | None:
    """Return the request that a DAG run was triggered for, or None where there is none.

    Raises:
        RunError: what stands in its place is not a request id.

    """
    found = (dag_run.conf or {}).get(REQUEST_ID_KEY)
    if found is None:
        return None
    if not isinstance(found, str) or not _REQUEST_ID.fullmatch(found):
        raise RunError(f"{REQUEST_ID_KEY} in the run's conf is not a request id")
    return found


def rfc3339(instant: datetime) -> str:
    """Return an instant in UTC, to the microsecond."""
    utc = datetime.fromtimestamp(instant.timestamp(), timezone.utc)
    return utc.isoformat().replace("+00:00", "Z")


def _effect(dag_run: Any) -> str:
    return request_id(dag_run) or f"{dag_run.dag_id}/{dag_run.run_id}"


def _is_backfill(dag_run: Any, run_type: object) -> bool:
    return _flag(dag_run, BACKFILL_KEY) is True or run_type == "backfill"


def _flag(dag_run: Any, key: str) -> bool | None:
    found = (dag_run.conf or {}).get(key)
    if found is not None and not isinstance(found, bool):
        raise RunError(f"{key} in the run's conf is neither true nor false")
    return found


def _interval(context: Mapping[str, Any], run_type: object) -> dict[str, str] | None:
    asked = (context["dag_run"].conf or {}).get(INTERVAL_KEY)
    if asked is not None:
        return _interval_of_request(asked)
    # 2.11 gives a run that assets started the intervals of the runs that updated them, 3.x none: none in both.
    if run_type in _STARTED_BY_ASSETS:
        return None
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    # A run of a DAG without schedule has an empty interval in 2.11, or none in 3.x: no interval in both.
    if start is None or end is None or start == end:
        return None
    return {"start": rfc3339(start), "end": rfc3339(end)}


def _interval_of_request(asked: object) -> dict[str, str]:
    ends = [asked.get("start"), asked.get("end")] if isinstance(asked, dict) and len(asked) == 2 else []
    start, end = ends or (None, None)
    if not (isinstance(start, str) and isinstance(end, str) and _INSTANT.fullmatch(start) and _INSTANT.fullmatch(end)):
        raise RunError(f"{INTERVAL_KEY} in the run's conf is not an interval with a start and an end")
    return {"start": start, "end": end}
