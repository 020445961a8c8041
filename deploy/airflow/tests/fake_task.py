#!/usr/bin/env python3
"""Stands in for `dagwright-task`: keeps its contract, moves nothing.

It appends what it was given to the file $FAKE_RECORD, then plays $FAKE_SCRIPT, a JSON object: `events` (objects, or
texts written as they are), `log` (lines for standard error), `lease` (true waits for its end; the name of a FIFO also
tells there how it ended; "ignored" outlives it), `exit`. Without a script it succeeds, counting one row.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

PARTITIONS = [{"index": i, "count": 3, "range": {"files": [f"data/{i}.csv"]}} for i in range(3)]


def outcome(**more):
    counts = {"sources": {}, "steps": {}, "gates": {}, "sinks": {"sink": {"loaded": 1}}}
    base = {"event": "outcome", "status": "succeeded", "repeated": False, "counts": counts, "problem": None}
    return {**base, **more}


def main():
    assert sys.argv[1:] == ["run", "--spec", "-", "--lease-stdin"], sys.argv
    line = sys.stdin.buffer.readline()
    given = json.loads(line)
    connections = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("DAGWRIGHT_CONN_", "DAGWRIGHT_FEEDBACK_", "AIRFLOW"))
    }
    if record := os.environ.get("FAKE_RECORD"):
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**given, "env": connections}) + "\n")
    script = json.loads(os.environ.get("FAKE_SCRIPT", "{}"))
    script = script.get(given["task"]["id"], {}) if script.get("by_task") else script
    for text in script.get("log", []):
        print(text, file=sys.stderr, flush=True)
    default = outcome(partitions=PARTITIONS if given["task"]["work"]["kind"] == "split" else [])
    for event in script.get("events", [default]):
        print(event if isinstance(event, str) else json.dumps(event), flush=True)
    lease = script.get("lease")
    if lease == "ignored":
        time.sleep(3600)
    elif lease:
        if isinstance(lease, str):
            with Path(lease).open("w", encoding="utf-8") as fifo:
                sys.stdin.buffer.read()
                fifo.write("cancelled")
        else:
            os.kill(os.getppid(), signal.SIGALRM)
            sys.stdin.buffer.read()
        sys.exit(17)
    code = script.get("exit", 0)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
