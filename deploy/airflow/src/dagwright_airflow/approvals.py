"""The DAG by which Dagwright asks people whether plans may run: `dagwright_approvals`, a run for each question.

The daemon triggers a run with what it asks about, and reads the answer from Airflow's API. Before 3.1 Airflow cannot
ask, and there is no such DAG.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from dagwright_airflow.authoring import DAG
from dagwright_airflow.calendar import midnight

if TYPE_CHECKING:
    from pathlib import Path

DAG_ID = "dagwright_approvals"
TASK_ID = "approve"

# The daemon asks fewer at a time; each waits for a person, so it takes no slot of a worker.
_QUESTIONS_MAX = 1000


def asking(file: str | Path) -> DAG | None:
    """Return the DAG, as of this file; None where Airflow cannot ask people."""
    if not can_ask():
        return None
    from dagwright_airflow.question import DagwrightApproval  # noqa: PLC0415 - not every Airflow can import it

    dag = DAG(
        dag_id=DAG_ID,
        description="Asks people whether plans of Dagwright may run.",
        doc_md=(
            "Dagwright triggers a run for each plan that waits for approval. Answer under *Required Actions*; "
            "what is decided first, here or with `dagwright approve`, stands.\n"
        ),
        schedule=None,
        start_date=midnight("1970-01-01", "UTC"),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=_QUESTIONS_MAX,
        max_active_tasks=_QUESTIONS_MAX,
        tags=["dagwright"],
        default_args={"owner": "dagwright", "retries": 0},
    )
    # Airflow would take it from where its constructor was called.
    dag.fileloc = str(file)
    DagwrightApproval(task_id=TASK_ID, dag=dag)
    return dag


def can_ask() -> bool:
    """Tell whether this Airflow has human-in-the-loop; 3.1 was the first."""
    try:
        return (
            find_spec("airflow.sdk.execution_time.hitl") is not None
            and find_spec("airflow.providers.standard.operators.hitl") is not None
        )
    except ModuleNotFoundError:
        # 2.11 has no `airflow.sdk`, and the provider may be missing.
        return False
