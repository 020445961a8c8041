"""The DAG that asks people: there where Airflow can ask, and nowhere else."""

from airflows import dag_bag, serialization
from conftest import AIRFLOW

from dagwright_airflow.approvals import asking, can_ask

CAN_ASK = AIRFLOW >= (3, 1)

# As crates/compiler, `approvals()`, writes it.
FILE = '''"""Compiled by Dagwright: a DAG that asks people whether plans may run, a run for each question."""

from dagwright_airflow.approvals import asking

dag = asking(__file__)
'''


def test_airflow_finds_it_where_it_can_ask(tmp_path):
    (tmp_path / "dagwright_approvals.py").write_text(FILE)
    bag = dag_bag(tmp_path)
    assert not bag.import_errors
    assert list(bag.dags) == (["dagwright_approvals"] if CAN_ASK else [])
    if CAN_ASK:
        dag = bag.dags["dagwright_approvals"]
        assert dag.fileloc == str(tmp_path / "dagwright_approvals.py")
        assert [task.task_id for task in dag.tasks] == ["approve"]
        kept = serialization().to_dict(dag) if hasattr(serialization(), "to_dict") else None
        assert kept is None or "dagwright_approvals" in str(kept)


def test_an_airflow_that_cannot_ask_has_no_such_dag(tmp_path):
    assert can_ask() is CAN_ASK
    assert (asking(tmp_path / "x.py") is not None) is CAN_ASK
