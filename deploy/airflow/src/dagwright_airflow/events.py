"""What the listener tells the daemon: one JSON object for each change of state, described in docs/feedback.schema.json.

Built from whatever Airflow hands to its listeners: its models in the scheduler and API server, the run-time objects in
a task of 3.x. None of them is trusted to have a field, and no text is longer than its bound. Nothing here asks
Airflow's database or API for anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dagwright_airflow import run
from dagwright_airflow.compat import AirflowFailException, redact

VERSION = 1

# What Airflow's own columns hold at most, and room for a message.
TEXT_CHARS_MAX = 1000
MESSAGE_CHARS_MAX = 2000

# Counts grow with sources, steps, gates and sinks; XCom has them in any case.
COUNTS_BYTES_MAX = 32 * 1024

_MODULE = "dagwright_airflow.operators"
_OPERATORS = frozenset(
    {
        "DagwrightCleanup",
        "DagwrightExtract",
        "DagwrightLoad",
        "DagwrightOperator",
        "DagwrightPublish",
        "DagwrightSplit",
        "DagwrightTransform",
        "DagwrightUnreadable",
    }
)

# As the compiler writes it into the documentation of a DAG; it escapes backticks in texts of a spec.
_PLAN_IN_DOC = re.compile(r"^Plan `([0-9a-f]{64})`, sealed for spec `[0-9a-f]{64}`\.$", re.MULTILINE)
_PLAN_IN_NAME = re.compile(r"\.([0-9a-f]{12})\.plan\.json$")
_CODE = re.compile(r"(DW\d{4}): ")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

# States that an attempt may have failed into; anything else that Airflow shows then is from before.
_FAILED = frozenset({"failed", "up_for_retry"})

Event = dict[str, Any]


def dag_run(subject: Any, state: str) -> Event | None:
    """Return the event of a DAG run that came into a state, or None where its DAG is not Dagwright's."""
    dag = _get(subject, "dag")
    request = _request_id(subject)
    if not _is_own_dag(dag) and request is None:
        return None
    event = {
        "kind": "dag_run",
        **_of_run(subject),
        "request_id": request,
        "plan_hash": _plan_hash(dag),
        "bundle_version": _text(_get(subject, "bundle_version")),
        "state": state,
        "started_at": _instant(_get(subject, "start_date")),
        "ended_at": _instant(_get(subject, "end_date")),
    }
    # Clearing starts a run anew: its number, or in 2.11 its new start, tells the next `running` from the first.
    return _identified(event, "dag_run_id", "state", "clear_number", "started_at", "ended_at")


def task_instance(subject: Any, state: str, error: object = None) -> Event | None:
    """Return the event of a task instance that came into a state, or None where it is not Dagwright's.

    `state` is the hook's; an attempt that failed may be tried again, which the event then says.
    """
    task = _get(subject, "task")
    # Where somebody marks a task there may be nothing but the name of its operator.
    if not (_is_own_task(task) if task is not None else _is_name(_get(subject, "operator"))):
        return None
    of_run = _run_of(subject)
    if state == "failed":
        state = _failed_state(subject, error)
    event = {
        "kind": "task_instance",
        **(_of_run(of_run) if of_run is not None else _NO_RUN),
        "dag_id": _text(subject.dag_id),
        "dag_run_id": _text(subject.run_id),
        "request_id": _request_id(of_run),
        "plan_hash": _plan_hash(_get(task, "dag"), _get(task, "plan")),
        "bundle_version": _bundle_version(subject, of_run),
        "state": state,
        "started_at": _instant(_get(subject, "start_date")),
        # A task that is cleared keeps its old end until it ends again.
        "ended_at": None if state == "running" else _instant(_get(subject, "end_date")),
        "task_id": _text(subject.task_id),
        "map_index": _integer(_get(subject, "map_index"), -1),
        "try_number": _integer(_get(subject, "try_number"), 0),
        "max_tries": _integer(_get(subject, "max_tries"), 0),
        "task_instance_id": _uuid(_get(subject, "id")),
        "error": _error(error) if state in _FAILED else None,
        "counts": _counts(_get(task, "counts")) if state == "success" else None,
    }
    return _identified(event, "dag_run_id", "task_id", "map_index", "try_number", "state", "started_at", "ended_at")


def events_dropped(name: str, count: int) -> Event:
    """Return the event that tells of `count` events that the spool had no room for; `name` is its report's."""
    event = {"kind": "events_dropped", "host": _host(), "report": name, "dropped": count}
    return _identified(event, "host", "report")


def encode(event: Event) -> bytes:
    """Write an event as it is signed and sent."""
    return json.dumps(event, allow_nan=False, separators=(",", ":")).encode("ascii")


# === inside ===


def _get(subject: Any, name: str, otherwise: object = None) -> Any:
    """Return a field, or nothing where asking for it fails, as it does for a row whose session is gone."""
    try:
        return getattr(subject, name, otherwise)
    except Exception:
        return otherwise


_NO_RUN: Event = dict.fromkeys(("run_type", "logical_date", "data_interval", "run_after", "clear_number"))


