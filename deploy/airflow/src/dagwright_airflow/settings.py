"""Where tasks find things on this Airflow, and where the daemon is.

Each setting is looked up in the worker's environment (``DAGWRIGHT_BASE``), then in section ``[dagwright]`` of the
Airflow configuration (``base``), then, where that is safe, in the Airflow Variable of that name (``dagwright_base``).
What concerns the daemon never comes from a Variable: who may edit Variables must not choose where events go and links
lead, and the scheduler must not ask its database while it tells of a run.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from dagwright_airflow.compat import conf, variable

COMMAND = "dagwright-task"


def base() -> str | None:
    """Return the folder that relative URIs start from; None refuses them."""
    return _look_up("base")


def staging() -> str:
    """Return the folder or URI for staged data; every worker must reach it."""
    return _look_up("staging") or str(_home() / "staging")


def quarantine() -> str:
    """Return the folder or URI for rejected rows."""
    return _look_up("quarantine") or str(_home() / "quarantine")


def command() -> str | None:
    """Return the path of `dagwright-task`, or None where it is not installed.

    Never from a Variable: who may edit Variables in the web interface must not choose what workers execute.
    """
    return shutil.which(_look_up("task_command", from_variable=False) or COMMAND)


def url() -> str | None:
    """Return the daemon's URL for people, or None where links lead nowhere."""
    return _look_up("url", from_variable=False)


@dataclass(frozen=True)
class Feedback:
    """Where the listener posts events, as it was set."""

    url: str
    secret: str = field(repr=False)
    spool: Path
    # A file with the authorities that a daemon behind TLS is checked against; None trusts the system's.
    ca: str | None = None


def feedback() -> Feedback | None:
    """Return where the listener posts events; None where it posts none."""
    where = _look_up("feedback_url", from_variable=False)
    if where is None:
        return None
    return Feedback(
        url=where,
        secret=_look_up("feedback_secret", from_variable=False) or "",
        spool=Path(_look_up("feedback_spool", from_variable=False) or _home() / "feedback"),
        ca=_look_up("ca", from_variable=False),
    )


def _home() -> Path:
    """Return the folder for what has no folder: right for one machine, or a shared AIRFLOW_HOME."""
    return Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow") / "dagwright"


def _look_up(name: str, *, from_variable: bool = True) -> str | None:
    if value := os.environ.get(f"DAGWRIGHT_{name.upper()}"):
        return value
    if value := conf.get("dagwright", name, fallback=None):
        return str(value)
    return variable(f"dagwright_{name}") or None if from_variable else None
