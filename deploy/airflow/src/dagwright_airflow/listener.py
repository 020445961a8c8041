"""What Airflow calls when the state of a run or a task changes: one implementation for 2.11 and 3.x.

Run hooks come in the scheduler, task hooks in the process of the task, and either in the API server when somebody marks
something. No hook waits for the daemon, and none fails what it tells of: each puts an event into the spool. Only a task
process that is about to end gives its sender a moment, as its thread ends with it.

Events make Dagwright quick; they are not what it relies on. A task that is killed tells nothing, so the daemon also
asks Airflow.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from dagwright_airflow import events, feedback

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

# The end of a task process waits this long for its last events, which usually takes milliseconds.
FLUSH_SECONDS = 1.0


@hookimpl
def on_dag_run_running(dag_run: Any) -> None:
    """Tell that a DAG run started, or started again."""
    with _quietly():
        _tell_dag_run(dag_run, "running")


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    """Tell that a DAG run succeeded."""
    with _quietly():
        _tell_dag_run(dag_run, "success")


@hookimpl
def on_dag_run_failed(dag_run: Any) -> None:
    """Tell that a DAG run failed."""
    with _quietly():
        _tell_dag_run(dag_run, "failed")


@hookimpl
def on_task_instance_running(task_instance: Any) -> None:
    """Tell that a try of a task started."""
    with _quietly():
        _tell_task_instance(task_instance, "running")


@hookimpl
def on_task_instance_success(task_instance: Any) -> None:
    """Tell that a task succeeded, and what it counted."""
    with _quietly():
        _tell_task_instance(task_instance, "success")


@hookimpl
def on_task_instance_failed(task_instance: Any, error: Any) -> None:
    """Tell that a try of a task failed, for good or not."""
    with _quietly():
        _tell_task_instance(task_instance, "failed", error)


@hookimpl
def on_task_instance_skipped(task_instance: Any) -> None:
    """Tell that a task skipped itself (3.x)."""
    with _quietly():
        _tell_task_instance(task_instance, "skipped")


@hookimpl
def on_starting(component: Any) -> None:  # noqa: ARG001 - any will do
    """Have sent what earlier processes left."""
    with _quietly():
        sender = feedback.sender()
        if sender is not None:
            sender.wake()


@hookimpl
def before_stopping(component: Any) -> None:  # noqa: ARG001 - any may end
    """Give the last events a moment: the thread that sends them ends with the process."""
    with _quietly():
        sender = feedback.sender()
        if sender is not None:
            sender.flush(FLUSH_SECONDS)


@contextmanager
def _quietly() -> Iterator[None]:
    """Log what goes wrong in a hook, and go on."""
    try:
        yield
    except Exception:
        log.exception("could not tell Dagwright what Airflow does")


def _tell_dag_run(dag_run: Any, state: str) -> None:
    sender = feedback.sender()
    if sender is not None and (event := events.dag_run(dag_run, state)) is not None:
        sender.submit(event)


def _tell_task_instance(task_instance: Any, state: str, error: object = None) -> None:
    sender = feedback.sender()
    if sender is not None and (event := events.task_instance(task_instance, state, error)) is not None:
        sender.submit(event)
