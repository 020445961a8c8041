"""A DAG, from what the compiler worked out for it and wrote into its plan file.

The outcome is the DAG that the compiled DAG file makes, argument for argument; tests compare the two as Airflow
serializes them. The blueprint was written by the compiler, but may be anything by now: all of it is checked, so that
it can neither be code nor lead Airflow to a file, and a DAG that Airflow would refuse later is refused here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum

from dagwright_airflow import operators
from dagwright_airflow.authoring import (
    DAG,
    RETRY_EXPONENTIAL_BACKOFF,
    Asset,
    CronDataIntervalTimetable,
    Param,
    deadline,
)
from dagwright_airflow.calendar import midnight
from dagwright_airflow.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

_OPERATORS: dict[str, type[operators.DagwrightOperator]] = {
    kind.__name__: kind
    for kind in (
        operators.DagwrightCleanup,
        operators.DagwrightExtract,
        operators.DagwrightLoad,
        operators.DagwrightPublish,
        operators.DagwrightSplit,
        operators.DagwrightTransform,
    )
}

# What the compiler writes at most, or what Airflow's columns hold.
_TEXT_CHARS_MAX = 1000
_DOC_CHARS_MAX = 16 * 1024 * 1024
_ITEMS_MAX = 1000
_TASKS_MAX = 10_000
_SPAN_MS_MAX = 3650 * 86_400_000
_COUNT_MAX = 2**32 - 1

_PARAM_KEYS = frozenset({"type", "format", "enum"})


def build(blueprint: object, dag_id: str, plan_file: str, file: str) -> DAG:
    """Return the DAG, unless it is not the one that was asked for.

    `file` is the DAG file that it will say to come from; `plan_file` lies beside it.

    Raises:
        PlanError: the blueprint is none, or is another DAG's.
        Exception: whatever Airflow says of a DAG that it does not take.

    """
    said = _map(blueprint)
    if _text(said, "dag_id") != dag_id:
        raise PlanError(f"{plan_file} is the plan of another DAG; compile and deploy it again")
    dag = DAG(**_arguments(said, dag_id))
    # Airflow would take it from where its constructor was called.
    dag.fileloc = file
    _add_tasks(dag, _list(said, "tasks", _TASKS_MAX), plan_file)
    # Where a DAG fails it later, Airflow blames the whole file.
    validate: Callable[[], None] = dag.validate
    validate()
    return dag


def _arguments(said: dict[str, Any], dag_id: str) -> dict[str, Any]:
    doc = _text(said, "doc_md", _DOC_CHARS_MAX)
    if doc.rstrip().endswith(".md"):
        # Airflow would show the file of that name.
        raise _invalid("doc_md")
    start = _map(said.get("start_date"))
    timeout = said.get("dagrun_timeout_ms")
    arguments: dict[str, Any] = {
        "dag_id": dag_id,
        "doc_md": doc,
        "schedule": _schedule(said.get("schedule")),
        "start_date": midnight(_text(start, "day"), _text(start, "timezone")),
        "catchup": _boolean(said, "catchup"),
        "is_paused_upon_creation": _boolean(said, "is_paused_upon_creation"),
        "max_active_runs": _integer(said, "max_active_runs", 1, _COUNT_MAX),
        "tags": _texts(said, "tags"),
        "default_args": _default_args(_map(said.get("default_args"))),
    }
    if said.get("description") is not None:
        arguments["description"] = _text(said, "description", _DOC_CHARS_MAX)
    if timeout is not None:
        arguments["dagrun_timeout"] = _span(said, "dagrun_timeout_ms")
    told = _map(said.get("alerts", {"on_failure": [], "on_deadline": []}))
    on_failure, on_deadline = _texts(told, "on_failure"), _texts(told, "on_deadline")
    if said.get("deadline_ms") is not None:
        arguments |= deadline(_span(said, "deadline_ms"), on_deadline)
    if on_failure or on_deadline:
        from dagwright_airflow.alerts import DagwrightNotifier  # noqa: PLC0415 - as a compiled DAG file

        arguments["on_failure_callback"] = DagwrightNotifier(on_failure=on_failure, on_deadline=on_deadline)
    params = _map(said.get("params"))
    if params:
        arguments["params"] = {_checked(name): _param(_map(param)) for name, param in params.items()}
    return arguments


def _schedule(said: object) -> object:
    if said is None:
        return None
    trigger = _map(said)
    if "assets" in trigger:
        return [Asset(uri) for uri in _texts(trigger, "assets", 2 * _TEXT_CHARS_MAX)]
    timezone = _text(trigger, "timezone")
    # 3.x looks it up only when it serializes the DAG.
    pendulum.timezone(timezone)
    return CronDataIntervalTimetable(_text(trigger, "cron"), timezone=timezone)


def _param(said: dict[str, Any]) -> Param:
    schema = _map(said.get("schema"))
    if not schema.keys() <= _PARAM_KEYS:
        raise _invalid("params")
    return Param(said["default"], **schema) if "default" in said else Param(**schema)


def _default_args(said: dict[str, Any]) -> dict[str, Any]:
    owner = {} if said.get("owner") is None else {"owner": _text(said, "owner")}
    return {
        **owner,
        "retries": _integer(said, "retries", 0, _COUNT_MAX),
        "retry_delay": _span(said, "retry_delay_ms"),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": _span(said, "max_retry_delay_ms"),
        "pool": _text(said, "pool"),
        "priority_weight": _integer(said, "priority_weight", -_COUNT_MAX, _COUNT_MAX),
    }


# === tasks ===


def _add_tasks(dag: DAG, tasks: list[Any], plan_file: str) -> None:
    made: dict[str, Any] = {}

    def named(task_id: object) -> Any:
        # Of those before it alone, so that nothing can go in a circle.
        if not isinstance(task_id, str) or task_id not in made:
            raise _invalid("tasks")
        return made[task_id]

    for entry in tasks:
        said = _map(entry)
        task_id = _text(said, "task_id")
        arguments: dict[str, Any] = {
            "task_id": task_id,
            "plan": plan_file,
            "execution_timeout": _span(said, "execution_timeout_ms"),
            "dag": dag,
        }
        if outlets := _texts(said, "outlets", 2 * _TEXT_CHARS_MAX):
            arguments["outlets"] = [Asset(uri) for uri in outlets]
        kind = _OPERATORS.get(_text(said, "operator"))
        if kind is None:
            raise _invalid("operator")
        task: Any
        if said.get("mapped_over") is None:
            task = kind(**arguments)
        else:
            task = kind.partial(**arguments).expand(partition=named(said["mapped_over"]).output)
        _add_edges(task, said, named)
        made[task_id] = task


def _add_edges(task: Any, said: dict[str, Any], named: Callable[[object], Any]) -> None:
    if said.get("teardown_of") is not None:
        setups = [named(setup) for setup in _list(said, "teardown_of", _TASKS_MAX)]
        if setups:
            task.as_teardown(setups=setups)
        else:
            task.as_teardown()
    if before := [named(other) for other in _list(said, "after", _TASKS_MAX)]:
        task.set_upstream(before)


# === values ===


def _invalid(what: str) -> PlanError:
    return PlanError(f"what its plan file says of the DAG is not valid ({what}); compile and deploy it again")


def _map(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid("an object is missing")
    return value


def _list(said: dict[str, Any], key: str, most: int = _ITEMS_MAX) -> list[Any]:
    value = said.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise _invalid(key)
    return value


def _checked(text: str) -> str:
    """Return a text that every database takes, as one that it refuses would keep back all DAGs of the file."""
    try:
        # JSON can spell lone surrogates.
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _invalid("a text is not Unicode") from None
    if "\0" in text:
        raise _invalid("a text holds NUL")
    return text


def _text(said: dict[str, Any], key: str, most: int = _TEXT_CHARS_MAX) -> str:
    value = said.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise _invalid(key)
    return _checked(value)


def _texts(said: dict[str, Any], key: str, most: int = _TEXT_CHARS_MAX) -> list[str]:
    values = _list(said, key)
    if any(not isinstance(value, str) or len(value) > most for value in values):
        raise _invalid(key)
    return [_checked(value) for value in values]


def _boolean(said: dict[str, Any], key: str) -> bool:
    value = said.get(key)
    if not isinstance(value, bool):
        raise _invalid(key)
    return value


def _integer(said: dict[str, Any], key: str, least: int, most: int) -> int:
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _invalid(key)
    return value


def _span(said: dict[str, Any], key: str) -> timedelta:
    return timedelta(milliseconds=_integer(said, key, 0, _SPAN_MS_MAX))
