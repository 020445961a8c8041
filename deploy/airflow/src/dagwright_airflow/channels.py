"""How a notice reaches people: each kind of connection by the notifier of its provider, `http` by a post of ours.

Notifiers are asked to notify, not called: calling them would render their texts as templates, and a run id may hold
anything.
"""

from __future__ import annotations

import base64
import html
import http.client
import json
import logging
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from dagwright_airflow.compat import AirflowNotFoundException, BaseHook, redact
from dagwright_airflow.post import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagwright_airflow.notice import Notice

# For a connection, and for each wait on it; and for all of a post. The DAG processor has 50 s for a file and its
# callbacks.
TIMEOUT_SECONDS = 5.0
TOTAL_SECONDS = 10.0

_SUMMARY_CHARS_MAX = 130
_REASON_CHARS_MAX = 300

# What HttpHook reads from the extras of a connection; whatever else is there is a header.
_NO_HEADERS = frozenset(
    {
        "allow_redirects",
        "cert",
        "check_response",
        "endpoint",
        "headers",
        "max_redirects",
        "proxies",
        "proxy",
        "stream",
        "timeout",
        "trust_env",
        "verify",
    }
)

_log = logging.getLogger(__name__)


class ChannelError(Exception):
    """A connection that nobody can be told through; the message says why, and holds no secret."""


def tell(connections: Sequence[str], notice: Notice) -> None:
    """Tell each connection; what fails is logged, and keeps no other from being told."""
    for name in connections:
        _try(name, notice)


def _try(name: str, notice: Notice) -> None:
    try:
        _tell(name, notice)
    except ChannelError as error:
        _log.error("DW0930: %r was not told (%s): %s", name, notice.summary, error)
    except Exception as error:
        reason = f"{type(error).__name__}: {redact(str(error))}"[:_REASON_CHARS_MAX]
        # Without a traceback, whose lines may hold what the message is freed of.
        _log.error("DW0930: %r was not told (%s): %s", name, notice.summary, reason)
    else:
        _log.info("%r was told: %s", name, notice.summary)


def _tell(name: str, notice: Notice) -> None:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        raise ChannelError("Airflow has no connection of that name") from None
    kind = (connection.conn_type or "").replace("-", "_")
    channel = _CHANNELS.get(kind)
    if channel is None:
        known = ", ".join(sorted(_CHANNELS))
        raise ChannelError(f"no notifier is known for connections of type {kind!r}; known are {known}")
    channel(connection, notice)


# === providers ===


def _notifier(provider: str, module: str, name: str) -> Any:
    try:
        return getattr(import_module(f"airflow.providers.{provider}.notifications.{module}"), name)
    except ImportError:
        raise ChannelError(
            f"its notifier is not installed; install apache-airflow-providers-{provider} where DAGs are processed and "
            "triggers run"
        ) from None


def _slack(connection: Any, notice: Notice) -> None:
    channel = connection.extra_dejson.get("channel")
    _notifier("slack", "slack", "SlackNotifier")(
        slack_conn_id=connection.conn_id,
        text=_slack_text(notice),
        **({"channel": channel} if isinstance(channel, str) else {}),
    ).notify({})


def _slack_webhook(connection: Any, notice: Notice) -> None:
    notifier = _notifier("slack", "slack_webhook", "SlackWebhookNotifier")
    notifier(slack_webhook_conn_id=connection.conn_id, text=_slack_text(notice)).notify({})


def _slack_text(notice: Notice) -> str:
    return html.escape(notice.text, quote=False)


def _mail(connection: Any, notice: Notice) -> None:
    to = connection.extra_dejson.get("to")
    if not isinstance(to, str | list) or not to:
        raise ChannelError('its extras name no receivers; add {"to": "team@example.org"}, or a list')
    sender = connection.extra_dejson.get("from_email")
    if not isinstance(sender, str) or not sender:
        raise ChannelError('its extras name no sender; add {"from_email": "airflow@example.org"}')
    _notifier("smtp", "smtp", "SmtpNotifier")(
        smtp_conn_id=connection.conn_id,
        to=to,
        # Else it would be looked up, and rendered as a template.
        from_email=sender,
        subject=notice.summary[:_SUMMARY_CHARS_MAX],
        html_content=f"<pre>{html.escape(notice.text)}</pre>",
    ).notify({})