def _identified(event: Event, *identity: str) -> Event:
    """Add what every event has; its id is derived, so that the same change has the same id whoever tells of it."""
    parts = [VERSION, event["kind"], event.get("dag_id"), *(event.get(key) for key in identity)]
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
    return {
        "version": VERSION,
        "id": digest[:32],
        "at": run.rfc3339(datetime.now(timezone.utc)),
        "host": _host(),
        "airflow_version": _airflow_version(),
        **event,
    }


def _of_run(subject: Any) -> Event:
    run_type = _get(subject, "run_type")
    start = _get(subject, "data_interval_start")
    end = _get(subject, "data_interval_end")
    interval = {"start": _instant(start), "end": _instant(end)}
    return {
        "dag_id": _text(subject.dag_id),
        "dag_run_id": _text(subject.run_id),
        "run_type": _text(_get(run_type, "value", run_type)),
        "logical_date": _instant(_get(subject, "logical_date")),
        # Without a schedule it is empty in 2.11, or none in 3.x: none in both.
        "data_interval": None if start == end or None in interval.values() else interval,
        "run_after": _instant(_get(subject, "run_after")),
        "clear_number": _integer(_get(subject, "clear_number"), None),
    }


def _run_of(subject: Any) -> Any | None:
    """Return the DAG run that a task instance already has at hand."""
    from_server = _get(subject, "_ti_context_from_server")
    found = _get(from_server, "dag_run")
    if found is None:
        # A relationship of 2.11's model: never loaded here, as the hook may have no session.
        found = (_get(subject, "__dict__") or {}).get("dag_run")
    return found if _get(found, "run_id") is not None else None


def _request_id(subject: Any) -> str | None:
    if subject is None:
        return None
    try:
        return run.request_id(subject)
    except Exception:
        # No request id, or nothing with a conf.
        return None


def _bundle_version(subject: Any, of_run: Any | None) -> str | None:
    of_bundle = _get(_get(subject, "bundle_instance"), "version")
    return _text(of_bundle or _get(of_run, "bundle_version"))


def _is_own_dag(dag: Any) -> bool:
    tasks = _get(dag, "tasks")
    return isinstance(tasks, list | tuple) and any(_is_own_task(task) for task in tasks)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name in _OPERATORS


def _is_own_task(task: object) -> bool:
    """Tell whether a task is one of Dagwright's, as written in a DAG file or as Airflow serialized it."""
    return any(kind.__module__ == _MODULE for kind in type(task).__mro__) or (
        _get(task, "_task_module") == _MODULE and _is_name(_get(task, "task_type"))
    )


def _plan_hash(dag: Any, path: object = None) -> str | None:
    """Return the hash of the plan that a DAG was compiled from, unless what it says is at odds with itself."""
    doc = _get(dag, "doc_md")
    found = set(_PLAN_IN_DOC.findall(doc)) if isinstance(doc, str) else set()
    if isinstance(path, str) and (named := _PLAN_IN_NAME.search(path)):
        found = {plan for plan in found if plan.startswith(named[1])}
    return found.pop() if len(found) == 1 else None


def _failed_state(subject: Any, error: object) -> str:
    state = _get(subject, "state")
    state = _get(state, "value", state)
    if isinstance(state, str) and state in _FAILED:
        return state
    tries, most = _integer(_get(subject, "try_number"), 0), _integer(_get(subject, "max_tries"), 0)
    again = not isinstance(error, AirflowFailException) and (tries or 0) <= (most or 0)
    return "up_for_retry" if again else "failed"


def _error(error: object) -> Event | None:
    """Return what failed.

    A message that starts with one of Dagwright's codes never holds values of data. Others may: only their type is told.
    """
    if error is None:
        return None
    kind = type(error).__name__ if isinstance(error, BaseException) else None
    message = _text(redact(str(error)), MESSAGE_CHARS_MAX)
    code = _CODE.match(message or "")
    return {
        "code": code[1] if code else None,
        "type": _text(kind),
        "message": message if code or kind is None else None,
    }


def _counts(counts: object) -> Event | None:
    if not isinstance(counts, dict):
        return None
    try:
        text = json.dumps(counts, allow_nan=False)
        read = json.loads(text) if len(text) <= COUNTS_BYTES_MAX else None
    except (ValueError, TypeError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _text(value: object, most: int = TEXT_CHARS_MAX) -> str | None:
    if value is None:
        return None
    # Lone surrogates are no Unicode, and no JSON parser need take them.
    text = _CONTROL.sub(" ", str(value)).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= most else text[:most]


def _integer(value: object, otherwise: int | None) -> int | None:
    in_range = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    return int(value) if isinstance(value, int) and in_range else otherwise


def _instant(value: object) -> str | None:
    try:
        return run.rfc3339(value) if isinstance(value, datetime) else None
    except (ValueError, OverflowError, OSError):
        return None


def _uuid(value: object) -> str | None:
    text = str(value)
    return text if re.fullmatch(r"[0-9a-f-]{36}", text) else None


@cache
def _host() -> str:
    return _text(socket.gethostname()) or "unknown"


@cache
def _airflow_version() -> str | None:
    # A worker of 3.x may have nothing but the last.
    for package in ("apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk"):
        with suppress(PackageNotFoundError):
            return version(package)
    return None
