"""The names of Airflow that stand elsewhere, or behave otherwise, in 2.11 and 3.x.

Types are checked against 3.x; what 2.11 calls differently is hidden here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator, Variable, conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
    )
    from airflow.sdk.log import mask_secret
else:
    try:
        from airflow.sdk import BaseHook, BaseOperator, Variable, conf
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
        from airflow.utils.log.secrets_masker import mask_secret

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "BaseHook",
    "BaseOperator",
    "conf",
    "mask_secret",
    "variable",
]


def variable(key: str) -> str | None:
    """Return an Airflow Variable's text, or None where there is none."""
    # 2.11 calls the second parameter `default_var`, 3.x calls it `default`: by position both take it.
    value = Variable.get(key, None)
    return None if value is None else str(value)
