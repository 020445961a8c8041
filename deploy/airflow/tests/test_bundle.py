"""The bundle in the real Airflow 3; see conftest.py for 2.11."""

import json
import os
import shutil

import pytest
from airflows import bundle_bag, shown
from conftest import GOLDENS
from test_snapshots import publish, switch

from dagwright_airflow.bundle import DagwrightBundle
from dagwright_airflow.snapshots import SnapshotError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "storage"))
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def goldens(*dag_ids):
    """Return the compiler's files of some DAGs."""
    found = {path.name: path.read_text() for path in (GOLDENS / "airflow3").iterdir()}
    return {name: text for name, text in found.items() if name.startswith(tuple(f"{dag_id}." for dag_id in dag_ids))}


def bundle(root, version=None):
    return DagwrightBundle(name="dagwright", root=str(root), version=version)


def dags_of(found):
    bag = bundle_bag(found)
    assert not bag.import_errors
    return bag.dags


def test_dags_are_parsed_from_a_snapshot_and_after_a_switch(root):
    found = bundle(root)
    found.initialize()
    assert (shown(found), list(found.path.iterdir())) == (None, []), "nothing was deployed yet"
    first = publish(root, goldens("parts", "carriers"))
    switch(root, first)
    found.refresh()
    assert shown(found) == first
    assert set(dags_of(found)) == {"parts", "carriers"}
    second = publish(root, goldens("carriers", "hostile"))
    switch(root, second)
    assert shown(found) == first, "until it is refreshed"
    found.refresh()
    assert shown(found) == second
    assert set(dags_of(found)) == {"carriers", "hostile"}


def test_an_older_version_runs_with_its_own_plans(root, fake):
    first, second = publish(root, goldens("parts")), publish(root, goldens("carriers"))
    switch(root, second)
    worker = bundle(root, first)
    worker.initialize()
    assert shown(worker) == first
    dag = dags_of(worker)["parts"]
    assert dag.get_task("split_source").plan_path().parent == worker.path
    assert worker.path.name == first
    # Also once the daemon has removed it, as Airflow keeps the copy as long as it is in use.
    shutil.rmtree(root / first)
    again = bundle(root, first)
    again.initialize()
    assert set(dags_of(again)) == {"parts"}
    with pytest.raises(SnapshotError, match="never changes"):
        again.refresh()


def test_airflow_makes_it_from_its_configuration(root, monkeypatch):
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    version = publish(root, goldens("parts"))
    switch(root, version)
    config = [
        {
            "name": "dagwright",
            "classpath": "dagwright_airflow.bundle.DagwrightBundle",
            "kwargs": {"root": str(root), "refresh_interval": 30},
        }
    ]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(config))
    for wanted in (None, version):
        made = DagBundlesManager().get_bundle("dagwright", wanted)
        assert made.supports_versioning
        made.initialize()
        assert (shown(made), made.is_initialized) == (version, True)
        assert set(dags_of(made)) == {"parts"}


def test_airflow_removes_the_copies_that_were_not_used_for_long(root):
    from airflow.dag_processing.bundles import base

    version = publish(root, goldens("parts"))
    worker = bundle(root, version)
    worker.initialize()
    assert worker.path == base.get_bundle_version_path("dagwright", version)


def test_a_snapshot_that_was_changed_is_not_shown(root):
    first = publish(root, goldens("parts"))
    switch(root, first)
    found = bundle(root)
    found.initialize()
    second = publish(root, goldens("carriers"))
    (root / second / "carriers.py").write_text("import os; os.abort()")
    switch(root, second)
    with pytest.raises(SnapshotError, match="was changed"):
        found.refresh()
    assert shown(found) == first
    assert set(dags_of(found)) == {"parts"}
    with pytest.raises(SnapshotError, match="was changed"):
        bundle(root, second).initialize()


@pytest.mark.parametrize("version", ["../../x", "..", "x", "a" * 64 + "/.."])
def test_no_version_leads_out_of_the_folder(root, version):
    with pytest.raises(SnapshotError, match="no version"):
        bundle(root, version)
    with pytest.raises(SnapshotError, match="absolute"):
        DagwrightBundle(name="dagwright", root="relative")


def test_a_root_that_goes_away_takes_no_dag_away(root):
    switch(root, publish(root, goldens("parts")))
    found = bundle(root)
    found.initialize()
    root.rename(root.with_name("unmounted"))
    found.refresh()
    assert set(dags_of(found)) == {"parts"}


def test_files_that_are_queued_are_there_whatever_was_deployed_since(root):
    found = bundle(root)
    found.initialize()
    switch(root, publish(root, {**goldens("parts"), "a.py": "1"}))
    found.refresh()
    queued = found.path / "parts.py"
    for text in "23":
        switch(root, publish(root, {**goldens("parts"), "a.py": text}))
        found.refresh()
    assert queued.is_file()
    assert set(dags_of(found)) == {"parts"}


def test_followers_of_one_machine_share_a_folder(root):
    first, second = bundle(root), bundle(root)
    version = publish(root, goldens("parts"))
    switch(root, version)
    first.initialize()
    stat = (first.path / "parts.py").stat()
    second.initialize()
    assert (second.path, shown(second)) == (first.path, version)
    assert os.path.samestat(stat, (second.path / "parts.py").stat()), "nothing changed, nothing was copied"
