from urllib.parse import urlsplit

import pytest

from dagwright_airflow import connections


def test_the_workers_environment_wins(monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_CONN_WAREHOUSE", "postgresql://me:pw@db/warehouse")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://other/other")
    child = connections.environment(["warehouse"])
    assert child["DAGWRIGHT_CONN_WAREHOUSE"] == "postgresql://me:pw@db/warehouse"


def test_airflow_connections_become_urls(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE", "postgres://m%40e:p%2Fw%3A@db.example.org:6543/ware%20house?sslmode=require"
    )
    url = urlsplit(connections.environment(["warehouse"])["DAGWRIGHT_CONN_WAREHOUSE"])
    assert url.geturl() == "postgresql://m%40e:p%2Fw%3A@db.example.org:6543/ware%20house?sslmode=require"


def test_a_task_sees_no_secret_of_others(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "k")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "postgres://o/o")
    monkeypatch.setenv("AIRFLOW_VAR_TOKEN", "t")
    monkeypatch.setenv("DAGWRIGHT_CONN_OTHER", "postgresql://o/o")
    monkeypatch.setenv("DAGWRIGHT_MASK_KEY", "m")
    child = connections.environment([])
    assert not [
        key for key in child if key.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "DAGWRIGHT_CONN_"))
    ]
    assert child["DAGWRIGHT_MASK_KEY"] == "m"
    assert child["PATH"]


def test_a_missing_connection_is_named(database):
    with pytest.raises(connections.ConnectionMissingError, match="DAGWRIGHT_CONN_NOWHERE"):
        connections.environment(["nowhere"])
