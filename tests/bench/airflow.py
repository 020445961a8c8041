"""Measures the daemon with a real Airflow 3.3.2 on PostgreSQL, at Airflow's own refresh settings.

How long it takes from a request for a new pipeline, over HTTP, until Airflow has its run: negotiated, compiled, written
into the versioned bundle, parsed, shown and triggered. And how long after the end of a task, by Airflow's clock,
that is in the daemon's ledger. At one deployed pipeline, and at a thousand.

Every request must end as a run that succeeded, with its rows loaded; anything else ends the benchmark. Airflow, its
database, daemon and this client share the machine.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime
from functools import partial
from pathlib import Path

from bench import ROOT, TOOLS

VERSION = "3.3.2"
PATIENCE_S = 900
ROWS = 100
SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()


class Airflow:
    """A throwaway Airflow with package `dagwright-airflow`, whose DAGs come from a bundle."""

    def __init__(self, work: Path, variables: dict[str, str]) -> None:
        self.folder, self.postgres = work / "airflow", work / "postgres"
        owner = str(os.getpid())
        tools = ROOT / "tests/scripts/tools.sh"
        package = work / "package"
        subprocess.run([tools, "airflow", VERSION], check=True)
        subprocess.run([tools, "package", package], check=True)
        database = self._script("postgres.sh", "start", self.postgres, owner)
        environment = os.environ | variables | {"PYTHONPATH": str(package), "DAGWRIGHT_TOOLS": str(TOOLS)}
        started = json.loads(
            self._script("airflow.sh", "start", self.folder, VERSION, database, owner, env=environment)
        )
        self.url, self.password = started["url"], started["password"]
        self.token = ""

    def _script(self, name: str, *arguments: object, env: dict[str, str] | None = None) -> str:
        command = [ROOT / "tests/scripts" / name, *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.strip()

    def get(self, path: str) -> dict | None:
        """Asks Airflow; None where there is no such thing."""
        for _ in range(2):
            request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401:
                    raise
            body = json.dumps({"username": "admin", "password": self.password}).encode()
            ask = urllib.request.Request(self.url + "/auth/token", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(ask, timeout=30) as answer:
                self.token = json.load(answer)["access_token"]
        sys.exit("Airflow does not accept its own token")

    def stop(self) -> None:
        """Stops it, with its database."""
        self._script("airflow.sh", "stop", self.folder)
        self._script("postgres.sh", "stop", self.postgres)


class Daemon:
    """A running `dagwright serve` whose engine is an Airflow."""

    def __init__(self, program: Path, port: int, variables: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        environment = {"PATH": os.environ["PATH"], "DAGWRIGHT__LOG__LEVEL": "warn"} | variables
        self.process = subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        if "://" not in self.process.stdout.readline():
            sys.exit("the daemon does not start")

    def call(self, path: str, body: object = None) -> dict:
        """Asks over HTTP."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as answer:
            return json.load(answer)

    def cpu_s(self) -> float:
        """Returns the CPU time that it used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends it and waits for that."""
        self.process.terminate()
        self.process.wait(60)


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def spec(work: Path, pipeline: str) -> dict:
    """Returns a pipeline that copies a file."""
    source, sink = work / "in.csv", work / f"out/{pipeline}.parquet"
    return {
        "version": 1,
        "pipeline": pipeline,
        "source": {"uri": str(source)},
        "sink": {"uri": str(sink), "mode": "replace"},
    }


