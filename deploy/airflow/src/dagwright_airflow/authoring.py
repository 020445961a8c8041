"""The names of Airflow that DAGs are written with, where they stand in 2.11 and 3.x.

DAG files import from Airflow itself what it has had in one place since 3.0, or in 2.11 (crate `compiler`,
`emit/airflow_2.rs` and `emit/airflow_3.rs`), and the rest from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, Param, get_parsing_context

    # What makes pauses between tries double.
    RETRY_EXPONENTIAL_BACKOFF: float
else:
    try:
        from airflow.sdk import DAG, Asset, Param, get_parsing_context
        from airflow.sdk.bases.operator import BASEOPERATOR_ARGS_EXPECTED_TYPES as _TYPES

        # A switch in 3.0 and 3.1, which take nothing else; then the factor itself, where `True` would count as 1.
        RETRY_EXPONENTIAL_BACKOFF = True if _TYPES.get("retry_exponential_backoff") is bool else 2
    except ImportError:
        from airflow import DAG
        from airflow.datasets import Dataset as Asset
        from airflow.models.param import Param
        from airflow.utils.dag_parsing_context import get_parsing_context

        # A switch; its factor is always 2.
        RETRY_EXPONENTIAL_BACKOFF = True

    try:
        from airflow.sdk import CronDataIntervalTimetable
    except ImportError:
        # As in 3.1, and before.
        from airflow.timetables.interval import CronDataIntervalTimetable


def deadline(span: timedelta, connections: Sequence[str]) -> dict[str, Any]:
    """Return the argument that gives runs of a DAG a deadline, counted from when they are queued; none before 3.1.

    `connections` are told when it has passed.
    """
    from dagwright_airflow import alerts  # noqa: PLC0415 - not every DAG has one

    if not alerts.knows_deadlines():
        return {}
    # In 3.1 the one place; later ones have it there, too.
    from airflow.sdk.definitions import deadline as of_airflow  # noqa: PLC0415 - nor every Airflow

    module: Any = of_airflow
    callback = module.AsyncCallback(alerts.deadline_missed, {"connections": list(connections)})
    queued = module.DeadlineReference.DAGRUN_QUEUED_AT
    return {"deadline": module.DeadlineAlert(reference=queued, interval=span, callback=callback)}


__all__ = [
    "DAG",
    "RETRY_EXPONENTIAL_BACKOFF",
    "Asset",
    "CronDataIntervalTimetable",
    "Param",
    "deadline",
    "get_parsing_context",
]
