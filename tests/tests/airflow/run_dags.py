"""Run the named DAGs of the configured folder with `dag.test()`; print states and counts as JSON on the last line."""

import json
import sys
from importlib.metadata import version

from airflow.configuration import conf
from airflow.utils import db

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Before 3.2.
    from airflow.models.dagbag import DagBag


def as_text(state):
    return str(getattr(state, "value", state))


def run(dag):
    for task in dag.tasks:
        # A failure ends the test at once; `dag.test()` would wait for the next try.
        if hasattr(task, "partial_kwargs"):
            task.partial_kwargs["retries"] = 0
        else:
            task.retries = 0
    dag_run = dag.test()
    instances = sorted(dag_run.get_task_instances(), key=lambda instance: (instance.task_id, instance.map_index))
    described = {"state": as_text(dag_run.state), "tasks": [], "instances": {}, "counts": {}}
    for instance in instances:
        task_id = instance.task_id
        described["tasks"].append([task_id, instance.map_index, as_text(instance.state)])
        described["instances"][task_id] = described["instances"].get(task_id, 0) + 1
        counts = instance.xcom_pull(task_ids=task_id, map_indexes=instance.map_index)
        described["counts"].setdefault(task_id, []).append(counts)
    return described


db.initdb()
bag = DagBag(conf.get("core", "dags_folder"))
if version("apache-airflow").startswith("3.0."):
    # There a run wants the assets of its tasks to be known.
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    bag.sync_to_db("dags-folder", None)
runs = {dag_id: run(bag.dags[dag_id]) for dag_id in sys.argv[1:]}
print()
print(json.dumps(runs))
