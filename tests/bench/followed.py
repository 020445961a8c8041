"""Measures what it costs to follow thousands of runs, and how soon what Airflow tells is told on.

One pipeline has thousands of active runs in a stand-in for Airflow, which answers like one and counts what it is asked;
a real one would need more than this machine. The daemon adopts them all, over a real Kafka. Then, how much of a core it
needs and how often it asks while nothing happens; and how long it takes from an event of a task, posted by the listener
or written to Kafka by Airflow's event producer, until the daemon's own event can be read by a consumer, ledger and
outgoing event being one transaction.

Every run must be adopted, and every event told on, once; anything else ends the benchmark. Broker, daemon, stand-in and
this client share the machine.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from airflow import free_port, quantiles
from bench import TICKS
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from daemon import EVENTS, PATIENCE_S, Broker

PIPELINE = "followed"
PRODUCED = "airflow.events"
KEY = os.urandom(32)
SECRET = "whsec_" + base64.b64encode(KEY).decode()
QUIET_S = 60


def now() -> str:
    """Returns this instant as Airflow writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Handler(BaseHTTPRequestHandler):
    """Answers what the daemon asks of an Airflow 3 with one DAG and its runs."""

    protocol_version = "HTTP/1.1"
    dags: Path
    runs: ClassVar[list[dict]] = []
    asked = 0

    def do_GET(self) -> None:
        """Answers a question."""
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        match url.path.removeprefix("/").split("/")[2:]:
            case ["version"]:
                answer = {"version": "3.3.2"}
            case ["importErrors"]:
                answer = {"import_errors": [], "total_entries": 0}
            case ["dags"]:
                dags = [dag for name in ("dagwright_anchor", PIPELINE) if (dag := self.dag(name))]
                answer = {"dags": dags, "total_entries": len(dags)}
            case ["dags", name]:
                answer = self.dag(name)
            case ["dags", "~", "dagRuns"]:
                since = query.get("updated_at_gte", [""])[0].replace("+00:00", "Z")
                found = [run for run in self.runs if run["updated_at"] >= since]
                offset, limit = int(query["offset"][0]), int(query["limit"][0])
                answer = {"dag_runs": found[offset : offset + limit], "total_entries": len(found)}
            case ["dags", _, "dagRuns", name]:
                answer = next((run for run in self.runs if run["dag_run_id"] == urllib.parse.unquote(name)), None)
            case ["dags", _, "dagRuns", _, "taskInstances"]:
                answer = {"task_instances": [], "total_entries": 0}
            case ["asked"]:
                return self.answer({"asked": Handler.asked})
            case _:
                answer = None
        Handler.asked += 1
        return self.answer(answer)

    def do_PUT(self) -> None:
        """Takes the wish to parse."""
        self.answer(None, 201)

    def do_POST(self) -> None:
        """Lets runs begin: so many, each at an instant of its own."""
        count = int(self.rfile.read(int(self.headers["content-length"])))
        began = now()
        Handler.runs = [
            {
                "dag_id": PIPELINE,
                "dag_run_id": f"manual__{number}",
                "state": "running",
                "run_type": "manual",
                "conf": {},
                "start_date": began,
                "updated_at": began,
            }
            for number in range(count)
        ]
        self.answer({})

    def do_PATCH(self) -> None:
        """Takes a DAG's pause for changed."""
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(self.dag(PIPELINE))

    def dag(self, name: str) -> dict | None:
        """Returns a DAG that was deployed, with the plan that its file names."""
        plans = sorted(self.dags.glob(f"{name}.*.plan.json"), key=lambda path: path.stat().st_mtime)
        if not plans and not (self.dags / f"{name}.py").is_file():
            return None
        tags = [{"name": "dagwright"}] + [{"name": f"plan {plan.name.split('.')[-3]}"} for plan in plans[-1:]]
        shown = {"is_paused": False, "is_stale": False, "file_token": name, "bundle_name": "dags-folder"}
        return {"dag_id": name, "tags": tags, **shown}

    def answer(self, answer: dict | None, status: int = 200) -> None:
        """Sends an answer."""
        body = json.dumps({"detail": "not found"} if answer is None else answer).encode()
        self.send_response(404 if answer is None and status == 200 else status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def stand_in(port: int, dags: Path) -> None:
    """Answers until it is ended."""
    Handler.dags = dags
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def call(url: str, body: object = None) -> dict:
    """Asks over HTTP."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


class Daemon:
    """A running `dagwright serve` with Airflow as its engine, and Kafka."""

    def __init__(self, program: Path, work: Path, broker: Broker, airflow: str) -> None:
        self.port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "DAGWRIGHT__HTTP__LISTEN": f"127.0.0.1:{self.port}",
            "DAGWRIGHT__STORE__PATH": str(work / "store"),
            "DAGWRIGHT__URIS__ALLOW": f"{work}/**",
            "DAGWRIGHT__LOG__LEVEL": "warn",
            "DAGWRIGHT__BUS__KIND": "kafka",
            "DAGWRIGHT__KAFKA__BROKERS": broker.address,
            "DAGWRIGHT__ENGINE__KIND": "airflow",
            "DAGWRIGHT__AIRFLOW__URL": airflow,
            "DAGWRIGHT__AIRFLOW__TOKEN_ENV": "AIRFLOW_TOKEN",
            "AIRFLOW_TOKEN": "any",
            "DAGWRIGHT__AIRFLOW__DEPLOY__KIND": "folder",
            "DAGWRIGHT__AIRFLOW__DEPLOY__PATH": str(work / "dags"),
            "DAGWRIGHT__AIRFLOW__EVENTS__TOPIC": PRODUCED,
            "DAGWRIGHT__AIRFLOW__FEEDBACK__SECRET_ENV": "FEEDBACK_SECRET",
            "FEEDBACK_SECRET": SECRET,
        }
        self.process = subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        if "://" not in self.process.stdout.readline():
            sys.exit("the daemon does not start")
        self.url = f"http://127.0.0.1:{self.port}"

    def followed(self) -> int:
        """Returns how many runs it is at work on."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("dagwright_runs_open"))

    def cpu_s(self) -> float:
        """Returns the CPU time that it used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self) -> None:
        """Ends it and waits for that."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)


class Watcher(threading.Thread):
    """Reads the daemon's events, and knows when the start of a task of each run was told."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(daemon=True)
        settings = {"bootstrap.servers": broker.address, "group.id": "bench", "auto.offset.reset": "earliest"}
        self.consumer = Consumer(
            settings | {"isolation.level": "read_committed", "fetch.wait.max.ms": 5, "log_level": 0}
        )
        self.consumer.subscribe([EVENTS])
        self.told: dict[str, float] = {}
        self.repeated = 0
        self.start()

    def run(self) -> None:
        """Reads for as long as the process lives."""
        while True:
            message = self.consumer.poll(1)
            if message is None or message.error() or b"task.started.v1" not in message.value():
                continue
            run = json.loads(message.value())["data"]["dag_run_id"]
            self.repeated += run in self.told
            self.told[run] = time.monotonic()

    def lags(self, sent: dict[str, float]) -> list[float]:
        """Waits until all of these were told, and returns how long each took."""
        deadline = time.monotonic() + PATIENCE_S
        while missing := sent.keys() - self.told.keys():
            if time.monotonic() > deadline:
                sys.exit(f"{len(missing)} of {len(sent)} events were not told on")
            time.sleep(0.05)
        if self.repeated:
            sys.exit(f"{self.repeated} events were told twice")
        return [self.told[run] - at for run, at in sent.items()]


def post(daemon: Daemon, task: str, runs: list[str], rate: float) -> dict[str, float]:
    """Posts that a task of each run began, as the listener does; returns when each was posted."""
    connection, sent = HTTPConnection("127.0.0.1", daemon.port), {}
    for run in paced(runs, rate):
        event_id = hashlib.sha256(run.encode()).hexdigest()[:32]
        at = now()
        event = {
            "version": 1, "id": event_id, "at": at, "host": "worker", "airflow_version": "3.3.2",
            "kind": "task_instance",
            "dag_id": PIPELINE, "dag_run_id": run, "run_type": "manual", "logical_date": None, "data_interval": None,
            "run_after": at, "clear_number": 0, "request_id": None, "plan_hash": None, "bundle_version": None,
            "state": "running", "started_at": at, "ended_at": None, "task_id": task, "map_index": -1, "try_number": 1,
            "max_tries": 0, "task_instance_id": None, "error": None, "counts": None,
        }  # fmt: skip
        body, seconds = json.dumps(event).encode(), str(int(time.time()))
        digest = hmac.digest(KEY, f"{event_id}.{seconds}.".encode() + body, hashlib.sha256)
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": seconds,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        sent[run] = time.monotonic()
        connection.request("POST", "/api/v1/feedback", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            sys.exit(f"feedback was answered {answer.status}: {said!r}")
    return sent


def produce(broker: Broker, task: str, runs: list[str], rate: float) -> dict[str, float]:
    """Writes that a task of each run began, as Airflow's event producer does; returns when each was written."""
    producer, sent = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, "log_level": 0}), {}
    for run in paced(runs, rate):
        event = {
            "schema_version": 1, "source": "bench", "event": "task_instance.running", "timestamp": now(),
            "dag_id": PIPELINE, "task_id": task, "run_id": run, "try_number": 1, "map_index": -1,
            "previous_state": "TaskInstanceState.QUEUED",
        }  # fmt: skip
        sent[run] = time.monotonic()
        producer.produce(PRODUCED, json.dumps(event).encode(), f"{PIPELINE}/{run}")
        producer.poll(0)
    producer.flush()
    return sent


