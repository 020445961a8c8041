"""Where tasks find things on this Airflow.

Each setting is looked up in the worker's environment (``DAGWRIGHT_BASE``), then in section ``[dagwright]`` of the
Airflow configuration (``base``), then, where that is safe, in the Airflow Variable of that name (``dagwright_base``).
"""

from __future__ import annotations

import os
import shutil
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


def _home() -> Path:
    """Return the folder for what has no folder: right for one machine, or a shared AIRFLOW_HOME."""
    return Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow") / "dagwright"


def _look_up(name: str, *, from_variable: bool = True) -> str | None:
    if value := os.environ.get(f"DAGWRIGHT_{name.upper()}"):
        return value
    if value := conf.get("dagwright", name, fallback=None):
        return str(value)
    return variable(f"dagwright_{name}") or None if from_variable else None
