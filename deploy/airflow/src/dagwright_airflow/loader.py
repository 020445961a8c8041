"""Many DAGs of one file: `dagwright_loader.py`, which calls `load`.

Beside it are plan files and `dagwright_index.json`, `{"dags": {"<dag_id>": "<plan file>"}, "version": 1}`. All are
written by the daemon, the index last, and can be anything by the time they are read.

Airflow reads the file for every task, too; then it says which DAG it wants, and no other plan is read.

**A DAG is made once.** While a DAG has a compiled file of its own beside the loader, that file makes it, and the loader
does not: so a folder can be brought from one layout to the other file by file, and whatever of it is seen, no DAG is
there twice. Only for a task, which was queued while the loader made its DAG, the loader still does.

**A plan that cannot be read harms its DAG alone.** An exception would be the obvious way to say so, but Airflow knows
errors of files, not of DAGs: none of the file's DAGs would be there any more, and even an error that leaves the
others in place (as when Airflow refuses one of a file's DAGs) marks them all (`has_import_errors`), whereupon the
scheduler starts no run of any of them and the API refuses to trigger one. To leave the DAG out is no better: Airflow
takes it for removed, and nobody sees why. A line in a log is seen by nobody either. So a DAG stands in: it has the
same id, so history, links and alerts stay; the tag `dagwright-unreadable` finds all such, and beside it the plan's own
tag says which one cannot be read; its description says what is wrong, by which the daemon knows, and its documentation
what to do; it has no schedule, as nobody knows it; and its one task, `plan_unreadable`, fails with the
same words and a stable code. A run that is triggered, or that was under way, thereby fails as loudly as one whose
tasks find no plan. Where Airflow wants the DAG for the sake of a task that it has started already, the one task has
that id, so that the log has the reason too.

A bad index is another matter: nothing is known then, and Airflow's own import error says so, by which all DAGs stay
as they were.
"""

from __future__ import annotations

import gc
import json
import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagwright_airflow import blueprint, plan
from dagwright_airflow.authoring import DAG, get_parsing_context
from dagwright_airflow.calendar import midnight
from dagwright_airflow.operators import DagwrightUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX = "dagwright_index.json"
INDEX_VERSION = 1

# Ten times what one Airflow was ever seen to hold, at the longest names.
INDEX_BYTES_MAX = 64 * 1024 * 1024
DAGS_MAX = 100_000

# By which people and the daemon find the stand-ins.
TAG_UNREADABLE = "dagwright-unreadable"
TASK_UNREADABLE = "plan_unreadable"

_REASON_CHARS_MAX = 500

# As Airflow has DAG ids; and what the compiler makes of them.
_DAG_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")
_PLAN_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,220}\.[0-9a-f]{12}\.plan\.json")
_TASK_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

# What every compiled DAG file begins with, and nobody else's.
_COMPILED = b'"""Compiled by Dagwright from plan '

_log = logging.getLogger(__name__)


class IndexInvalidError(Exception):
    """An index that says nothing; the message says why."""


def load(file: str, namespace: dict[str, Any]) -> None:
    """Put the DAGs of the index beside `file` into a namespace, which are the globals of the DAG file.

    Raises:
        IndexInvalidError: there is no index, or it is none.

    """
    folder = Path(file).parent
    index = read_index(folder)
    context = get_parsing_context()
    wanted = _without_own_file(index, folder) if context.dag_id is None else index.keys() & {context.dag_id}
    with _no_collection():
        for dag_id in wanted:
            # A name that no Python source can have hides nothing.
            namespace[f"dag {dag_id}"] = _dag(dag_id, index[dag_id], file, context.task_id)


