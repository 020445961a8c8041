"""Measures how long Airflow takes to load many DAGs: Dagwright's in both layouts, hand-written ones, and dag-factory's.

All are the same DAG, a thousand times under other names: that of the compiler's golden `late_departures`, five tasks
of which the last is a teardown, without its params. Dagwright's files are the compiler's, with their documentation
and outlets. The hand-written ones have what a person would write for it: the same arguments of DAG and tasks, with
BashOperator, and one line of documentation. dag-factory has the same as YAML, a file each; it knows no teardowns, so
the last task is an ordinary one there.

Each sample is one fresh process that loads one folder with Airflow's own `DagBag`; only that is timed, so neither the
start of Python nor the import of Airflow, but that of everything the DAG files import. Contenders take turns. Numbers
of DAGs, tasks and edges are verified for each sample. Compiled bytecode may be cached from the warm-up round on, as
Airflow itself does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = Path(os.environ["DAGWRIGHT_TOOLS"])
GOLDENS = ROOT / "crates/compiler/tests/golden/airflow3"
GOLDEN = "late_departures"
TASKS = 5
EDGES = 7

CHILD = """
import json, resource, sys, time
from airflow.dag_processing.dagbag import DagBag
start = time.perf_counter()
bag = DagBag(sys.argv[1])
seconds = time.perf_counter() - start
tasks = [task for dag in bag.dags.values() for task in dag.tasks]
print()
print(json.dumps({
    "seconds": seconds,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "errors": len(bag.import_errors),
    "unreadable": sum("dagwright-unreadable" in dag.tags for dag in bag.dags.values()),
    "found": [len(bag.dags), len(tasks), sum(len(task.upstream_task_ids) for task in tasks)],
}))
"""

HAND_WRITTEN = '''"""Flights that were late."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="late_departures",
    description="How many departures were late, by carrier.",
    doc_md="Counts late departures by carrier.",
    schedule=None,
    start_date=datetime(1970, 1, 1),
    catchup=False,
    dagrun_timeout=timedelta(minutes=30),
    max_active_runs=1,
    tags=["dagwright"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(hours=1),
        "pool": "default_pool",
        "priority_weight": 1,
    },
):
    extract_flights = BashOperator(
        task_id="extract_flights",
        bash_command="etl extract flights",
        execution_timeout=timedelta(hours=1),
    )
    extract_airlines = BashOperator(
        task_id="extract_airlines",
        bash_command="etl extract airlines",
        execution_timeout=timedelta(hours=1),
    )
    transform = BashOperator(
        task_id="transform",
        bash_command="etl transform late",
        execution_timeout=timedelta(hours=1),
    )
    load_sink = BashOperator(
        task_id="load_sink",
        bash_command="etl load late",
        execution_timeout=timedelta(hours=1),
    )
    cleanup = BashOperator(
        task_id="cleanup",
        bash_command="etl clean",
        execution_timeout=timedelta(hours=1),
    )

    [extract_flights, extract_airlines] >> transform
    transform >> load_sink
    load_sink >> cleanup.as_teardown(setups=[extract_flights, extract_airlines, transform])
