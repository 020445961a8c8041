"""Airflow operators that run the tasks of Dagwright's plans."""

from dagwright_airflow.calendar import midnight
from dagwright_airflow.operators import (
    DagwrightCleanup,
    DagwrightExtract,
    DagwrightLoad,
    DagwrightOperator,
    DagwrightPublish,
    DagwrightSplit,
    DagwrightTransform,
)

__all__ = [
    "DagwrightCleanup",
    "DagwrightExtract",
    "DagwrightLoad",
    "DagwrightOperator",
    "DagwrightPublish",
    "DagwrightSplit",
    "DagwrightTransform",
    "midnight",
]
