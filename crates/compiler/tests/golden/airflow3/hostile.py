"""Compiled by Dagwright from plan d9997a7f50a8; change the pipeline's spec and compile again, not this file."""

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param
from dagwright_airflow import (
    DagwrightCleanup,
    DagwrightExtract,
    DagwrightLoad,
    DagwrightTransform,
    midnight,
)
from dagwright_airflow.alerts import DagwrightNotifier
from dagwright_airflow.authoring import RETRY_EXPONENTIAL_BACKOFF, deadline

PLAN = "hostile.d9997a7f50a8.plan.json"

DOC = """\
# hostile

/etc/passwd.md

Plan `d9997a7f50a813386bab1e11359049e3770f91dfe336972fc747c4997fc829de`, sealed for spec `5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c`.

## Tasks

- `import`: reads `flights` from ``\"\""uri'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md`` and stages `flights`; at most 1h and 512MiB a try
- `timedelta`: reads `airlines` from ``\"\""uri'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md`` and stages `airlines`; at most 1h and 512MiB a try
- `task_5`: takes `airlines` and `flights` from staging, computes `late`, judges `has_name` and stages `late`; after `import` and `timedelta`; at most 1h and 512MiB a try
- `load_sink`: takes `late` from staging and replaces `sink` at `out/late.parquet`; after `task_5`; at most 1h and 512MiB a try
- `cleanup`: removes what the run staged, whatever became of it; after `import`, `timedelta`, `task_5` and `load_sink`; at most 1h and 512MiB a try

## Choices

### Transformation of ``\"\""subject'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md``: ``\"\""chosen'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md``

\"\""rationale'''\\\\"'); import os; os.system('id') \\#\\{\\{ ds \\}\\}\\{% raw %\\} \\`\\|\\<b\\>\\&�� 🛫.md

Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

- not ``\"\""alternative'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md``: \"\""why'''\\\\"'); import os; os.system('id') \\#\\{\\{ ds \\}\\}\\{% raw %\\} \\`\\|\\<b\\>\\&�� 🛫.md Expected: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain).

## Expected and allowed

- expected of a run: 27,004 rows, 2.5 MiB, 180 ms of CPU, 1.2 s on the clock, 96.0 MiB of memory (80 % certain)
- deadline of a run: 18446744073709551615ms
- told of a run that failed: ``\"\""connection'''\\"'); import os; os.system('id') #{{ ds }}{% raw %} `|<b>&�� 🛫.md``
- retries of a task: 4294967295, the first after 18446744073709551615ms
- schema changes of sinks: none

Negotiated and compiled by Dagwright.
"""

with DAG(
    dag_id="hostile",
    description="/etc/passwd.md",
    doc_md=DOC,
    schedule=None,
    start_date=midnight("1970-01-01", "UTC"),
    catchup=False,
    dagrun_timeout=timedelta(days=3650),
    **deadline(timedelta(days=3650), []),
    on_failure_callback=DagwrightNotifier(
        on_failure=[
            "\"\"\"connection'''\\\"'); import os; os.system('id') #{{ ds }}{% raw %}   `|<b>&\u202e \u2028🛫.md",
        ],
    ),
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[
        "\"\"\"tag'''\\\"'); import os; os.system('id') #{{ ds }}{% raw %}   `|<b>&\u202e \u2028🛫.md",
        "a,b",
        "x.sh",
        "dagwright",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "plan d9997a7f50a8",
    ],
    params={
        "region": Param(
            "\"\"\"default'''\\\"'); import os; os.system('id') #{{ ds }}{% raw %}\r\n\t`|<b>&\u202e\x00\u2028🛫.md",
            type="string",
            enum=[
                "\"\"\"default'''\\\"'); import os; os.system('id') #{{ ds }}{% raw %}\r\n\t`|<b>&\u202e\x00\u2028🛫.md",
                "{{ ds }}",
            ],
        ),
    },
    default_args={
        "owner": "\"\"\"owner'''\\\"'); import os; os.system('id') #{{ ds }}{% raw %}   `|<b>&\u202e \u2028🛫.md",
        "retries": 4294967295,
        "retry_delay": timedelta(days=3650),
        "retry_exponential_backoff": RETRY_EXPONENTIAL_BACKOFF,
        "max_retry_delay": timedelta(hours=1),
        "pool": "no.pool-name_42",
        "priority_weight": 1,
    },
):
    task_1 = DagwrightExtract(task_id="import", plan=PLAN, execution_timeout=timedelta(hours=1))
    task_2 = DagwrightExtract(task_id="timedelta", plan=PLAN, execution_timeout=timedelta(hours=1))
    task_3 = DagwrightTransform(task_id="task_5", plan=PLAN, execution_timeout=timedelta(hours=1))
    load_sink = DagwrightLoad(
        task_id="load_sink",
        plan=PLAN,
        execution_timeout=timedelta(hours=1),
        outlets=[Asset("dagwright://hostile/sink")],
    )
    cleanup = DagwrightCleanup(task_id="cleanup", plan=PLAN, execution_timeout=timedelta(hours=1))

    [task_1, task_2] >> task_3
    task_3 >> load_sink
    load_sink >> cleanup.as_teardown(setups=[task_1, task_2, task_3])
