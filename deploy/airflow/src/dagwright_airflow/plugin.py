"""What Airflow loads at its start: the listener, and the link on tasks."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dagwright_airflow import listener
from dagwright_airflow.links import DagwrightLink


class DagwrightPlugin(AirflowPlugin):
    """Tells the daemon of its runs and tasks, and people of the daemon."""

    name = "dagwright"
    listeners = [listener]  # noqa: RUF012 - as the base class has it
    operator_extra_links = [DagwrightLink()]  # noqa: RUF012
