"""What people are asked in Airflow's web interface (3.1 and later)."""

from types import SimpleNamespace

import pytest

from dagwright_airflow.compat import AirflowFailException
from dagwright_airflow.question import DagwrightApproval, question

CONF = {
    "dagwright_request_id": "r1",
    "dagwright_plan_hash": "ab" * 32,
    "dagwright_pipeline": "aviation.flights",
    "dagwright_schema_change": "additive",
}


def asked(**conf):
    return question(SimpleNamespace(dag_id="dagwright_approvals", run_id="approve__r1", conf={**CONF, **conf}))


def test_it_says_what_is_asked(monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_URL", "https://dagwright.example.org")
    subject, body = asked()
    assert subject == "May aviation.flights run plan abababababab?"
    assert body.split("\n\n") == [
        f"Pipeline `aviation.flights` waits with plan `{'ab' * 32}`.",
        "It adds columns to a sink.",
        "[What it does, and why](https://dagwright.example.org/api/v1/requests/r1/explain)",
        f"What is decided first stands: here, or with `dagwright approve {'ab' * 32}`.",
    ]


def test_it_says_what_drifted():
    assert (
        "It adds columns to a sink.\n\nWhat it reads or writes is no longer what it was"
        in asked(dagwright_drift="breaking")[1]
    )
    assert asked(dagwright_drift=None) == asked()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dagwright_pipeline", "flights`](https://evil.example.org)"),
        ("dagwright_pipeline", None),
        ("dagwright_plan_hash", "AB" * 32),
        ("dagwright_plan_hash", ["ab"]),
        ("dagwright_schema_change", "**everything**"),
        ("dagwright_schema_change", {}),
        ("dagwright_drift", ""),
        ("dagwright_drift", ["breaking"]),
        ("dagwright_request_id", "../../x"),
    ],
)
def test_whatever_else_is_no_question(monkeypatch, key, value):
    monkeypatch.setenv("DAGWRIGHT_URL", "https://dagwright.example.org")
    with pytest.raises(AirflowFailException, match=f"DW0120: {key}"):
        asked(**{key: value})


def test_the_task_asks_with_it(monkeypatch):
    from airflow.providers.standard.operators import hitl

    found = []
    monkeypatch.setattr(hitl.HITLOperator, "execute", lambda operator, _: found.append(operator))
    operator = DagwrightApproval(task_id="approve")
    run = SimpleNamespace(dag_id="dagwright_approvals", run_id="approve__r1", conf=CONF)
    DagwrightApproval.execute.__wrapped__(operator, {"dag_run": run})
    assert found == [operator]
    assert operator.subject == "May aviation.flights run plan abababababab?"
    assert tuple(operator.template_fields) == ()
    assert operator.options == ["Approve", "Reject"]
