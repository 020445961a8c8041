"""Days as DAG files write them."""

from __future__ import annotations

from datetime import date, datetime

import pendulum


def midnight(day: str, timezone: str) -> datetime:
    """Return the start of a day (``YYYY-MM-DD``) in an IANA time zone.

    Airflow has a function for this in other places in each of its versions.
    """
    first = date.fromisoformat(day)
    return pendulum.datetime(first.year, first.month, first.day, tz=timezone)
