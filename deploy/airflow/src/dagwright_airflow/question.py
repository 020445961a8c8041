"""The task that asks a person whether a plan may run; 3.1 and later can import it.

What it asks stands in the run's conf. All of it is checked, so that it cannot be markup that misleads who answers:
whoever may trigger DAGs can start a run of this one. No field is a template.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from dagwright_airflow import links
from dagwright_airflow.compat import AirflowFailException
from dagwright_airflow.run import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

_PIPELINE = re.compile(r"[A-Za-z0-9_.-]{1,250}")
_PLAN_HASH = re.compile(r"[0-9a-f]{64}")

_CHANGES = {
    "none": "It changes the schema of no sink.",
    "additive": "It adds columns to a sink.",
    "widening": "It widens columns of a sink, or allows NULL in them.",
}

# Of what the pipeline reads and writes, since the plan before this one.
_DRIFTS = {
    "additive": "What it reads or writes has columns that it did not have.",
    "widening": "What it reads or writes has wider types than it had.",
    "breaking": "What it reads or writes is no longer what it was: a column is gone, or of another type.",
}


class DagwrightApproval(ApprovalOperator):
    """Asks whether the plan of the run's conf may run."""

    template_fields: Sequence[str] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(subject="May a plan run?", **kwargs)

    def execute(self, context: Context) -> Any:
        """Ask, and wait for the answer.

        Raises:
            AirflowFailException: what the run's conf holds is no question.

        """
        self.subject, self.body = question(context["dag_run"])
        return super().execute(context)


def question(dag_run: Any) -> tuple[str, str]:
    """Return what is asked: a line, and Markdown.

    Raises:
        AirflowFailException: what the run's conf holds is no question.

    """
    conf = dag_run.conf or {}
    pipeline, plan = conf.get("dagwright_pipeline"), conf.get("dagwright_plan_hash")
    change = conf.get("dagwright_schema_change")
    if not (isinstance(pipeline, str) and _PIPELINE.fullmatch(pipeline)):
        raise _invalid("dagwright_pipeline")
    if not (isinstance(plan, str) and _PLAN_HASH.fullmatch(plan)):
        raise _invalid("dagwright_plan_hash")
    if not isinstance(change, str) or change not in _CHANGES:
        raise _invalid("dagwright_schema_change")
    drift = conf.get("dagwright_drift")
    if drift is not None and not (isinstance(drift, str) and drift in _DRIFTS):
        raise _invalid("dagwright_drift")
    try:
        url = links.explain_url(dag_run)
    except RunError:
        raise _invalid("dagwright_request_id") from None
    lines = [
        f"Pipeline `{pipeline}` waits with plan `{plan}`.",
        _CHANGES[change],
        *([_DRIFTS[drift]] if drift is not None else []),
        *([f"[What it does, and why]({url})"] if url else []),
        f"What is decided first stands: here, or with `dagwright approve {plan}`.",
    ]
    return f"May {pipeline} run plan {plan[:12]}?", "\n\n".join(lines)


def _invalid(key: str) -> AirflowFailException:
    return AirflowFailException(
        f"DW0120: {key} in the run's conf is not what Dagwright asks with; trigger no run by hand"
    )
