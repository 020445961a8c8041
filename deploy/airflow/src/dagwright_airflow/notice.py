"""What people are told of a run that went wrong: names, codes and a link.

No text of an error, no parameter, and no value of data is part of it, as it leaves Airflow for wherever a connection
leads.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dagwright_airflow import alerts, links
from dagwright_airflow.run import RunError, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = 1

RUN_FAILED = "run_failed"
DEADLINE_MISSED = "deadline_missed"

# The key under which a task that failed leaves its code.
CODE_KEY = "dagwright_code"

# A mapped task may have thousands of instances.
TASKS_MAX = 20

_TEXT_CHARS_MAX = 250
_CODE = re.compile(r"DW\d{4}")
_CODE_FIRST = re.compile(r"(DW\d{4}): ")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedTask:
    """A task instance that failed."""

    task_id: str
    # -1 where it is not mapped.
    map_index: int = -1
    # Dagwright's error code, or None where it is not known, as for a task that was killed.
    code: str | None = None

    def __str__(self) -> str:
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.task_id}{index}{f' ({self.code})' if self.code else ''}"


@dataclass(frozen=True)
class Notice:
    """What is told."""

    kind: str
    dag_id: str
    run_id: str
    # Airflow's word for why a run failed, or None.
    reason: str | None = None
    # The state of a run that missed its deadline, or None.
    state: str | None = None
    # When it should have been done, or None.
    deadline: str | None = None
    # At most TASKS_MAX.
    failed: tuple[FailedTask, ...] = ()
    # How many more failed.
    failed_more: int = 0
    # Where Dagwright explains the run, or None.
    url: str | None = None

    @property
    def key(self) -> str:
        """What repeats of the same notice have in common."""
        return f"dagwright/{self.kind}/{self.dag_id}/{self.run_id}"

    @property
    def summary(self) -> str:
        """One line."""
        if self.kind == DEADLINE_MISSED:
            return f"{self.dag_id}: run {self.run_id} missed its deadline"
        return f"{self.dag_id}: run {self.run_id} failed"

    @property
    def text(self) -> str:
        """All of it, for people; plain text."""
        lines = [self.summary]
        if self.deadline:
            state = f"; it is {self.state}" if self.state else ""
            lines.append(f"It should have been done by {self.deadline}{state}.")
        if self.reason == alerts.REASON_TIMED_OUT:
            lines.append("It took longer than its deadline allows, and was ended.")
        if self.failed:
            more = f" and {self.failed_more} more" if self.failed_more else ""
            lines.append(f"Failed: {', '.join(str(task) for task in self.failed)}{more}.")
        if self.url:
            lines.append(self.url)
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """All of it, for machines; docs/airflow.md says what is what."""
        return {
            "version": VERSION,
            "kind": self.kind,
            "pipeline": self.dag_id,
            "dag_run_id": self.run_id,
            "reason": self.reason,
            "state": self.state,
            "deadline": self.deadline,
            "failed_tasks": [
                {"task_id": task.task_id, "map_index": task.map_index, "error": {"code": task.code}}
                for task in self.failed
            ],
            "failed_tasks_more": self.failed_more,
            "explain_url": self.url,
            "text": self.text,
        }


def of_failure(context: Mapping[str, Any]) -> Notice:
    """Return the notice of a run that failed, from the context that Airflow gives to callbacks of DAGs."""
    dag_run, dag = context.get("dag_run"), context.get("dag")
    dag_id = str(getattr(dag_run, "dag_id", None) or getattr(dag, "dag_id", ""))
    run_id = str(getattr(dag_run, "run_id", None) or context.get("run_id") or "")
    failed: list[FailedTask] = []
    try:
        failed = _failed(context, dag_id, run_id)
    except Exception as error:
        # What is known is told.
        _log.warning("could not find out which tasks of %s failed (%s)", run_id, type(error).__name__)
    reason = context.get("reason")
    return Notice(
        kind=RUN_FAILED,
        dag_id=_clean(dag_id),
        run_id=_clean(run_id),
        reason=_clean(reason) if isinstance(reason, str) else None,
        failed=tuple(failed[:TASKS_MAX]),
        failed_more=max(0, len(failed) - TASKS_MAX),
        url=_url(dag_id, getattr(dag_run, "conf", None)),
    )


def of_deadline(context: Mapping[str, Any]) -> Notice:
    """Return the notice of a missed deadline, from the context that Airflow gives to callbacks of deadlines."""
    dag_run, deadline = _map(context.get("dag_run")), _map(context.get("deadline"))
    dag_id, due, state = str(dag_run.get("dag_id") or ""), deadline.get("deadline_time"), dag_run.get("state")
    return Notice(
        kind=DEADLINE_MISSED,
        dag_id=_clean(dag_id),
        run_id=_clean(str(dag_run.get("dag_run_id") or "")),
        state=_clean(state) if isinstance(state, str) else None,
        deadline=rfc3339(due) if isinstance(due, datetime) else None,
        url=_url(dag_id, dag_run.get("conf")),
    )


def code_of(error: BaseException) -> str | None:
    """Return the code that an error's message begins with, or None."""
    found = _CODE_FIRST.match(str(error))
    return found[1] if found else None


