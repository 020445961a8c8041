"""The names of Airflow that stand elsewhere, or behave otherwise, in 2.11 and 3.x.

Types are checked against 3.x; what 2.11 calls differently is hidden here and nowhere else, but for what DAGs are
written with: that is in `authoring`, as only what makes DAGs needs to load it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import BaseHook, BaseNotifier, BaseOperator, BaseOperatorLink, Variable, conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
    )
    from airflow.sdk.log import mask_secret
else:

    def _first(name, *modules):
        for module in modules:
            with suppress(ImportError, AttributeError):
                return getattr(import_module(module), name)
        raise ImportError(f"this Airflow has no {name}")

    # Newest first: 3.0 and 3.1 have some of them where 2.11 has, and some elsewhere.
    BaseHook = _first("BaseHook", "airflow.sdk", "airflow.sdk.bases.hook", "airflow.hooks.base")
    BaseNotifier = _first(
        "BaseNotifier", "airflow.sdk", "airflow.sdk.bases.notifier", "airflow.notifications.basenotifier"
    )
    BaseOperator = _first("BaseOperator", "airflow.sdk", "airflow.models.baseoperator")
    BaseOperatorLink = _first("BaseOperatorLink", "airflow.sdk", "airflow.models.baseoperatorlink")
    Variable = _first("Variable", "airflow.sdk", "airflow.models")
    conf = _first("conf", "airflow.sdk", "airflow.configuration")
    AirflowException, AirflowFailException, AirflowNotFoundException = (
        _first(name, "airflow.sdk.exceptions", "airflow.exceptions")
        for name in ("AirflowException", "AirflowFailException", "AirflowNotFoundException")
    )
    mask_secret = _first(
        "mask_secret",
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    )

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "BaseOperatorLink",
    "conf",
    "mask_secret",
    "redact",
    "variable",
]


def redact(text: str) -> str:
    """Return a text without the secrets that Airflow was told of."""
    return str(_redact()(text))


@cache
def _redact() -> Callable[[str], object]:
    # No version says where it is for good.
    for module in (
        "airflow.sdk._shared.secrets_masker",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        with suppress(ImportError):
            return cast("Callable[[str], object]", import_module(module).redact)
    # Better no text than a secret.
    return lambda _: "***"


def variable(key: str) -> str | None:
    """Return an Airflow Variable's text, or None where there is none."""
    value = None
    # 3.0 has Variables in tasks only, and fails so where there is no task.
    with suppress(ImportError):
        # 2.11 calls the second parameter `default_var`, 3.x calls it `default`: by position both take it.
        value = Variable.get(key, None)
    return None if value is None else str(value)
