"""One `dagwright-task` process: started, followed, and ended with whoever started it.

Its standard input is a lease: the first line is the task, and the end of input cancels it. So a task never outlives its
Airflow worker, however that dies. Standard output brings events, one JSON object a line; standard error brings logs.
"""

from __future__ import annotations

import io
import json
import queue
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Line = tuple[Callable[[bytes], None], bytes]

# The outcome of a split carries every partition; a log line never needs that much.
EVENT_BYTES_MAX = 16 * 1024 * 1024
LOG_LINE_CHARS_MAX = 4096

PROGRESS_SECONDS = 10.0

# Less than Airflow's own patience (`killed_task_cleanup_time`, 60 s).
STOP_SECONDS = 10.0

# Lines read and not yet handled; a chatty task waits for us instead of filling our memory.
_LINES_MAX = 1000

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEVELS = {"ERROR": "error", "WARN": "warning", "DEBUG": "debug", "TRACE": "debug"}


class Log(Protocol):
    """What a task's log can do: that of `logging`, or the one that Airflow 3 gives to operators."""

    def debug(self, message: str, /, *args: Any) -> Any: ...  # noqa: D102
    def info(self, message: str, /, *args: Any) -> Any: ...  # noqa: D102
    def warning(self, message: str, /, *args: Any) -> Any: ...  # noqa: D102
    def error(self, message: str, /, *args: Any) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Result:
    """How a process ended."""

    exit_code: int
    # The last event, if the process got that far.
    outcome: dict[str, Any] | None
    # Whether we ended it.
    stopped: bool


class TaskProcess:
    """A running `dagwright-task`."""

    def __init__(self, command: str, env: Mapping[str, str], log: Log) -> None:
        """Start the process; it waits for its task."""
        self._log = log
        self._outcome: dict[str, Any] | None = None
        self._stopped = False
        self._progress_at = 0.0
        self._process = subprocess.Popen(
            [command, "run", "--spec", "-", "--lease-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(env),
            # Signals reach it through us, in order: first the lease ends, then it is killed.
            start_new_session=True,
        )

    def follow(self, task_run: str) -> Result:
        """Hand over the task (JSON on one line) and follow it to its end.

        Whatever interrupts this ends the process too.
        """
        lines: queue.Queue[Line | None] = queue.Queue(_LINES_MAX)
        streams: list[tuple[IO[bytes] | None, Callable[[bytes], None]]] = [
            (self._process.stdout, self._handle_event),
            (self._process.stderr, self._handle_log),
        ]
        try:
            for stream, on_line in streams:
                threading.Thread(target=_read, args=(stream, on_line, lines), daemon=True).start()
            self._hand_over(task_run.encode("utf-8") + b"\n")
            open_streams = len(streams)
            while open_streams:
                item = lines.get()
                if item is None:
                    open_streams -= 1
                else:
                    handle, line = item
                    handle(line)
            exit_code = self._process.wait()
        finally:
            self.stop()
        return Result(exit_code=exit_code, outcome=self._outcome, stopped=self._stopped)

    def stop(self) -> None:
        """End the process: take away its lease, then, if it does not end by itself, kill it.

        Safe to call from a signal handler, and again.
        """
        if self._process.poll() is None:
            self._stopped = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _hand_over(self, line: bytes) -> None:
        stdin = self._process.stdin
        remaining = memoryview(line)
        try:
            while stdin is not None and remaining:
                remaining = remaining[stdin.write(remaining) or 0 :]
        except (BrokenPipeError, ValueError):
            # It ended, or was stopped, before it had read its task: its exit code tells more than the pipe.
            pass

    # === events ===

    def _handle_event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            self._log.warning("not an event: %s", _clean(line))
            return
        if kind == "started":
            self._log.info("started%s", _expectation(event))
        elif kind == "progress":
            self._handle_progress(event)
        elif kind == "warning":
            self._log.warning("%s", describe(event))
        elif kind == "outcome":
            self._outcome = event

    def _handle_progress(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_SECONDS:
            return
        self._progress_at = now
        self._log.info(
            "read %s rows (%s bytes), wrote %s rows",
            *(f"{int(event.get(key) or 0):,}" for key in ("rows_read", "bytes_read", "rows_written")),
        )

    def _handle_log(self, line: bytes) -> None:
        text = _clean(line)
        if not text:
            return
        level = next((word for word in text.split()[:3] if word in _LEVELS), "")
        getattr(self._log, _LEVELS.get(level, "info"))("%s", text)


def describe(problem: Mapping[str, Any]) -> str:
    """Return a problem that a task reported as one line."""
    text = f"{problem.get('code', 'DW0799')}: {problem.get('message', '')} ({problem.get('subject', '')})"
    hint = problem.get("hint")
    return _clean(f"{text}. {hint}" if hint else text)


def _expectation(event: Mapping[str, Any]) -> str:
    rows, size = event.get("rows_expected"), event.get("bytes_expected")
    known = [f"{rows:,} rows"] if isinstance(rows, int) else []
    known += [f"{size:,} bytes"] if isinstance(size, int) else []
    return f", expecting {' and '.join(known)}" if known else ""


def _clean(line: bytes | str) -> str:
    """Return a line without what could move a terminal or forge a log line."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    text = _CONTROL.sub("", text.replace("\n", " ")).strip()
    return text if len(text) <= LOG_LINE_CHARS_MAX else f"{text[:LOG_LINE_CHARS_MAX]}…"


def _read(stream: io.RawIOBase, handle: Callable[[bytes], None], lines: queue.Queue[Line | None]) -> None:
    """Pass on each line of a stream, then None."""
    with io.BufferedReader(stream) as buffered:
        while line := buffered.readline(EVENT_BYTES_MAX):
            lines.put((handle, line))
    lines.put(None)
