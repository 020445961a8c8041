"""Who is told what of runs that went wrong."""

import asyncio
import base64
import json
import logging
import sys
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace

import pytest
from airflows import dag_bag
from conftest import AIRFLOW, DAGS
from receivers import Mailbox, Webhook

from dagwright_airflow import alerts, channels, notice
from dagwright_airflow.alerts import DagwrightNotifier, deadline_missed
from dagwright_airflow.notice import FailedTask, Notice

HAS_DEADLINES = AIRFLOW >= (3, 1)

FAILED = Notice(
    kind=notice.RUN_FAILED,
    dag_id="aviation.flights",
    run_id="manual__1",
    reason="task_failure",
    failed=(FailedTask("load_sink", code="DW0401"), FailedTask("parts", 2)),
    failed_more=1,
    url="https://dagwright.example.org/api/v1/requests/r1/explain",
)


@pytest.fixture
def webhook():
    with Webhook() as webhook:
        yield webhook


def connect(monkeypatch, name, **connection):
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


def complaints(caplog):
    ours = [record for record in caplog.records if record.name.startswith("dagwright_airflow.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.ERROR]


# === what is told ===


def failed_context(monkeypatch, instances, codes, **run):
    """Return the context of a failed run, and have this Airflow know its task instances and the codes they left."""
    dag_run = SimpleNamespace(**{"dag_id": "aviation.flights", "run_id": "manual__1", "conf": {}, **run})
    task_ids = {task_id for task_id, _, _ in instances}
    dag = SimpleNamespace(dag_id=dag_run.dag_id, task_ids=task_ids)

    def get_one(*, key, dag_id, run_id, task_id, map_index):
        assert (key, dag_id, run_id) == ("dagwright_code", dag_run.dag_id, dag_run.run_id)
        return codes.get((task_id, map_index))

    if AIRFLOW == (2, 11):
        from airflow.models.xcom import XCom

        monkeypatch.setattr(XCom, "get_one", get_one)
        found = [SimpleNamespace(task_id=task, map_index=index, state=state) for task, index, state in instances]
        dag_run.get_task_instances = lambda: found
    elif HAS_DEADLINES:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from airflow.sdk.execution_time.xcom import XCom

        def get_task_states(*, dag_id, run_ids):
            assert (dag_id, run_ids) == (dag_run.dag_id, [dag_run.run_id])
            named = {task if index < 0 else f"{task}_{index}": state for task, index, state in instances}
            return {dag_run.run_id: named}

        monkeypatch.setattr(XCom, "get_one", get_one)
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    last = next(iter(instances), None)
    ti = last and SimpleNamespace(task_id=last[0], map_index=last[1], state=last[2])
    return {"dag_run": dag_run, "dag": dag, "ti": ti, "reason": "task_failure"}


def test_a_failure_is_told_by_names_codes_and_a_link(monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_URL", "https://dagwright.example.org")
    instances = [
        ("load_sink", -1, "failed"),
        ("extract", -1, "success"),
        ("parts", 10, "failed"),
        ("x_1", -1, "failed"),
    ]
    codes = {("load_sink", -1): "DW0401", ("parts", 10): "not a code: 4111 1111 1111 1111"}
    conf = {"dagwright_request_id": "r1", "email": "somebody@example.org"}
    told = notice.of_failure(failed_context(monkeypatch, instances, codes, conf=conf))
    # 3.0 lets callbacks know of one task alone.
    known = ["load_sink"] if AIRFLOW == (3, 0) else ["load_sink (DW0401)", "parts[10]", "x_1"]
    assert [str(task) for task in told.failed] == known
    assert told.url == "https://dagwright.example.org/api/v1/requests/r1/explain"
    assert told.text.splitlines() == [
        "aviation.flights: run manual__1 failed",
        f"Failed: {', '.join(known)}.",
        told.url,
    ]
    assert "example.org" not in told.text.replace("dagwright.example.org", "")
    assert "4111" not in json.dumps(told.document())


def test_few_of_many_are_named(monkeypatch):
    context = failed_context(monkeypatch, [("parts", index, "failed") for index in range(1000)], {})
    told = notice.of_failure(context)
    if AIRFLOW == (3, 0):
        assert (len(told.failed), told.failed_more) == (1, 0)
    else:
        assert (len(told.failed), told.failed_more) == (20, 980)
        assert "parts[19] and 980 more." in told.text


def test_what_cannot_be_found_out_is_left_out(monkeypatch):
    context = failed_context(monkeypatch, [("load_sink", -1, "failed")], {})
    context["dag_run"].get_task_instances = lambda: 1 / 0
    assert notice.of_failure(context).failed == ()
    # As where a run failed without a task.
    bare = notice.of_failure({"dag": context["dag"], "run_id": "manual__2", "reason": "all_tasks_deadlocked"})
    assert (bare.dag_id, bare.run_id, bare.reason) == ("aviation.flights", "manual__2", "all_tasks_deadlocked")


def test_names_are_only_names(monkeypatch):
    monkeypatch.setenv("DAGWRIGHT_URL", "https://dagwright.example.org")
    context = failed_context(
        monkeypatch, [], {}, run_id="a\r\nBcc: x@y\x1b[2J{{ 7*7 }}", conf={"dagwright_request_id": 1}
    )
    told = notice.of_failure(context)
    assert told.run_id == "a Bcc: x@y [2J{{ 7*7 }}"
    assert told.url == "https://dagwright.example.org/api/v1/pipelines/aviation.flights"


def test_a_task_leaves_its_code():
    assert notice.code_of(ValueError("DW0401: no route (sink)")) == "DW0401"
    assert notice.code_of(ValueError("the value DW0401: x")) is None


# === who is told ===


def test_those_of_deadlines_are_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(channels, "tell", lambda connections, it: told.append((connections, it.reason)))
    notifier = DagwrightNotifier(on_failure=["a", "b"], on_deadline=["b", "c"])
    notifier({"run_id": "r", "reason": "task_failure"})
    notifier({"run_id": "r", "reason": "timed_out"})
    # Where Airflow has deadlines, these tell them.
    at_the_end = ["a", "b"] if HAS_DEADLINES else ["a", "b", "c"]
    assert told == [(["a", "b"], "task_failure"), (at_the_end, "timed_out")]
    DagwrightNotifier(on_deadline=["c"])({"run_id": "r", "reason": "task_failure"})
    assert len(told) == 2, "nobody waits for failures"


def test_compiled_dags_tell():
    dag = dag_bag(DAGS).dags["aviation.flights_daily"]
    callbacks = dag.on_failure_callback
    (notifier,) = callbacks if isinstance(callbacks, list) else [callbacks]
    assert (notifier.on_failure, notifier.on_deadline) == (["ops_slack", "ops-mail"], ["ops-mail"])
    assert alerts.knows_deadlines() is HAS_DEADLINES
    if HAS_DEADLINES:
        (deadline,) = dag.deadline
        assert deadline.interval == dag.dagrun_timeout
        assert deadline.callback.path == "dagwright_airflow.alerts.deadline_missed"
        assert deadline.callback.kwargs == {"connections": ["ops-mail"]}
        assert type(deadline.reference).__name__ == "DagRunQueuedAtDeadline"
    else:
        assert dag.dagrun_timeout.total_seconds() == 5400
        assert getattr(dag, "deadline", None) is None


def test_a_missed_deadline_is_told(monkeypatch, webhook):
    connect(monkeypatch, "ops", conn_type="http", host=webhook.url)
    due = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    context = {
        "dag_run": {"dag_id": "aviation.flights", "dag_run_id": "manual__1", "state": "running", "conf": {"a": "b"}},
        "deadline": {"id": "0198", "deadline_time": due},
    }
    asyncio.run(deadline_missed(connections=["ops"], context=context))
    (told,) = webhook.bodies()
    assert (told["kind"], told["state"], told["deadline"]) == ("deadline_missed", "running", "2026-01-02T03:04:05Z")
    assert told["text"].splitlines() == [
        "aviation.flights: run manual__1 missed its deadline",
        "It should have been done by 2026-01-02T03:04:05Z; it is running.",
    ]
    # As from an Airflow that says nothing.
    asyncio.run(deadline_missed(connections=["ops"]))
    assert webhook.bodies()[1]["kind"] == "deadline_missed"


# === how ===


def test_a_webhook_gets_all_of_it(monkeypatch, webhook):
    extra = {"endpoint": "/hook?team=data", "X-Team": "data", "timeout": "5", "headers": {"x-more": 1}}
    connect(monkeypatch, "ops", conn_type="http", host=webhook.url, login="me", password="of-webhook", extra=extra)
    channels.tell(["ops"], FAILED)
    ((path, headers, body),) = webhook.posts
    assert path == "/hook?team=data"
    assert headers["authorization"] == f"Basic {base64.b64encode(b'me:of-webhook').decode()}"
    assert (headers["x-team"], headers["x-more"], headers["content-type"]) == ("data", "1", "application/json")
    assert "timeout" not in headers
    assert json.loads(body) == {
        "version": 1,
        "kind": "run_failed",
        "pipeline": "aviation.flights",
        "dag_run_id": "manual__1",
        "reason": "task_failure",
        "state": None,
        "deadline": None,
        "failed_tasks": [
            {"task_id": "load_sink", "map_index": -1, "error": {"code": "DW0401"}},
            {"task_id": "parts", "map_index": 2, "error": {"code": None}},
        ],
        "failed_tasks_more": 1,
        "explain_url": FAILED.url,
        "text": FAILED.text,
    }


@pytest.mark.parametrize(
    ("connection", "path"),
    [
        ({"host": "127.0.0.1"}, "/"),
        ({"host": "127.0.0.1", "schema": "http"}, "/"),
        ({"host": "127.0.0.1", "schema": "services/x"}, "/services/x"),
        ({"host": "127.0.0.1", "schema": "http", "extra": {"endpoint": "a/b"}}, "/a/b"),
    ],
)
def test_a_webhook_is_found_as_airflow_writes_connections(monkeypatch, webhook, connection, path):
    connect(monkeypatch, "ops", conn_type="http", port=webhook.port, **connection)
    channels.tell(["ops"], FAILED)
    assert [post[0] for post in webhook.posts] == [path]


def test_a_mail_is_sent(monkeypatch):
    with Mailbox() as mailbox:
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org", "to": "ops@example.org"}
        connect(monkeypatch, "mail", conn_type="smtp", host="127.0.0.1", port=mailbox.port, extra=extra)
        hostile = Notice(kind=notice.RUN_FAILED, dag_id="d", run_id="<b>{{ 7*7 }}</b>")
        channels.tell(["mail"], hostile)
    ((receivers, message),) = mailbox.mails
    assert receivers == ["ops@example.org"]
    assert message["subject"] == "d: run <b>{{ 7*7 }}</b> failed"
    parts = [part.get_payload(decode=True).decode() for part in message.walk() if not part.is_multipart()]
    assert "&lt;b&gt;{{ 7*7 }}&lt;/b&gt;" in parts[0]


def provider(monkeypatch, package, module, name):
    """Stand in for a provider that is not installed; returns what its notifier was made with, once it notified."""
    sent = []

    class Notifier:
        def __init__(self, **arguments):
            self.arguments = arguments

        def __call__(self, context):
            raise AssertionError("that renders templates")

        def notify(self, context):
            sent.append(self.arguments)

    for path in (package, f"{package}.notifications", f"{package}.notifications.{module}"):
        monkeypatch.setitem(sys.modules, f"airflow.providers.{path}", ModuleType(path))
    setattr(sys.modules[f"airflow.providers.{package}.notifications.{module}"], name, Notifier)
    return sent


def test_providers_are_told_in_their_words(monkeypatch):
    slack = provider(monkeypatch, "slack", "slack", "SlackNotifier")
    connect(monkeypatch, "slack", conn_type="slack", password="xoxb", extra={"channel": "#ops"})
    hostile = Notice(kind=notice.RUN_FAILED, dag_id="d", run_id="<!channel> & {{ 1 }}")
    channels.tell(["slack"], hostile)
    text = "d: run &lt;!channel&gt; &amp; {{ 1 }} failed"
    assert slack == [{"slack_conn_id": "slack", "channel": "#ops", "text": text}]

    webhook = provider(monkeypatch, "slack", "slack_webhook", "SlackWebhookNotifier")
    connect(monkeypatch, "hook", conn_type="slackwebhook", password="T/B/x")
    channels.tell(["hook"], hostile)
    assert webhook == [{"slack_webhook_conn_id": "hook", "text": text}]

    pagerduty = provider(monkeypatch, "pagerduty", "pagerduty", "PagerdutyNotifier")
    connect(monkeypatch, "pager", conn_type="pagerduty-events", password="integration-key")
    channels.tell(["pager"], FAILED)
    (sent,) = pagerduty
    assert (sent["pagerduty_events_conn_id"], sent["severity"]) == ("pager", "error")
    assert sent["dedup_key"] == "dagwright/run_failed/aviation.flights/manual__1"
    assert sent["custom_details"] == FAILED.document()

    opsgenie = provider(monkeypatch, "opsgenie", "opsgenie", "OpsgenieNotifier")
    connect(monkeypatch, "genie", conn_type="opsgenie", password="integration-key")
    channels.tell(["genie"], FAILED)
    (sent,) = opsgenie
    assert (sent["opsgenie_conn_id"], sent["payload"]["message"]) == ("genie", FAILED.summary)


def test_what_cannot_be_told_is_logged_and_harms_no_other(database, monkeypatch, caplog, webhook):
    connect(monkeypatch, "odd", conn_type="ftp", host="x")
    connect(monkeypatch, "slack", conn_type="slack", password="xoxb-secret")
    connect(monkeypatch, "mail", conn_type="smtp", host="127.0.0.1")
    connect(monkeypatch, "gone", conn_type="http", host="127.0.0.1", port=1, extra={"endpoint": "secret-token"})
    connect(monkeypatch, "bad", conn_type="http", host="http://[", extra={"endpoint": "secret-token"})
    connect(monkeypatch, "ops", conn_type="http", host=webhook.url)
    monkeypatch.setitem(sys.modules, "airflow.providers.slack", None)
    webhook.status = 503
    with caplog.at_level(logging.INFO, logger="dagwright_airflow.channels"):
        channels.tell(["nowhere", "odd", "slack", "mail", "gone", "bad", "ops"], FAILED)
    said = complaints(caplog)
    for complaint, wanted in zip(
        said,
        [
            "'nowhere' was not told (aviation.flights: run manual__1 failed): Airflow has no connection of that name",
            "no notifier is known for connections of type 'ftp'; known are email, http",
            "install apache-airflow-providers-slack",
            "its extras name no receivers",
            "it could not be reached (ConnectionRefusedError)",
            "its URL is not one",
            "it answered 503",
        ],
        strict=True,
    ):
        assert complaint.startswith("DW0930: ")
        assert wanted in complaint
    assert "secret" not in "".join(said)
    assert len(webhook.posts) == 1


def test_nothing_that_goes_wrong_reaches_airflow(monkeypatch, caplog):
    monkeypatch.setattr(channels, "tell", lambda *_: 1 / 0)
    DagwrightNotifier(on_failure=["a"])({"run_id": "r"})
    asyncio.run(deadline_missed(connections=["a"], context={}))
    assert [said.split(":")[0] for said in complaints(caplog)] == ["DW0930", "DW0930"]
