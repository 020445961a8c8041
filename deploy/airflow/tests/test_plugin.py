"""What Airflow makes of the package itself: plugin, provider, link."""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import airflow
import jsonschema
import pytest
import tomllib
from airflows import listener_managers, plugins
from conftest import AIRFLOW_MAJOR, HERE

from dagwright_airflow import DagwrightLoad, links, listener, provider, settings
from dagwright_airflow.bundle import DagwrightBundle
from dagwright_airflow.run import RunError
from dagwright_airflow.snapshots import SnapshotError

PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]


def test_airflow_loads_the_plugin():
    found, errors = plugins()
    assert not errors
    assert "dagwright" in [plugin.name for plugin in found]


def test_airflow_calls_the_listener():
    for manager in listener_managers():
        assert manager.pm.is_registered(listener)


def test_entry_points_lead_somewhere():
    for group in ("apache_airflow_provider", "airflow.plugins"):
        for path in PROJECT["entry-points"][group].values():
            module, name = path.split(":")
            assert callable(getattr(import_module(module), name))


def test_the_provider_is_as_airflow_wants_it():
    info = provider.get_provider_info()
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(info, schema)
    assert info["package-name"] == PROJECT["name"]
    assert info["versions"] == [PROJECT["version"]]
    for path in info["extra-links"]:
        module, name = path.rsplit(".", 1)
        assert issubclass(getattr(import_module(module), name), links.BaseOperatorLink)
    options = info["config"]["dagwright"]["options"]
    assert [name for name, option in options.items() if option["sensitive"]] == ["feedback_secret"]
    assert all(option["default"] is None for option in options.values())


def test_the_bundle_can_be_imported_anywhere():
    if AIRFLOW_MAJOR == 2:
        with pytest.raises(SnapshotError, match="Airflow 2 has no DAG bundles"):
            DagwrightBundle(name="dagwright", root="/x")
    else:
        assert DagwrightBundle(name="dagwright", root="/x").get_current_version() is None


# === the link ===


def run(conf=None, dag_id="aviation.flights"):
    return SimpleNamespace(dag_id=dag_id, run_id="manual__1", conf=conf)


def test_the_link_leads_to_the_request_or_the_pipeline(monkeypatch):
    assert links.explain_url(run()) is None
    monkeypatch.setenv("DAGWRIGHT_URL", "https://dagwright.example.org/base/")
    base = "https://dagwright.example.org/base/api/v1"
    assert links.explain_url(run({"dagwright_request_id": "0198-a:b"})) == f"{base}/requests/0198-a%3Ab/explain"
    assert links.explain_url(run()) == f"{base}/pipelines/aviation.flights"
    assert links.explain_url(run(dag_id="../x?y")) == f"{base}/pipelines/..%2Fx%3Fy"
    with pytest.raises(RunError):
        links.explain_url(run({"dagwright_request_id": "../../x"}))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//x", "x", "http://me:pw@x", "http://[", "data:text/html,x"])
def test_the_link_leads_nowhere_else(monkeypatch, url):
    monkeypatch.setenv("DAGWRIGHT_URL", url)
    assert links.explain_url(run()) is None
    operator = DagwrightLoad(task_id="t", plan="p")
    operator.explain_url = url
    assert links.DagwrightLink().get_link(operator, ti_key=None) == ""


def test_a_variable_cannot_choose_where_links_and_events_go(monkeypatch):
    for name in ("URL", "FEEDBACK_URL", "FEEDBACK_SECRET", "FEEDBACK_SPOOL"):
        monkeypatch.setenv(f"AIRFLOW_VAR_DAGWRIGHT_{name}", "https://evil.example.org")
    assert links.explain_url(run()) is None
    assert settings.feedback() is None


def test_operators_have_the_link():
    (link,) = DagwrightLoad(task_id="t", plan="p").operator_extra_links
    assert (link.name, link.xcom_key) == ("Dagwright", "dagwright_explain")
    assert link.get_link(DagwrightLoad(task_id="t", plan="p"), ti_key=None) == ""
