"""What stands in other places in each of Airflow's versions, for the tests.

Imported where it is called: nothing of Airflow may be before conftest.py has given it a home.
"""


def dag_bag(folder, **more):
    """Return the DAGs of a folder, as Airflow parses them."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # Before 3.2.
        from airflow.models.dagbag import DagBag

    return DagBag(str(folder), **more)


def bundle_bag(found):
    """Return the DAGs of a bundle (3.x)."""
    try:
        from airflow.dag_processing.dagbag import BundleDagBag
    except ImportError:  # Before 3.2.
        return dag_bag(found.path, bundle_path=found.path)

    return BundleDagBag(dag_folder=found.path, bundle_path=found.path, bundle_name=found.name)


def shown(found):
    """Return the version that a bundle shows, as Airflow reads it (3.x)."""
    try:
        from airflow.dag_processing.bundles.base import unpack_bundle_version
    except ImportError:  # Before 3.3 a version was its text.
        return found.get_current_version()
    return unpack_bundle_version(found.get_current_version(), found)[0]


def serialization():
    """Return the class that makes of a DAG what Airflow stores, and the reverse."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization
    except ImportError:  # Before 3.2.
        from airflow.serialization.serialized_objects import SerializedDAG

        return SerializedDAG
    return DagSerialization


def plugins():
    """Return the plugins that Airflow has loaded, and what went wrong."""
    from airflow import plugins_manager

    if hasattr(plugins_manager, "_get_plugins"):
        return plugins_manager._get_plugins()
    # Before 3.2.
    plugins_manager.ensure_plugins_loaded()
    return plugins_manager.plugins, plugins_manager.import_errors


def listener_managers():
    """Return what calls listeners, of the scheduler and of tasks; up to 3.1 it is one."""
    from airflow.listeners.listener import get_listener_manager

    try:
        from airflow.sdk.listener import get_listener_manager as of_tasks
    except ImportError:  # Before 3.2.
        return [get_listener_manager()]
    return [get_listener_manager(), of_tasks()]


def without_deadline(dag):
    """Take a DAG's deadline away, which `dag.test()` cannot do with: it leaves out the queue, and the database."""
    if getattr(dag, "deadline", None):
        dag.deadline = None