def paced(runs: list[str], rate: float) -> object:
    """Yields runs, so many a second."""
    began = time.monotonic()
    for number, run in enumerate(runs):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield run


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, help="the folder with dagwright and dagwright-task")
    parser.add_argument("--runs", type=int, default=5000, help="how many runs are active")
    parser.add_argument("--events", type=int, default=1000, help="how many events each way")
    parser.add_argument("--rate", type=float, default=100, help="how many events a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as folder:
        work = Path(folder)
        (work / "dags").mkdir()
        (work / "in.csv").write_text("id\n1\n")
        port = free_port()
        airflow = multiprocessing.Process(target=stand_in, args=(port, work / "dags"), daemon=True)
        airflow.start()
        at = f"http://127.0.0.1:{port}"
        broker = Broker(work / "kafka")
        try:
            admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
            admin.create_topics([NewTopic(PRODUCED, 2, 1)])[PRODUCED].result()
            daemon = Daemon(options.bin.resolve() / "dagwright", work, broker, at)
            try:
                measure(daemon, broker, at, work, options)
            finally:
                daemon.end()
        finally:
            broker.stop()
            airflow.kill()


def measure(daemon: Daemon, broker: Broker, airflow: str, work: Path, options: argparse.Namespace) -> None:
    """Measures, once everything runs."""
    watcher = Watcher(broker)
    spec = {
        "version": 1,
        "pipeline": PIPELINE,
        "source": {"uri": str(work / "in.csv")},
        "sink": {"uri": str(work / "out.parquet"), "mode": "replace"},
    }
    request = call(daemon.url + "/api/v1/requests", {"action": "apply", "spec": spec})["request_id"]
    deadline = time.monotonic() + PATIENCE_S
    while not (said := call(f"{daemon.url}/api/v1/requests/{request}"))["is_final"]:
        if time.monotonic() > deadline:
            sys.exit(f"the pipeline is not deployed: {said}")
        time.sleep(0.2)
    if said["state"] != "succeeded":
        sys.exit(f"the pipeline is not deployed: {said}")
    plan = json.loads(next((work / "dags").glob(f"{PIPELINE}.*.plan.json")).read_text())["plan"]
    task = plan["tasks"][0]["spec"]["id"]
    call(airflow + "/api/v2/runs", options.runs)
    began = time.monotonic()
    deadline = began + 10 * PATIENCE_S
    while (followed := daemon.followed()) < options.runs:
        if time.monotonic() > deadline:
            sys.exit(f"only {followed} of {options.runs} runs are followed")
        time.sleep(1)
    print(f"{options.runs} active runs, adopted in {time.monotonic() - began:.0f} s")
    # What was listed as new is over by then.
    time.sleep(100)
    cpu, asked, began = daemon.cpu_s(), call(airflow + "/api/v2/asked")["asked"], time.monotonic()
    time.sleep(QUIET_S)
    span = time.monotonic() - began
    rate = (call(airflow + "/api/v2/asked")["asked"] - asked) / span
    print(f"  quiet: {(daemon.cpu_s() - cpu) / span * 100:.1f} % of a core, {rate:.2f} questions a second to Airflow")
    runs = [f"manual__{number}" for number in range(options.runs)]
    some, others = runs[: options.events], runs[options.events : 2 * options.events]
    for way, send in (("HTTP", lambda: post(daemon, task, some, options.rate)),
                      ("Kafka", lambda: produce(broker, task, others, options.rate))):  # fmt: skip
        cpu, began = daemon.cpu_s(), time.monotonic()
        lags = watcher.lags(send())
        share = (daemon.cpu_s() - cpu) / (time.monotonic() - began)
        cost = f"at {options.rate:.0f} a second: {share * 100:.0f} % of a core"
        print(f"  event over {way:5} → outgoing event  {quantiles(lags)}, {cost}")


if __name__ == "__main__":
    main()