def read_index(folder: Path) -> dict[str, str]:
    """Return the plan file of each DAG, by id.

    Raises:
        IndexInvalidError: there is no index, or it is none.

    """
    try:
        document = json.loads(plan.read_file(folder / INDEX, INDEX_BYTES_MAX).decode("utf-8"))
        version, dags = document["version"], document["dags"]
    except plan.PlanError as error:
        raise IndexInvalidError(f"DW0120: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexInvalidError(f"DW0120: {INDEX} is no index of DAGs; deploy again") from error
    if version != INDEX_VERSION:
        raise IndexInvalidError(
            f"DW0120: {INDEX} has version {str(version)[:20]!r}, this package reads version {INDEX_VERSION}; install "
            "the dagwright-airflow that came with your Dagwright"
        )
    if not isinstance(dags, dict) or len(dags) > DAGS_MAX:
        raise IndexInvalidError(f"DW0120: {INDEX} is no index of DAGs; deploy again")
    for dag_id, plan_file in dags.items():
        if not _DAG_ID.fullmatch(dag_id) or not isinstance(plan_file, str) or not _PLAN_FILE.fullmatch(plan_file):
            raise IndexInvalidError(f"DW0120: {INDEX} has an entry that is none, {dag_id[:100]!r}; deploy again")
    return dags


def _without_own_file(index: dict[str, str], folder: Path) -> list[str]:
    """Return the DAGs that no compiled file beside the loader makes."""
    there = {path.name for path in folder.iterdir()}

    def has_own(plan_file: str) -> bool:
        name = f"{plan_file.rsplit('.', 3)[0]}.py"
        return name in there and _is_compiled(folder / name)

    return [dag_id for dag_id, plan_file in index.items() if not has_own(plan_file)]


def _is_compiled(path: Path) -> bool:
    try:
        # Opening a pipe would wait for a writer.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_COMPILED)) == _COMPILED
    except OSError:
        # It was removed meanwhile.
        return False


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let the garbage collector rest.

    What is made stays, and going through it again and again takes a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _dag(dag_id: str, plan_file: str, file: str, task_id: str | None) -> DAG:
    try:
        try:
            return _build(dag_id, plan_file, file)
        except plan.PlanError:
            # It may have been deployed anew since the index was read, and the plan before removed.
            newer = read_index(Path(file).parent).get(dag_id, plan_file)
            if newer == plan_file:
                raise
            return _build(dag_id, newer, file)
    except Exception as error:
        reason = _one_line(str(error) if isinstance(error, plan.PlanError | IndexInvalidError) else _told(error))
        _log.exception("the plan of DAG %s cannot be read", dag_id)
        return _stand_in(dag_id, plan_file, reason, file, task_id)


def _build(dag_id: str, plan_file: str, file: str) -> DAG:
    return blueprint.build(plan.read_dag(Path(file).with_name(plan_file)), dag_id, plan_file, file)


def _told(error: Exception) -> str:
    return f"Airflow does not take the DAG of the plan: {type(error).__name__}: {error}"


def _one_line(text: str) -> str:
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= _REASON_CHARS_MAX else f"{text[:_REASON_CHARS_MAX]}…"


def _stand_in(dag_id: str, plan_file: str, reason: str, file: str, task_id: str | None) -> DAG:
    dag = DAG(
        dag_id=dag_id,
        description=f"DW0120: {reason}",
        # Indented, what a reason quotes is no markup; and the text ends in no file's name, which Airflow would show.
        doc_md=(
            f"# The plan of this DAG cannot be read\n\n    DW0120: {reason}\n\n"
            "Its schedule rests, and each run fails, until the pipeline is deployed again. Other DAGs go on.\n"
        ),
        schedule=None,
        start_date=midnight("1970-01-01", "UTC"),
        catchup=False,
        max_active_runs=1,
        # A run that is triggered is to fail, not to wait.
        is_paused_upon_creation=False,
        tags=["dagwright", TAG_UNREADABLE, f"plan {plan_file.rsplit('.', 3)[1]}"],
    )
    dag.fileloc = file
    wanted = task_id if task_id is not None and _TASK_ID.fullmatch(task_id) else TASK_UNREADABLE
    DagwrightUnreadable(task_id=wanted, plan=plan_file, reason=reason, retries=0, dag=dag)
    return dag