def _pagerduty(connection: Any, notice: Notice) -> None:
    _notifier("pagerduty", "pagerduty", "PagerdutyNotifier")(
        pagerduty_events_conn_id=connection.conn_id,
        summary=notice.summary,
        severity="error",
        source="dagwright",
        dedup_key=notice.key[:255],
        custom_details=notice.document(),
        links=[{"href": notice.url, "text": "Dagwright"}] if notice.url else None,
    ).notify({})


def _opsgenie(connection: Any, notice: Notice) -> None:
    _notifier("opsgenie", "opsgenie", "OpsgenieNotifier")(
        opsgenie_conn_id=connection.conn_id,
        payload={
            "message": notice.summary[:_SUMMARY_CHARS_MAX],
            "alias": notice.key[:512],
            "description": notice.text,
            "source": "dagwright",
        },
    ).notify({})


# === http ===


def _http(connection: Any, notice: Notice) -> None:
    """Post the notice as JSON; follows no redirect and no proxy."""
    parts = _url(connection)
    extra = connection.extra_dejson
    headers = {key: value for key, value in extra.items() if isinstance(value, str) and key not in _NO_HEADERS}
    if isinstance(extra.get("headers"), dict):
        headers |= {str(key): str(value) for key, value in extra["headers"].items()}
    headers |= {"content-type": "application/json", "user-agent": "dagwright-airflow"}
    if connection.login or connection.password:
        pair = f"{connection.login or ''}:{connection.password or ''}".encode()
        headers["authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    status = _post(parts, headers, json.dumps(notice.document()).encode("utf-8"))
    if not 200 <= status < 300:
        raise ChannelError(f"it answered {status}")


def _url(connection: Any) -> SplitResult:
    """Return where an `http` or `https` connection leads, as HttpHook reads it, with the extra `endpoint` as its path.

    What stands where HttpHook has the scheme, and is none, is the path, as in `https://hooks.example.org/path`.
    """
    host, schema = connection.host or "", connection.schema or ""
    if "://" in host:
        base = host
    else:
        scheme = schema if schema in ("http", "https") else connection.conn_type
        base = f"{scheme}://{f'[{host}]' if ':' in host else host}"
    if connection.port:
        base += f":{connection.port}"
    path = connection.extra_dejson.get("endpoint")
    if not isinstance(path, str):
        path = "" if schema in ("", "http", "https") else schema
    url = f"{base.rstrip('/')}/{path.lstrip('/')}" if path else base
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ChannelError("its URL is not one") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ChannelError("its URL must begin with http:// or https://, name a host, and hold no credentials")
    return parts


def _post(parts: SplitResult, headers: dict[str, str], body: bytes) -> int:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    was_cut = threading.Event()
    watchdog = threading.Timer(TOTAL_SECONDS, cut, [connection, was_cut])
    watchdog.daemon = True
    watchdog.start()
    try:
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        connection.request("POST", target, body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Its text may hold the URL, which may be a secret.
        reason = "no answer in time" if was_cut.is_set() else type(error).__name__
        raise ChannelError(f"it could not be reached ({reason})") from None
    finally:
        watchdog.cancel()
        connection.close()


# By the type of connection. `email` is what older Airflows call `smtp`.
_CHANNELS: dict[str, Callable[[Any, Notice], None]] = {
    "email": _mail,
    "http": _http,
    "https": _http,
    "opsgenie": _opsgenie,
    "pagerduty": _pagerduty,
    "pagerduty_events": _pagerduty,
    "slack": _slack,
    "slackwebhook": _slack_webhook,
    "smtp": _mail,
}
