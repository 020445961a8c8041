"""Import a DAG folder and print, as JSON on the last line, what Airflow made of it.

Timetables are those of the serialized DAG, which is what a scheduler sees.
"""

import json
import sys
from datetime import UTC, datetime

import pendulum

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Before 3.2.
    from airflow.models.dagbag import DagBag

try:
    from airflow.serialization.serialized_objects import DagSerialization

    def scheduled(dag):
        return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
except ImportError:  # Before 3.2.
    from airflow.serialization.serialized_objects import SerializedDAG

    def scheduled(dag):
        return SerializedDAG.from_dict(SerializedDAG.to_dict(dag))


def describe(dag):
    timetable = scheduled(dag).timetable
    cron = timetable.serialize() if type(timetable).__name__ == "CronDataIntervalTimetable" else {}
    return {
        "tasks": {task.task_id: describe_task(task) for task in dag.tasks},
        "cron": cron.get("expression"),
        "timezone": cron.get("timezone"),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "start_date": dag.start_date.astimezone(UTC).isoformat(),
        "params": sorted(dag.params),
        "intervals": intervals(timetable) if cron else [],
        "cleared_with": {
            task.task_id: sorted(
                dag.partial_subset([task.task_id], include_downstream=True, include_upstream=False).task_ids
            )
            for task in dag.tasks
        },
    }


def describe_task(task):
    mapped = hasattr(task, "partial_kwargs")
    return {
        "operator": task.operator_class.__name__ if mapped else type(task).__name__,
        "upstream": sorted(task.upstream_task_ids),
        "mapped": mapped,
        "teardown": task.is_teardown,
        "retries": task.retries,
        "pool": task.pool,
        "priority_weight": task.priority_weight,
        "timeout_seconds": int(task.execution_timeout.total_seconds()),
        "template_fields": list(task.template_fields),
    }


def intervals(timetable):
    """Return the intervals of three nights in a row, as a manual run right after each would infer them."""
    found = []
    for day in (29, 30, 31):
        interval = timetable.infer_manual_data_interval(run_after=pendulum.datetime(2025, 3, day, 12))
        found.append([as_text(interval.start), as_text(interval.end)])
    return found


def as_text(instant):
    return datetime.fromtimestamp(instant.timestamp(), UTC).isoformat()


bag = DagBag(sys.argv[1])
print()
print(
    json.dumps(
        {
            "import_errors": {str(path): error for path, error in bag.import_errors.items()},
            "dags": {dag_id: describe(dag) for dag_id, dag in bag.dags.items()},
        }
    )
)
