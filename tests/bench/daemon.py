"""Measures the daemon over a real Kafka.

How many requests a second it takes from their topic to a sealed plan, compiled DAGs and the event that says so, how
long one of them takes, and what the daemon costs when it has nothing to do.

Requests are CloudEvents of 1 KB that apply a pipeline. The first of each pipeline is probed and negotiated; then its
profiles are known, and its plan is used again. Nothing runs, so what is measured is the daemon and not the data plane.
Broker, daemon and this client share the machine. Every request must end in one acceptance and one deployed DAG;
anything else ends the benchmark.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import ROOT, TICKS, resident
from confluent_kafka import Consumer, Producer

REQUESTS = "dagwright.requests.v1"
EVENTS = "dagwright.events.v1"
ACCEPTED = b'"dev.dagwright.request.accepted.v1"'
DEPLOYED = b'"dev.dagwright.dag.deployed.v1"'
REJECTED = b'"dev.dagwright.request.rejected.v1"'
SIZE = 1024
READY = 200
PATIENCE_S = 120


class Broker:
    """A throwaway broker."""

    def __init__(self, folder: Path) -> None:
        self.script, self.folder = ROOT / "tests/scripts/kafka.sh", folder
        started = subprocess.run(
            [self.script, "start", folder, str(os.getpid())], check=True, stdout=subprocess.PIPE, text=True
        )
        self.address = started.stdout.strip()

    def stop(self) -> None:
        """Stops it."""
        subprocess.run([self.script, "stop", self.folder], check=True)


class Daemon:
    """A running `dagwright serve`; `start_s` is the time from its start until it says where it listens."""

    def __init__(self, program: Path, work: Path, store: Path, broker: Broker | None = None) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "DAGWRIGHT__STORE__PATH": str(store),
            "DAGWRIGHT__HTTP__LISTEN": "127.0.0.1:0",
            "DAGWRIGHT__URIS__ALLOW": f"{work}/**",
            "DAGWRIGHT__NEGOTIATION__FACTS_AGE_MAX": "1h",
            "DAGWRIGHT__LOG__LEVEL": "warn",
        }
        if broker:
            environment |= {"DAGWRIGHT__BUS__KIND": "kafka", "DAGWRIGHT__KAFKA__BROKERS": broker.address}
        start = time.monotonic()
        self.process = subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # Whatever ends the benchmark ends the daemon.
        line = self.process.stdout.readline()
        self.start_s = time.monotonic() - start
        if "://" not in line:
            sys.exit(f"the daemon does not say where it listens: {line!r}")
        self.url = line.split()[-1]
        self.started = start

    def get(self, path: str) -> tuple[int, bytes]:
        """Asks over HTTP."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def resident_mib(self) -> float:
        """Returns what it holds in memory."""
        return resident(self.process.pid) / 2**20

    def cpu_s(self) -> float:
        """Returns the CPU time that it used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def transactions(self) -> float:
        """Returns how many transactions it committed."""
        name = 'dagwright_kafka_transactions_total{outcome="committed"} '
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    def end(self, signal: str = "terminate") -> None:
        """Ends it and waits for that."""
        getattr(self.process, signal)()
        self.process.wait(PATIENCE_S)


class Watcher(threading.Thread):
    """Reads every event, and knows when each request was done."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(daemon=True)
        self.consumer = Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": "bench",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        self.consumer.subscribe([EVENTS])
        self.done: dict[int, float] = {}
        self.kinds: Counter[bytes] = Counter()
        self.repeated = 0
        self.news = threading.Condition()
        self.start()

    def run(self) -> None:
        """Reads for as long as the process lives."""
        while True:
            messages = self.consumer.consume(1000, 0.05)
            now = time.monotonic()
            with self.news:
                for message in messages:
                    if message.error():
                        continue
                    value = message.value()
                    for kind in (ACCEPTED, DEPLOYED, REJECTED):
                        if kind in value:
                            self.kinds[kind] += 1
                    if DEPLOYED in value:
                        request = int(json.loads(value)["traceparent"].split("-")[1], 16)
                        self.repeated += request in self.done
                        self.done[request] = now
                self.news.notify_all()

    def wait(self, count: int) -> None:
        """Waits until so many requests are done in all; ends the benchmark when nothing moves."""
        with self.news:
            while len(self.done) < count:
                known = len(self.done)
                if not self.news.wait_for(lambda known=known: len(self.done) > known, PATIENCE_S):
                    sys.exit(f"only {known} of {count} requests were done: {dict(self.kinds)}")


