"""Compiled by Dagwright from plan 33c595561b3b; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow.sdk import DAG, Asset
from dagwright_airflow import DagwrightLoad, midnight
from dagwright_airflow.authoring import RETRY_EXPONENTIAL_BACKOFF

PLAN = "carriers.33c595561b3b.plan.json"

DOC = """\
# carriers

Flights by carrier.

Plan `33c595561b3b01e1947c20b3f7014291d203b19b54ae4e3c8a462fb55293e7fd`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `load_sink`: reads `airlines` from `data/airlines.csv` and `flights` from `data/flights.csv`, computes `counted` and replaces `sink` at `out/carriers.csv`; at most 1h and 512MiB a try

## Choices

### Extraction of `flights`: `one_stream`

One file of 2.5 MiB is read in one stream.

Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

### Transformation of `counted`: `fused`

Both inputs fit the memory budget, so nothing needs staging.

Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

- not `staged`: It would write and read 2.5 MiB more for a task that is quick to repeat. Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- retries of a task: 3, the first after 30s
- schema changes of sinks: none

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="carriers",
    description="Flights by carrier.",
    doc_md=DOC,
    schedule=None,
    start_date=midnight("1970-01-01", "UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["dagwright", "plan 33c595561b3b"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": timedelta(hours=1),
        "pool": "default_pool",
        "priority_weight": 1,
    },
):
    load_sink = DagwrightLoad(
        task_id="load_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[Asset("dagwright://carriers/sink")],
    )
