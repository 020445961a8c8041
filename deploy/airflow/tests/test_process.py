import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dagwright_airflow import process
from dagwright_airflow.process import TaskProcess, describe

TASK = json.dumps({"task": {"id": "t", "work": {"kind": "move"}}, "run": {}})
LOG = logging.getLogger("test")


def follow(fake):
    return TaskProcess(str(fake.command), os.environ, LOG).follow(TASK)


def test_events_and_logs_reach_the_tasks_log(fake, caplog):
    caplog.set_level(logging.DEBUG)
    problem = {"code": "DW0306", "subject": "flights", "message": "bad record", "hint": "look"}
    fake.plays(
        log=["2025 INFO plain", "2025 WARN odd \x1b[31mred\x1b[0m", "2025 ERROR worse", "", "x" * 10_000],
        events=[
            {"event": "started", "task": "t", "rows_expected": 1000, "bytes_expected": None},
            {"event": "progress", "rows_read": 1234, "bytes_read": 5678, "rows_written": 9},
            {"event": "progress", "rows_read": 2000, "bytes_read": 5678, "rows_written": 9},
            {"event": "warning", **problem},
            {"event": "of the future"},
            "no json",
            "[]",
            {"event": "outcome", "status": "failed", "counts": {}, "problem": problem},
        ],
        exit=18,
    )
    result = follow(fake)
    assert (result.exit_code, result.stopped) == (18, False)
    assert result.outcome["problem"] == problem
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("INFO", "started, expecting 1,000 rows") in lines
    assert ("INFO", "read 1,234 rows (5,678 bytes), wrote 9 rows") in lines
    assert not any("2,000" in text for _, text in lines), "progress is throttled"
    assert ("WARNING", "DW0306: bad record (flights). look") in lines
    assert ("WARNING", "2025 WARN odd red") in lines
    assert ("ERROR", "2025 ERROR worse") in lines
    assert ("WARNING", "not an event: no json") in lines
    assert max(len(text) for _, text in lines) <= process.LOG_LINE_CHARS_MAX + 1


def test_a_problem_cannot_forge_log_lines():
    assert describe({"code": "DW1", "message": "a\nERROR b\x1b[2J\r", "subject": "s"}) == "DW1: a ERROR b (s)"


def test_stopping_takes_the_lease_first(fake):
    fake.plays(events=[], lease=True)
    # The fake sends SIGALRM once it waits: as Airflow does with SIGTERM, the handler stops it from within `follow`.
    started = TaskProcess(str(fake.command), os.environ, LOG)
    before = signal.signal(signal.SIGALRM, lambda *_: started.stop())
    try:
        result = started.follow(TASK)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (result.exit_code, result.stopped) == (17, True)


def test_an_exception_ends_the_process(fake):
    class TimeoutOfAirflow(BaseException):
        pass

    def raise_timeout(*_):
        raise TimeoutOfAirflow

    fake.plays(events=[], lease=True)
    started = TaskProcess(str(fake.command), os.environ, LOG)
    before = signal.signal(signal.SIGALRM, raise_timeout)
    try:
        with pytest.raises(TimeoutOfAirflow):
            started.follow(TASK)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert started._process.returncode == 17


def test_what_ignores_its_lease_is_killed(fake, monkeypatch):
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    fake.plays(events=[{"event": "started"}], lease="ignored")
    started = TaskProcess(str(fake.command), os.environ, LOG)
    monkeypatch.setattr(LOG, "info", lambda *_: started.stop())
    result = started.follow(TASK)
    assert (result.exit_code, result.stopped) == (-signal.SIGKILL, True)


def test_a_killed_worker_leaves_no_orphan(fake, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fake.plays(events=[], lease=str(fifo))
    source = Path(process.__file__).parents[1]
    program = (
        "import logging, os; from dagwright_airflow.process import TaskProcess; "
        f"TaskProcess({str(fake.command)!r}, os.environ, logging.getLogger()).follow({TASK!r})"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(source)})
    with fifo.open() as end:
        worker.kill()
        worker.wait()
        assert end.read() == "cancelled"


def test_a_large_task_and_a_task_that_reads_nothing(fake, tmp_path):
    large = json.dumps({"task": {"id": "t", "work": {"kind": "move"}, "x": "y" * 2_000_000}, "run": {}})
    assert TaskProcess(str(fake.command), os.environ, LOG).follow(large).exit_code == 0
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\nexit 10\n")
    deaf.chmod(0o755)
    assert TaskProcess(str(deaf), os.environ, LOG).follow(large).exit_code == 10
