"""DAGs for the contract between Dagwright's Airflow client and real Airflows, 2.11 and 3.x."""

from datetime import UTC, datetime, timedelta

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG, Asset, Param
except ImportError:
    from airflow import DAG
    from airflow.datasets import Dataset as Asset
    from airflow.models.param import Param
    from airflow.operators.empty import EmptyOperator
    from airflow.operators.python import PythonOperator

START = datetime(2025, 1, 1, tzinfo=UTC)
SINK = Asset("dagwright://contract/sink")


def load(part, ti, params):
    """Fails in the first try of part 1, if the run is told so; says much before."""
    for line in range(100):
        print(f"line {line} of part {part}")
    if part == 1 and params["fail"] and ti.try_number == 1:
        raise ValueError("this part fails on purpose")


with DAG(
    dag_id="contract",
    schedule=None,
    start_date=START,
    tags=["contract"],
    params={"fail": Param(False, type="boolean")},
):
    split = PythonOperator(task_id="split", python_callable=lambda: [[0], [1]])
    parts = PythonOperator.partial(task_id="load", python_callable=load).expand(op_args=split.output)
    publish = PythonOperator(
        task_id="publish",
        python_callable=lambda: {"rows": 3, "sink": "it's", "parts": [1.5, None, True]},
        outlets=[SINK],
    )
    parts >> publish

with DAG(dag_id="contract_next", schedule=[SINK], start_date=START, tags=["contract"]):
    EmptyOperator(task_id="nothing")

with DAG(
    dag_id="contract_daily",
    schedule=timedelta(days=1),
    start_date=START,
    catchup=False,
    is_paused_upon_creation=True,
):
    EmptyOperator(task_id="nothing")
