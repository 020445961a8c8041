"""An Airflow of its own for the tests: a fresh home, SQLite, this package's plugin, the compiler's goldens as DAGs."""

import atexit
import json
import os
import shutil
import stat
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from fake_daemon import SECRET, Daemon

HERE = Path(__file__).parent
GOLDENS = HERE.parents[2] / "crates/compiler/tests/golden"
AIRFLOW = tuple(int(number) for number in version("apache-airflow").split(".")[:2])
AIRFLOW_MAJOR = AIRFLOW[0]

# 2.11 has no bundles, and asks nobody before 3.1; what they do instead stands in test_plugin.py and test_approvals.py.
collect_ignore = ([] if AIRFLOW_MAJOR == 3 else ["test_bundle.py"]) + (
    [] if AIRFLOW >= (3, 1) else ["test_question.py"]
)

# Before anything imports Airflow, which reads these once.
HOME = Path(tempfile.mkdtemp(prefix="dagwright-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
DAGS = HOME / "dags"
shutil.copytree(GOLDENS / f"airflow{AIRFLOW_MAJOR}", DAGS)
# As the entry point of the installed package does.
(HOME / "plugins").mkdir()
(HOME / "plugins" / "dagwright.py").write_text("from dagwright_airflow.plugin import DagwrightPlugin\n")
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
)
for name in [name for name in os.environ if name.startswith("DAGWRIGHT_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def database():
    """Airflow's database, for tests that run whole DAGs."""
    from airflow.utils import db

    db.initdb()
    if AIRFLOW == (3, 0):
        know(DAGS)


def know(folder):
    """Put a folder's DAGs into the database, as 3.0 wants to know their assets and more before `dag.test()`."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.dagbag import DagBag

    DagBundlesManager().sync_bundles_to_db()
    DagBag(str(folder)).sync_to_db("dags-folder", None)


@pytest.fixture
def daemon(monkeypatch, tmp_path):
    """A daemon that takes feedback, and the settings with which the listener finds it."""
    with Daemon() as daemon:
        monkeypatch.setenv("DAGWRIGHT_FEEDBACK_URL", daemon.url)
        monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SECRET", SECRET)
        monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SPOOL", str(tmp_path / "spool"))
        yield daemon
    # What still waits ends with its spool, before another daemon has the same port.
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """`dagwright-task` replaced by fake_task.py."""
    command = tmp_path / "dagwright-task"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -S {HERE / "fake_task.py"} "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return Fake(command, tmp_path / "record", monkeypatch)


class Fake:
    """What the fake is told, and what it was given."""

    def __init__(self, command, record, monkeypatch):
        self.command, self.record, self.monkeypatch = command, record, monkeypatch
        monkeypatch.setenv("DAGWRIGHT_TASK_COMMAND", str(command))
        monkeypatch.setenv("FAKE_RECORD", str(record))

    def plays(self, **script):
        """Set what it does next; see fake_task.py."""
        self.monkeypatch.setenv("FAKE_SCRIPT", json.dumps(script))

    def given(self):
        """Return what each start was given, in order."""
        return [json.loads(line) for line in self.record.read_text().splitlines()]