class Load:
    """Makes requests and sends them."""

    def __init__(self, work: Path, broker: Broker, pipelines: int) -> None:
        self.work, self.pipelines, self.sent = work, pipelines, 0  # Numbered from 1, as no trace has the id 0.
        self.producer = Producer(
            {"bootstrap.servers": broker.address, "linger.ms": 2, "partitioner": "murmur2_random", "log_level": 0}
        )

    def request(self, number: int) -> tuple[str, bytes]:
        """Returns a request and its pipeline."""
        pipeline = f"pipeline_{number % self.pipelines}"
        event = {
            "specversion": "1.0",
            "type": "dev.dagwright.pipeline.requested.v1",
            "source": "/bench",
            "id": f"{number:08}",
            "datacontenttype": "application/json",
            "traceparent": f"00-{number:032x}-{1:016x}-00",
            "data": {
                "action": "apply",
                "spec": {
                    "version": 1,
                    "pipeline": pipeline,
                    "description": "",
                    "source": {"uri": f"{self.work}/in.csv"},
                    "transform": [{"name": "named", "sql": "SELECT id, upper(name) AS name FROM source WHERE id > 1"}],
                    "sink": {"uri": f"{self.work}/out/{pipeline}.parquet", "mode": "replace"},
                    "quality": [{"name": "has_name", "not_null": ["name"], "on_fail": "fail"}],
                },
            },
        }
        missing = SIZE - len(json.dumps(event))
        event["data"]["spec"]["description"] = "x" * missing
        return pipeline, json.dumps(event).encode()

    def send(self, count: int, rate: float | None = None) -> list[float]:
        """Sends requests, all at once or so many a second; returns when each was sent."""
        times = []
        begin = time.monotonic()
        for index in range(count):
            if rate:
                ahead = begin + index / rate - time.monotonic()
                if ahead > 0:
                    self.producer.poll(0)
                    time.sleep(ahead)
            pipeline, value = self.request(self.sent + 1)
            while True:
                try:
                    self.producer.produce(REQUESTS, value, pipeline, headers=HEADERS)
                    break
                except BufferError:
                    self.producer.poll(0.1)
            times.append(time.monotonic())
            self.sent += 1
            self.producer.poll(0)
        if self.producer.flush(PATIENCE_S):
            sys.exit("the broker does not take the requests")
        return times


HEADERS = [("content-type", b"application/cloudevents+json")]


@contextmanager
def broker_in(folder: Path) -> Iterator[Broker]:
    """Runs a broker for the length of a block."""
    broker = Broker(folder)
    try:
        yield broker
    finally:
        broker.stop()


def idle(program: Path, work: Path, runs: int) -> tuple[float, float]:
    """Returns the seconds that a start takes and the MiB an idle daemon holds, in the median."""
    starts, sizes = [], []
    for run in range(runs):
        daemon = Daemon(program, work, work / f"idle-{run}")
        time.sleep(2)
        starts.append(daemon.start_s)
        sizes.append(daemon.resident_mib())
        daemon.end()
    return statistics.median(starts), statistics.median(sizes)


def ready(daemon: Daemon) -> float:
    """Returns how long after its start the daemon was ready."""
    while daemon.get("/readyz")[0] != READY:
        time.sleep(0.005)
    return time.monotonic() - daemon.started


def paced(daemon: Daemon, load: Load, watcher: Watcher, count: int, rate: float) -> list[tuple[str, str]]:
    """Sends requests at a rate; returns what was seen."""
    cpu, transactions, first = daemon.cpu_s(), daemon.transactions(), load.sent + 1
    sent = load.send(count, rate)
    watcher.wait(load.sent)
    cores = (daemon.cpu_s() - cpu) / (count / rate)
    per_s = (daemon.transactions() - transactions) / (count / rate)
    took = sorted((watcher.done[number] - begin) * 1e3 for number, begin in enumerate(sent, first))
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return [
        (f"at {rate:g}/s: p50, p99, largest", f"{p50:.0f}, {p99:.0f}, {took[-1]:.0f} ms"),
        ("CPU of the daemon meanwhile", f"{cores:.2f} cores"),
        ("its transactions meanwhile", f"{per_s:.0f}/s"),
    ]


