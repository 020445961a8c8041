"""Posting one event to the daemon, and what its answer means. This module needs nothing of Airflow."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from dagwright_airflow.signature import Signer

PATH = "/api/v1/feedback"

# For a connection, and for each wait on it.
TIMEOUT_SECONDS = 5.0

# For all of it: a server that trickles must not hold the spool.
TOTAL_SECONDS = 15.0

_ANSWER_BYTES_MAX = 4096
_RETRY_AFTER_SECONDS_MAX = 3600

# The daemon does not want this event, and never will. Any other answer may change: an outage, or a wrong setting.
_REFUSALS = frozenset({400, 409, 413, 415, 422})


class SettingError(Exception):
    """A URL that cannot be posted to; the message holds nothing of it."""


class Verdict(Enum):
    """What became of an event."""

    TAKEN = "taken"
    REFUSED = "refused"
    LATER = "later"


@dataclass(frozen=True)
class Answer:
    """What the daemon said to an event, or why it said nothing."""

    verdict: Verdict
    reason: str
    # Seconds, if the daemon asked for them.
    retry_after: float | None = None


class Poster:
    """Posts events over one connection that is kept open between them; follows no redirect and no proxy."""

    def __init__(
        self,
        url: str,
        signer: Signer,
        ca: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        total: float = TOTAL_SECONDS,
    ) -> None:
        """Read the URL; connect when the first event comes.

        Raises:
            SettingError: the URL, or the file of authorities, cannot be used.

        """
        self._url = _read_url(url)
        self._path = self._url.path.rstrip("/") or PATH
        self._signer = signer
        self._timeout, self._total = timeout, total
        self._connection: http.client.HTTPConnection | None = None
        self._context: ssl.SSLContext | None = None
        if self._url.scheme == "https":
            try:
                self._context = ssl.create_default_context(cafile=ca)
            except OSError as error:
                raise SettingError("the file with the authorities cannot be read") from error

    def post(self, event_id: str, body: bytes) -> Answer:
        """Post an event once, or again on a new connection where the old one had been closed."""
        reused = self._connection is not None
        answer = self._attempt(event_id, body)
        if reused and answer.verdict is Verdict.LATER and self._connection is None:
            answer = self._attempt(event_id, body)
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, event_id: str, body: bytes) -> Answer:
        connection = self._connection or self._new_connection()
        self._connection = connection
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._signer.sign(event_id, timestamp, body),
        }
        was_cut = threading.Event()
        watchdog = threading.Timer(self._total, cut, [connection, was_cut])
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            content = response.read(_ANSWER_BYTES_MAX)
            whole = response.isclosed()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return Answer(Verdict.LATER, type(error).__name__)
        finally:
            watchdog.cancel()
        if was_cut.is_set():
            # What there was of an answer may look whole.
            self.close()
            return Answer(Verdict.LATER, "no answer in time")
        if response.will_close or not whole:
            # The rest of a longer answer would be taken for the next one.
            self.close()
        return _judge(response, content)

    def _new_connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)


def _read_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise SettingError("the URL is not one") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError("the URL must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise SettingError("the URL holds credentials; set the secret instead")
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise SettingError("the URL must be plain: no query, fragment or blank")
    return parts


def cut(connection: http.client.HTTPConnection, was_cut: threading.Event) -> None:
    """End whatever the connection waits for."""
    was_cut.set()
    open_socket: socket.socket | None = connection.sock
    if open_socket is not None:
        with contextlib.suppress(OSError):
            open_socket.shutdown(socket.SHUT_RDWR)


def _judge(response: http.client.HTTPResponse, content: bytes) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(Verdict.TAKEN, str(status))
    said = "".join(char if char.isprintable() else " " for char in content[:300].decode("utf-8", "replace"))
    reason = f"{status} {said}".strip()
    if status in _REFUSALS:
        return Answer(Verdict.REFUSED, reason)
    after = response.getheader("retry-after") or ""
    seconds = (
        min(int(after), _RETRY_AFTER_SECONDS_MAX) if after.isascii() and after.isdigit() and len(after) < 10 else None
    )
    return Answer(Verdict.LATER, reason, seconds)