def wait(what: str, look: object, pause_s: float = 0.02) -> object:
    """Looks until something is found."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(pause_s)
    sys.exit(f"waited in vain for {what}")


def deploy(daemon: Daemon, work: Path, names: list[str]) -> float:
    """Applies pipelines, none of which runs; returns how long that took."""
    began = time.monotonic()
    ids = [
        daemon.call("/api/v1/requests", {"action": "apply", "spec": spec(work, name)})["request_id"] for name in names
    ]
    for request in ids:
        state = wait(f"request {request}", partial(final, daemon, request), 0.2)
        if state != "succeeded":
            sys.exit(f"request {request} {state}: {daemon.call(f'/api/v1/requests/{request}')}")
    return time.monotonic() - began


def final(daemon: Daemon, request: str) -> str | None:
    """Returns how a request ended, once it did."""
    state = daemon.call(f"/api/v1/requests/{request}")["state"]
    return state if state in ("succeeded", "failed", "deadlocked", "cancelled") else None


def measure(daemon: Daemon, airflow: Airflow, work: Path, names: list[str]) -> tuple[list[float], list[float]]:
    """Asks for new pipelines, one by one; returns seconds until Airflow has each run, and lags of task events."""
    triggered, lags = [], []
    for name in names:
        began = time.monotonic()
        request = daemon.call("/api/v1/requests", {"spec": spec(work, name)})["request_id"]
        path = f"/api/v2/dags/{name}/dagRuns/dagwright__{request}"
        wait(f"the run of {name}", partial(airflow.get, path))
        triggered.append(time.monotonic() - began)
        if (state := wait(f"the end of {name}", partial(final, daemon, request), 0.2)) != "succeeded":
            sys.exit(f"{name} {state}: {daemon.call(f'/api/v1/requests/{request}')}")
        run = daemon.call(f"/api/v1/runs/{request}")
        if run["rows"]["loaded"] != ROWS:
            sys.exit(f"{name} loaded {run['rows']}")
        ended = {task["task_id"]: task["end_date"] for task in airflow.get(path + "/taskInstances")["task_instances"]}
        lags.extend(
            (instant(task["ended_at"]) - instant(ended[task["task_id"]])).total_seconds()
            for task in run["particulars"]["tasks"]
        )
    return triggered, lags


def instant(text: str) -> datetime:
    """Reads an instant."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def quantiles(values: list[float]) -> str:
    """Returns p50, p99 (the highest, of few) and the highest."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):6.3f} s, p99 {high:6.3f} s, n = {len(ordered)}"


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, help="the folder with dagwright and dagwright-task")
    parser.add_argument("--pipelines", type=int, default=1000, help="how many are deployed for the second measurement")
    parser.add_argument("--requests", type=int, default=30, help="how many are measured each time")
    parser.add_argument("--layout", default="auto", help="airflow.deploy.layout")
    options = parser.parse_args()
    binaries = options.bin.resolve()
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        (work / "out").mkdir()
        (work / "in.csv").write_text("id,text\n" + "".join(f"{row},row {row}\n" for row in range(ROWS)))
        port, bundle = free_port(), work / "bundle"
        bundle.mkdir()
        bundles = [
            {
                "name": "dagwright",
                "classpath": "dagwright_airflow.bundle.DagwrightBundle",
                "kwargs": {"root": str(bundle)},
            }
        ]
        daemon_variables = {
            "DAGWRIGHT__HTTP__LISTEN": f"127.0.0.1:{port}",
            "DAGWRIGHT__STORE__PATH": str(work / "store"),
            "DAGWRIGHT__URIS__ALLOW": f"{work}/**",
            "DAGWRIGHT__ENGINE__KIND": "airflow",
            "DAGWRIGHT__AIRFLOW__URL": "http://127.0.0.1:9",
            "DAGWRIGHT__AIRFLOW__DEPLOY__KIND": "bundle",
            "DAGWRIGHT__AIRFLOW__DEPLOY__PATH": str(bundle),
            "DAGWRIGHT__AIRFLOW__DEPLOY__LAYOUT": options.layout,
            "DAGWRIGHT__AIRFLOW__FEEDBACK__SECRET_ENV": "FEEDBACK_SECRET",
            "FEEDBACK_SECRET": SECRET,
        }
        # The anchor is there before Airflow starts, as it is on all but the first day.
        early = Daemon(binaries / "dagwright", port, daemon_variables)
        wait("the anchor", (bundle / "CURRENT").is_file)
        early.end()
        airflow = Airflow(
            work,
            {
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(work / "bundles"),
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
                "DAGWRIGHT_TASK_COMMAND": str(binaries / "dagwright-task"),
                "DAGWRIGHT_FEEDBACK_URL": f"http://127.0.0.1:{port}",
                "DAGWRIGHT_FEEDBACK_SECRET": SECRET,
            },
        )
        daemon_variables |= {
            "DAGWRIGHT__AIRFLOW__URL": airflow.url,
            "DAGWRIGHT__AIRFLOW__USERNAME": "admin",
            "DAGWRIGHT__AIRFLOW__PASSWORD_ENV": "AIRFLOW_PASSWORD",
            "AIRFLOW_PASSWORD": airflow.password,
        }
        daemon = Daemon(binaries / "dagwright", port, daemon_variables)
        try:
            # The first of everything warms Airflow up.
            measure(daemon, airflow, work, ["warm_a", "warm_b"])
            deployed = 3
            for pipelines in (deployed, options.pipelines):
                names = [f"filler_{index}" for index in range(deployed, pipelines)]
                if names:
                    print(f"  {len(names)} pipelines more were deployed in {deploy(daemon, work, names):.1f} s")
                    deployed = pipelines
                wanted = [f"of_{pipelines}_{index}" for index in range(options.requests)]
                triggered, lags = measure(daemon, airflow, work, wanted)
                deployed += len(wanted)
                print(f"at {pipelines} deployed pipelines")
                print(f"  request → run in Airflow       {quantiles(triggered)}")
                print(f"  end of a task → in the ledger  {quantiles(lags)}")
            cpu, began = daemon.cpu_s(), time.monotonic()
            time.sleep(30)
            share = (daemon.cpu_s() - cpu) / (time.monotonic() - began)
            print(f"idle, {deployed} pipelines: {share * 100:.1f} % of a core")
        finally:
            daemon.end()
            airflow.stop()


if __name__ == "__main__":
    main()
