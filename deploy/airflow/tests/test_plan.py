import hashlib
import json

import pytest
from conftest import GOLDENS

from dagwright_airflow import plan

PLANS = sorted((GOLDENS / "airflow3").glob("*.plan.json"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_sealed_plans_read(path):
    sealed = plan.read(path)
    assert path.name.endswith(f".{sealed.hash[:12]}.plan.json")
    for task in sealed.body["tasks"]:
        assert sealed.task(task["spec"]["id"]) == task["spec"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1.0,"b":1e300,"c":1e-7,"d":-0.0,"e":15.5,"f":18446744073709551615,"g":-9223372036854775808}',
        '["\\u0000\\b\\f\\n\\r\\t\\u001f\\"\\\\","\x7f é \u2028 🛫","/"]',
        '{"":null,"A":true,"a":false,"é":[],"🛫":{}}',
    ],
)
def test_canonical_json_is_written_as_it_stood(text):
    assert plan.dumps(plan.loads(text)) == text


def test_keys_are_sorted_by_code_point():
    # By UTF-16, as JavaScript sorts, the second would come first.
    assert plan.dumps({"\U0001f6eb": 1, "\uffee": 2}) == '{"\uffee":2,"\U0001f6eb":1}'


def sealed(tmp_path, body, *, seal=None, name=None):
    seal = seal or hashlib.sha256(plan.dumps(body).encode()).hexdigest()
    path = tmp_path / (name or f"x.{seal[:12]}.plan.json")
    path.write_text(json.dumps({"hash": seal, "plan": body}))
    return path


def test_changed_plans_are_refused(tmp_path):
    good = {"version": 1, "tasks": []}
    assert plan.read(sealed(tmp_path, good)).body == good
    digest = hashlib.sha256(plan.dumps(good).encode()).hexdigest()
    for path in [
        sealed(tmp_path, {**good, "owner": "me"}, seal=digest),
        sealed(tmp_path, good, name="x.000000000000.plan.json"),
        sealed(tmp_path, good, name="plan.json"),
        sealed(tmp_path, {**good, "version": 2}),
        tmp_path / "missing.000000000000.plan.json",
    ]:
        with pytest.raises(plan.PlanError):
            plan.read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"hash":1}',
        b'{"hash":"a","plan":NaN}',
        b"\xff",
        b"[" * 100_000,
        b'{"hash":"a","plan":"\\ud800"}',
    ],
)
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "x.000000000000.plan.json"
    path.write_bytes(content)
    with pytest.raises(plan.PlanError):
        plan.read(path)


def test_an_unknown_task_is_named():
    with pytest.raises(plan.PlanError, match="no task 'nope'"):
        plan.read(PLANS[0]).task("nope")