'''

FACTORY = """late_departures:
  description: How many departures were late, by carrier.
  doc_md: Counts late departures by carrier.
  schedule: null
  catchup: false
  dagrun_timeout: { __type__: datetime.timedelta, minutes: 30 }
  max_active_runs: 1
  tags: [dagwright]
  default_args:
    start_date: 1970-01-01
    retries: 3
    retry_delay: { __type__: datetime.timedelta, seconds: 30 }
    retry_exponential_backoff: 2
    max_retry_delay: { __type__: datetime.timedelta, hours: 1 }
    pool: default_pool
    priority_weight: 1
  tasks:
"""
FACTORY_LOADER = """from pathlib import Path

from airflow.sdk import DAG
from dagfactory import load_yaml_dags

load_yaml_dags(globals_dict=globals(), dags_folder=str(Path(__file__).parent))
"""


@dataclass
class Contender:
    """One way to have the DAGs."""

    tool: str
    write: Callable[[Path, list[str]], None]
    # The only DAG that is wanted, as when Airflow starts a task; None wants all.
    wanted: str | None = None
    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)


def golden() -> tuple[str, str, str]:
    """Returns the golden's DAG file and plan file without its params, and the plan file's name."""
    dag_file = (GOLDENS / f"{GOLDEN}.py").read_text()
    dag_file, without = re.subn(r"    params=\{\n.*?\n    \},\n", "", dag_file, flags=re.DOTALL)
    (path,) = GOLDENS.glob(f"{GOLDEN}.*.plan.json")
    document = json.loads(path.read_text())
    if without != 1 or not document["dag"]["params"] or len(document["dag"]["tasks"]) != TASKS:
        sys.exit(f"the golden {GOLDEN} is not what it was; adapt this benchmark")
    document["dag"]["params"] = {}
    return dag_file.replace("Asset, Param", "Asset"), json.dumps(document, indent=2) + "\n", path.name


def as_files(folder: Path, dag_ids: list[str]) -> None:
    """Writes Dagwright's layout `file`."""
    dag_file, plan, name = golden()
    for dag_id in dag_ids:
        (folder / f"{dag_id}.py").write_text(renamed(dag_file, dag_id))
        (folder / renamed(name, dag_id)).write_text(renamed(plan, dag_id))


def as_loader(folder: Path, dag_ids: list[str]) -> None:
    """Writes Dagwright's layout `loader`."""
    _, plan, name = golden()
    for dag_id in dag_ids:
        (folder / renamed(name, dag_id)).write_text(renamed(plan, dag_id))
    loader = GOLDENS.parent / "loader/dagwright_loader.py"
    (folder / loader.name).write_bytes(loader.read_bytes())
    index = {"dags": {dag_id: renamed(name, dag_id) for dag_id in dag_ids}, "version": 1}
    (folder / "dagwright_index.json").write_text(json.dumps(index, indent=2) + "\n")


def by_hand(folder: Path, dag_ids: list[str]) -> None:
    """Writes what a person would."""
    for dag_id in dag_ids:
        (folder / f"{dag_id}.py").write_text(renamed(HAND_WRITTEN, dag_id))


def as_yaml(folder: Path, dag_ids: list[str]) -> None:
    """Writes what dag-factory reads."""
    tasks = {
        "extract_flights": [],
        "extract_airlines": [],
        "transform": ["extract_flights", "extract_airlines"],
        "load_sink": ["transform"],
        "cleanup": ["extract_flights", "extract_airlines", "transform", "load_sink"],
    }
    text = FACTORY
    for task_id, after in tasks.items():
        text += (
            f"    {task_id}:\n      operator: airflow.providers.standard.operators.bash.BashOperator\n"
            f"      bash_command: etl {task_id}\n"
            "      execution_timeout: { __type__: datetime.timedelta, hours: 1 }\n"
        )
        if after:
            text += f"      dependencies: [{', '.join(after)}]\n"
    for dag_id in dag_ids:
        (folder / f"{dag_id}.yaml").write_text(renamed(text, dag_id))
    (folder / "factory.py").write_text(FACTORY_LOADER)


def renamed(text: str, dag_id: str) -> str:
    """Returns a text about the golden as one about another DAG."""
    return text.replace(GOLDEN, dag_id).replace(GOLDEN.replace("_", "\\\\_"), dag_id)


def sample(contender: Contender, folder: Path, home: Path, count: int) -> dict:
    """Loads a folder in a process of its own, and verifies what was found."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DAGWRIGHT"))}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": str(ROOT / "deploy/airflow/src"),
    }
    if contender.wanted:
        environment["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = contender.wanted
    done = subprocess.run(
        [TOOLS / "dagbag/bin/python", "-c", CHILD, folder],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"{contender.tool}: exit {done.returncode}\n{done.stderr[-4000:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    dags = 1 if contender.wanted else count
    if seen["errors"] or seen["unreadable"] or seen["found"] != [dags, dags * TASKS, dags * EDGES]:
        sys.exit(f"{contender.tool}: {seen} instead of {dags} DAGs\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seen


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--dags", type=int, default=1000)
    options = parser.parse_args()
    dag_ids = [f"flights_{index:05}" for index in range(options.dags)]
    contenders = [
        Contender("hand-written files", by_hand),
        Contender("Dagwright, layout `file`", as_files),
        Contender("Dagwright, layout `loader`", as_loader),
        Contender("dag-factory 1.1.0", as_yaml),
        Contender("Dagwright, layout `loader`, for one task", as_loader, wanted=dag_ids[-1]),
    ]
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as work:
        folders = [Path(work) / str(index) for index in range(len(contenders))]
        for contender, folder in zip(contenders, folders, strict=True):
            folder.mkdir()
            contender.write(folder, dag_ids)
        for run in range(options.runs + 1):  # The first round warms the caches and is thrown away.
            for contender, folder in zip(contenders, folders, strict=True):
                seen = sample(contender, folder, Path(work) / "home", options.dags)
                if run:
                    contender.seconds.append(seen["seconds"])
                    contender.mib.append(seen["mib"])
                print(f"run {run}: {contender.tool}: {seen['seconds']:.2f} s", file=sys.stderr)
    peer = statistics.median(contenders[0].seconds)
    print(
        f"| {options.dags:,} DAGs of {TASKS} tasks, Airflow 3.3.2 | s | × hand-written | peak MiB |\n|---|---|---|---|"
    )
    for contender in contenders:
        seconds = statistics.median(contender.seconds)
        print(f"| {contender.tool} | {seconds:.2f} | {seconds / peer:.2f} | {max(contender.mib):.0f} |")
    print(f"\nMedians of {options.runs}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}.")


if __name__ == "__main__":
    main()
