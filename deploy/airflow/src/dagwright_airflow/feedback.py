"""Telling the daemon what Airflow does, without ever making Airflow wait for it.

A hook puts its event into the spool and returns; a thread of its process takes events out, the oldest first, and posts
them. One process of a machine does so at a time, and all of them heed the same pause while the daemon is away. What a
process does not get to is sent by the next one of its machine that has something to tell: after the last task of a run
that is the scheduler.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING

from dagwright_airflow import events, settings
from dagwright_airflow.post import Answer, Poster, SettingError, Verdict
from dagwright_airflow.signature import SecretError, Signer
from dagwright_airflow.spool import EVENT_BYTES_MAX, Pause, Spool

if TYPE_CHECKING:
    from dagwright_airflow.spool import Entry

log = logging.getLogger(__name__)

# Pauses while the daemon is away; each up to twice as long, at random, so that machines do not call together.
PAUSE_SECONDS_FIRST = 1.0
PAUSE_SECONDS_MAX = 60.0

# How often a thread that waits for the daemon looks whether another one has found it.
_LOOK_SECONDS = 5.0

# How soon to look again while another process sends.
_BUSY_SECONDS = 0.05

_ID = re.compile(r"[0-9a-f]{32}")


class _Drained(Enum):
    EMPTY = "empty"
    AWAY = "away"
    BUSY = "busy"


class Sender:
    """Sends what is in the spool, from a thread that lives while there is something to send."""

    def __init__(self, spool: Spool, poster: Poster) -> None:
        """Send from a spool by a poster, which is the thread's alone."""
        self._spool, self._poster = spool, poster
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        # Nothing to wait for: all is sent, or the daemon is away.
        self._idle = threading.Event()

    def submit(self, event: events.Event) -> None:
        """Put an event into the spool, and have it sent.

        Raises:
            OSError: the spool cannot be written to.

        """
        self._spool.put(events.encode(event))
        self.wake()

    def wake(self) -> None:
        """Have sent what is there, by whichever process it was put."""
        with self._lock:
            self._idle.clear()
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dagwright-feedback", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent or the daemon turns out to be away; tells whether it came to that."""
        with self._lock:
            if self._thread is None:
                return True
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                drained = self._drain()
                pause = self._spool.pause().until - time.time()
            except Exception:
                # The next event tries again.
                log.exception("could not send feedback to Dagwright; it stays in the spool")
                drained, pause = _Drained.EMPTY, 0.0
            if drained is _Drained.BUSY:
                self._wanted.wait(_BUSY_SECONDS)
                continue
            with self._lock:
                if self._wanted.is_set():
                    continue
                self._idle.set()
                if drained is _Drained.EMPTY:
                    self._poster.close()
                    self._thread = None
                    return
            self._wanted.wait(max(0.0, min(pause, _LOOK_SECONDS)))

    def _drain(self) -> _Drained:
        if not self._spool.folder.is_dir():
            return _Drained.EMPTY
        if self._spool.pause().until > time.time():
            return _Drained.AWAY
        with self._spool.locked() as ours:
            if not ours:
                return _Drained.BUSY
            while True:
                for name, count in self._spool.dropped():
                    report = events.events_dropped(name, count)
                    if not self._settled(self._poster.post(report["id"], events.encode(report)), report["id"]):
                        return _Drained.AWAY
                    self._spool.forget_dropped(name)
                    log.error("the spool was full: %s events for Dagwright were dropped", count)
                entries = self._spool.entries()
                if not entries:
                    return _Drained.EMPTY
                for entry in entries:
                    if not self._send(entry):
                        return _Drained.AWAY

    def _send(self, entry: Entry) -> bool:
        """Send one event and forget it; False where the daemon is away."""
        body = self._spool.read(entry)
        event_id = _id_of(body) if body is not None else None
        if body is None or event_id is None:
            if body is not None:
                log.error("%s in the spool is no event, and was removed", entry.path.name)
            self._spool.remove(entry)
            return True
        settled = self._settled(self._poster.post(event_id, body), event_id)
        if settled:
            self._spool.remove(entry)
        return settled

    def _settled(self, answer: Answer, event_id: str) -> bool:
        if answer.verdict is Verdict.LATER:
            failures = self._spool.pause().failures
            seconds = min(PAUSE_SECONDS_FIRST * 2 ** min(failures, 30), PAUSE_SECONDS_MAX)
            seconds = max(seconds * random.uniform(1, 2), answer.retry_after or 0)  # noqa: S311 - no secret
            self._spool.set_pause(Pause(time.time() + seconds, failures + 1))
            (log.info if failures else log.warning)(
                "Dagwright does not take feedback (%s); trying again in %.0f s", answer.reason, seconds
            )
            return False
        if self._spool.pause().failures:
            self._spool.set_pause(None)
            log.info("Dagwright takes feedback again")
        if answer.verdict is Verdict.REFUSED:
            log.error("Dagwright refused event %s (%s); it was given up", event_id, answer.reason)
        return True


def _id_of(body: bytes) -> str | None:
    if len(body) > EVENT_BYTES_MAX:
        return None
    try:
        found = json.loads(body)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


# === one sender a process ===

_guard = threading.Lock()
_current: tuple[settings.Feedback, Sender | None] | None = None


def sender() -> Sender | None:
    """Return this process's sender, or None where none is set up; says once what is wrong with a setting."""
    global _current  # noqa: PLW0603 - one a process
    wanted = settings.feedback()
    if wanted is None:
        return None
    with _guard:
        if _current is None or _current[0] != wanted:
            _current = (wanted, _new_sender(wanted))
        return _current[1]


def _new_sender(wanted: settings.Feedback) -> Sender | None:
    try:
        poster = Poster(wanted.url, Signer(wanted.secret), wanted.ca)
    except SecretError as error:
        log.error("no feedback for Dagwright: DAGWRIGHT_FEEDBACK_SECRET %s", error)  # noqa: TRY400 - the message says it
        return None
    except SettingError as error:
        log.error("no feedback for Dagwright: DAGWRIGHT_FEEDBACK_URL: %s", error)  # noqa: TRY400
        return None
    return Sender(Spool(wanted.spool), poster)


def _forget() -> None:
    """Start afresh in a forked process: threads are not forked, and a lock may be held for ever."""
    global _guard, _current
    _guard, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
