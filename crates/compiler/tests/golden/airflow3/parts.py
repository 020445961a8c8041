"""Compiled by Dagwright from plan 7a4e14ed57bc; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow.sdk import DAG, Asset
from dagwright_airflow import (
    DagwrightCleanup,
    DagwrightLoad,
    DagwrightPublish,
    DagwrightSplit,
    midnight,
)
from dagwright_airflow.authoring import RETRY_EXPONENTIAL_BACKOFF

PLAN = "parts.7a4e14ed57bc.plan.json"

DOC = """\
# parts

Flights, a part for each file.

Plan `7a4e14ed57bcb11f0caa33038e1a3f762fac04b4f592166ae962300a0c29571c`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `split_source`: finds at most 8 partitions of `source`; at most 1h and 512MiB a try
- `load_sink`: reads `source` from `data/parts/*.csv` and replaces `sink` at `out/flights/`, once for each partition; after `split_source`; at most 1h and 512MiB a try
- `publish_sink`: makes the staged rows of `sink` visible in one instant; after `load_sink`; at most 1h and 512MiB a try
- `cleanup`: removes what the run staged, whatever became of it; after `split_source`, `load_sink` and `publish_sink`; at most 1h and 512MiB a try

## Choices

There was nothing to choose between.

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- retries of a task: 3, the first after 30s
- schema changes of sinks: none

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="parts",
    description="Flights, a part for each file.",
    doc_md=DOC,
    schedule=None,
    start_date=midnight("1970-01-01", "UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["dagwright", "plan 7a4e14ed57bc"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": timedelta(hours=1),
        "pool": "default_pool",
        "priority_weight": 1,
    },
):
    split_source = DagwrightSplit(
        task_id="split_source",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
    )
    load_sink = DagwrightLoad.partial(
        task_id="load_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
    ).expand(partition=split_source.output)
    publish_sink = DagwrightPublish(
        task_id="publish_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[Asset("dagwright://parts/sink")],
    )
    cleanup = DagwrightCleanup(task_id="cleanup", plan=PLAN, execution_timeout=timedelta(hours=1))

    load_sink >> publish_sink
    [split_source, publish_sink] >> cleanup.as_teardown(setups=load_sink)
