"""Compiled by Dagwright from plan 494cbe33552d; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow import DAG
from airflow.datasets import Dataset
from airflow.timetables.interval import CronDataIntervalTimetable
from dagwright_airflow import DagwrightLoad, midnight
from dagwright_airflow.alerts import DagwrightNotifier

PLAN = "aviation.flights_daily.494cbe33552d.plan.json"

DOC = """\
# aviation.flights\\_daily

Flights with carrier names, cleaned.

Plan `494cbe33552d6b6103722f60cd722494c91d879a50cadc9abdab600a8c1c7d89`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `load_sink`: reads `flights` from `ops_db:public.flights` and upserts into `sink` at `warehouse:public.flights`; at most 1h and 512MiB a try

## Choices

### Loading of `sink`: `staging_table`

An upsert needs its rows in a table of the same database.

Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

- not `direct`: A COPY cannot upsert. Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- deadline of a run: 90m
- told of a run that failed: `ops_slack` and `ops-mail`
- told of a run that missed its deadline: `ops-mail`
- retries of a task: 5, the first after 90s
- schema changes of sinks: new columns

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="aviation.flights_daily",
    description="Flights with carrier names, cleaned.",
    doc_md=DOC,
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="Europe/Berlin"),
    start_date=midnight("2025-01-01", "Europe/Berlin"),
    catchup=True,
    dagrun_timeout=timedelta(minutes=90),
    on_failure_callback=DagwrightNotifier(
        on_failure=["ops_slack", "ops-mail"],
        on_deadline=["ops-mail"],
    ),
    max_active_runs=3,
    is_paused_upon_creation=False,
    tags=["aviation", "nightly", "dagwright", "plan 494cbe33552d"],
    default_args={
        "owner": "data-platform",
        "retries": 5,
        "retry_delay": timedelta(seconds=90),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "pool": "warehouse",
        "priority_weight": -2,
    },
):
    load_sink = DagwrightLoad(
        task_id="load_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[Dataset("dagwright://aviation.flights_daily/sink")],
    )
