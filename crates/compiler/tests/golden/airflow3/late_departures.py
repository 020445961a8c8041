"""Compiled by Dagwright from plan b0fe23a0b6ac; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param
from dagwright_airflow import (
    DagwrightCleanup,
    DagwrightExtract,
    DagwrightLoad,
    DagwrightTransform,
    midnight,
)
from dagwright_airflow.authoring import RETRY_EXPONENTIAL_BACKOFF, deadline

PLAN = "late_departures.b0fe23a0b6ac.plan.json"

DOC = """\
# late\\_departures

How many departures were late, by carrier.

Plan `b0fe23a0b6ac051bd4686f4c9cc9dbd020c765edf6041b6c500915a220740323`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `extract_flights`: reads `flights` from `data/flights.csv` and stages `flights`; at most 1h and 512MiB a try
- `extract_airlines`: reads `airlines` from `data/airlines.csv` and stages `airlines`; at most 1h and 512MiB a try
- `transform`: takes `airlines` and `flights` from staging, computes `late`, judges `has_name` and stages `late`; after `extract_flights` and `extract_airlines`; at most 1h and 512MiB a try
- `load_sink`: takes `late` from staging and replaces `sink` at `out/late.parquet`; after `transform`; at most 1h and 512MiB a try
- `cleanup`: removes what the run staged, whatever became of it; after `extract_flights`, `extract_airlines`, `transform` and `load_sink`; at most 1h and 512MiB a try

## Choices

### Transformation of `late`: `staged`

The join may need 700 MiB, more than the budget leaves beside the load.

Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

- not `fused`: It needs 1.1 GiB, the budget is 512 MiB. Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- deadline of a run: 30m
- retries of a task: 3, the first after 30s
- schema changes of sinks: none

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="late_departures",
    description="How many departures were late, by carrier.",
    doc_md=DOC,
    schedule=None,
    start_date=midnight("1970-01-01", "UTC"),
    catchup=False,
    dagrun_timeout=timedelta(minutes=30),
    **deadline(timedelta(minutes=30), []),
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["dagwright", "plan b0fe23a0b6ac"],
    params={
        "batch": Param(type="string"),
        "full": Param(False, type="boolean"),
        "late_after": Param(15.5, type="number"),
        "limit": Param(-1, type="integer"),
        "region": Param("eu", type="string", enum=["eu", "us"]),
        "since": Param("2013-01-01", type="string", format="date"),
        "until": Param("2013-02-01T00:00:00Z", type="string", format="date-time"),
    },
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": timedelta(hours=1),
        "pool": "default_pool",
        "priority_weight": 1,
    },
):
    extract_flights = DagwrightExtract(
        task_id="extract_flights",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
    )
    extract_airlines = DagwrightExtract(
        task_id="extract_airlines",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
    )
    transform = DagwrightTransform(
        task_id="transform",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
    )
    load_sink = DagwrightLoad(
        task_id="load_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[Asset("dagwright://late_departures/sink")],
    )
    cleanup = DagwrightCleanup(task_id="cleanup", plan=PLAN, execution_timeout=timedelta(hours=1))

    [extract_flights, extract_airlines] >> transform
    transform >> load_sink
    load_sink >> cleanup.as_teardown(setups=[extract_flights, extract_airlines, transform])
