"""A link in Airflow's web interface, from a task to what Dagwright knows of its request.

The address is worked out where the task runs, as only there all of it is known, and kept in XCom: 2.11 looks it up
there through this class, 3.x by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from dagwright_airflow.compat import BaseOperatorLink

if TYPE_CHECKING:
    from dagwright_airflow.compat import BaseOperator

XCOM_KEY = "dagwright_explain"


class DagwrightLink(BaseOperatorLink):
    """Leads to the explanation of the request that a run was triggered for, else to the pipeline."""

    name = "Dagwright"

    @property
    def xcom_key(self) -> str:
        """The key under which 3.x finds the address."""
        return XCOM_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address, or nothing where there is none."""
        # 3.x calls this in the process of the task, with the operator that ran; 2.11 in its web server, with what was
        # serialized of it.
        found = operator.explain_url if hasattr(operator, "explain_url") else _from_xcom(ti_key)
        return found if isinstance(found, str) and _leads_to_a_page(found) else ""


def explain_url(dag_run: Any) -> str | None:
    """Return where the daemon explains a DAG run; None where no daemon is set.

    Raises:
        RunError: the run's conf names no request, but something else.

    """
    # Where a task runs; who parses a DAG file needs neither.
    from dagwright_airflow import run, settings  # noqa: PLC0415

    base = settings.url()
    if base is None or not _leads_to_a_page(base):
        return None
    request = run.request_id(dag_run)
    path = f"requests/{quote(request, safe='')}/explain" if request else f"pipelines/{quote(dag_run.dag_id, safe='')}"
    return f"{base.rstrip('/')}/api/v1/{path}"


def _from_xcom(ti_key: Any) -> object:
    from airflow.models.xcom import XCom  # noqa: PLC0415 - 2.11's web server alone needs it

    return XCom.get_value(ti_key=ti_key, key=XCOM_KEY)


def _leads_to_a_page(url: str) -> bool:
    """Tell whether a browser may be sent there: no script, no credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
