"""Compiled by Dagwright from plan a5dd789e81b7; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow.sdk import DAG, Asset
from dagwright_airflow import DagwrightLoad, midnight
from dagwright_airflow.authoring import RETRY_EXPONENTIAL_BACKOFF

PLAN = "aviation.chained.a5dd789e81b7.plan.json"

DOC = """\
# aviation.chained

Plan `a5dd789e81b7c74537614d8fe2eedd27b585eb717f80bc789f69a7f0ef336e66`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `load`: reads `late` from `out/late.csv`, replaces `by_carrier` at `out/by_carrier.parquet` and replaces `copy` at `out/copy.csv`; at most 1h and 512MiB a try

## Choices

There was nothing to choose between.

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- retries of a task: 3, the first after 30s
- schema changes of sinks: none

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="aviation.chained",
    doc_md=DOC,
    schedule=[
        Asset("dagwright://aviation.flights_daily/sink"),
        Asset("s3://bucket/carriers%20(new).csv"),
    ],
    start_date=midnight("1970-01-01", "UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["dagwright", "plan a5dd789e81b7"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": timedelta(hours=1),
        "pool": "default_pool",
        "priority_weight": 1,
    },
):
    load = DagwrightLoad(
        task_id="load",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[
            Asset("dagwright://aviation.chained/by_carrier"),
            Asset("dagwright://aviation.chained/copy"),
        ],
    )
