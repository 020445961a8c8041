"""The names of Airflow that stand elsewhere, or behave otherwise, in 2.11 and 3.x.

Types are checked against 3.x; what 2.11 calls differently is hidden here and nowhere else.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, Variable, conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
    )
    from airflow.sdk.log import mask_secret
else:
    try:
        from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, Variable, conf
        from airflow.sdk.exceptions import (
            AirflowException,
            AirflowFailException,
            AirflowNotFoundException,
        )
        from airflow.sdk.log import mask_secret
    except ImportError:
        from airflow.configuration import conf
        from airflow.exceptions import (
            AirflowException,
            AirflowFailException,
            AirflowNotFoundException,
        )
        from airflow.hooks.base import BaseHook
        from airflow.models import Variable
        from airflow.models.baseoperator import BaseOperator
        from airflow.models.baseoperatorlink import BaseOperatorLink
        from airflow.utils.log.secrets_masker import mask_secret

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "BaseHook",
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
    # 2.11 calls the second parameter `default_var`, 3.x calls it `default`: by position both take it.
    value = Variable.get(key, None)
    return None if value is None else str(value)