# === which tasks failed ===


def _failed(context: Mapping[str, Any], dag_id: str, run_id: str) -> list[FailedTask]:
    """Return the instances that failed, with the codes of the first of them."""
    dag_run: Any = context.get("dag_run")
    if hasattr(dag_run, "get_task_instances"):
        found = _sorted((ti.task_id, ti.map_index) for ti in dag_run.get_task_instances() if _is_failed(ti.state))
    elif alerts.knows_deadlines():
        found = _sorted(_from_states(context.get("dag"), dag_id, run_id))
    else:
        # 3.0 lets no callback ask for more than what it is given.
        ti = context.get("ti")
        found = [(ti.task_id, _index(ti))] if ti is not None and _is_failed(getattr(ti, "state", None)) else []
        return [FailedTask(_clean(task_id), index) for task_id, index in found]
    return [
        FailedTask(_clean(task_id), index, _code(dag_id, run_id, task_id, index) if number < TASKS_MAX else None)
        for number, (task_id, index) in enumerate(found)
    ]


def _from_states(dag: Any, dag_id: str, run_id: str) -> Iterable[tuple[str, int]]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415 - since 3.1

    states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id])
    known = frozenset(getattr(dag, "task_ids", ()))
    for name, state in _map(states.get(run_id)).items():
        if not _is_failed(state):
            continue
        # A mapped instance is called `<task>_<index>` there.
        task_id, _, index = name.rpartition("_")
        if name not in known and task_id in known and index.isdecimal():
            yield task_id, int(index)
        else:
            yield name, -1


def _code(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    try:
        # Since 3.0, or as in 2.11.
        module = "airflow.sdk.execution_time.xcom" if alerts.knows_deadlines() else "airflow.models.xcom"
        found = import_module(module).XCom.get_one(
            key=CODE_KEY, dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index
        )
    except Exception as error:
        _log.warning("could not find out why %s failed (%s)", task_id, type(error).__name__)
        return None
    return found if isinstance(found, str) and _CODE.fullmatch(found) else None


def _sorted(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted((str(task_id), int(index)) for task_id, index in found)


def _is_failed(state: object) -> bool:
    return str(getattr(state, "value", state)) == "failed"


def _index(ti: Any) -> int:
    index = getattr(ti, "map_index", -1)
    return index if isinstance(index, int) else -1


# === values ===


def _url(dag_id: str, conf: object) -> str | None:
    run = SimpleNamespace(dag_id=dag_id, conf=conf if isinstance(conf, dict) else None)
    try:
        return links.explain_url(run)
    except RunError:
        # What stands in its conf is no request: the pipeline is known all the same.
        run.conf = None
        return links.explain_url(run)


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text)[:_TEXT_CHARS_MAX]