def burst(daemon: Daemon, load: Load, watcher: Watcher, count: int) -> list[tuple[str, str]]:
    """Sends requests as fast as the broker takes them; returns what was seen."""
    cpu, begin, wanted = daemon.cpu_s(), time.monotonic(), load.sent + count
    sender = threading.Thread(target=load.send, args=[count])
    sender.start()
    peak_mib = 0.0
    while (known := len(watcher.done)) < wanted:
        watcher.wait(min(known + 1000, wanted))
        peak_mib = max(peak_mib, daemon.resident_mib())
        elapsed = time.monotonic() - begin
        done = len(watcher.done) - (wanted - count)
        print(f"{done} of {count}, {done / elapsed:.0f}/s, {daemon.resident_mib():.0f} MiB", file=sys.stderr)
    sender.join()
    elapsed = max(watcher.done.values()) - begin
    return [
        (f"at once: {count:,}", f"{count / elapsed:,.0f}/s"),
        ("CPU of the daemon meanwhile", f"{(daemon.cpu_s() - cpu) / elapsed:.2f} cores"),
        ("its peak memory", f"{peak_mib:.0f} MiB"),
    ]


def again(program: Path, work: Path, store: Path, broker: Broker, pipelines: int) -> float:
    """Returns how long a daemon takes until it is ready and knows what it is asked."""
    daemon = Daemon(program, work, store, broker)
    taken = ready(daemon)
    known = json.loads(daemon.get(f"/api/v1/pipelines?limit={pipelines}")[1])["items"]
    if len(known) != pipelines:
        sys.exit(f"the daemon knows {len(known)} pipelines instead of {pipelines}")
    daemon.end()
    return taken


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, help="the folder with dagwright and dagwright-task")
    parser.add_argument("--requests", type=int, default=100_000, help="how many are sent at once")
    parser.add_argument("--paced", type=int, default=15_000, help="how many are sent at --rate")
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--pipelines", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5, help="how many starts are measured")
    options = parser.parse_args()
    program = options.bin.resolve() / "dagwright"
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as folder, broker_in(Path(folder) / "kafka") as broker:
        work = Path(folder)
        (work / "in.csv").write_text("id,name\n1,a\n2,b\n3,c\n")
        start_s, idle_mib = idle(program, work, options.runs)
        daemon = Daemon(program, work, work / "store", broker)
        ready(daemon)
        time.sleep(5)
        rows.append(("start, in-process", f"{start_s * 1e3:.0f} ms"))
        rows.append(("idle memory: in-process, Kafka", f"{idle_mib:.0f}, {daemon.resident_mib():.0f} MiB"))

        load, watcher = Load(work, broker, options.pipelines), Watcher(broker)
        begin = time.monotonic()
        load.send(options.pipelines)
        watcher.wait(load.sent)
        per_s = options.pipelines / (time.monotonic() - begin)
        rows.append((f"{options.pipelines} new pipelines, probed and negotiated", f"{per_s:.0f}/s"))
        print(*rows[-1], sep=": ", file=sys.stderr)
        rows += paced(daemon, load, watcher, options.paced, options.rate)
        rows += burst(daemon, load, watcher, options.requests)
        daemon.end("kill")
        if watcher.repeated or watcher.kinds != {ACCEPTED: load.sent, DEPLOYED: load.sent}:
            sys.exit(f"{load.sent} requests came to {dict(watcher.kinds)}, {watcher.repeated} twice")

        recovered_s = again(program, work, work / "store", broker, options.pipelines)
        rebuilt_s = again(program, work, work / "another", broker, options.pipelines)
        rows.append((f"ready again with {load.sent:,} requests in the ledger", f"{recovered_s:.2f} s"))
        rows.append(("the same with its store lost", f"{rebuilt_s:.2f} s"))
    print("| requests of 1 KB over Kafka | |\n|---|---|")
    for what, seen in rows:
        print(f"| {what} | {seen} |")


if __name__ == "__main__":
    main()
