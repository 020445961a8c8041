"""Connections as a task gets them: ``DAGWRIGHT_CONN_<NAME>`` in its environment, and nowhere else.

The worker's environment wins; else the Airflow connection of the same name is turned into a URL. The task itself
checks that the URL still means the system the plan was sealed for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from dagwright_airflow.compat import AirflowNotFoundException, BaseHook, mask_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "DAGWRIGHT_CONN_"

# What Airflow's own processes know and no task needs: a task reads files and databases that others can write.
_HIDDEN = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW", "DAGWRIGHT_FEEDBACK_", PREFIX)

# Airflow's connection types, where they are no URL scheme of ours.
_SCHEMES = {"postgres": "postgresql"}


class ConnectionMissingError(Exception):
    """A connection that is defined nowhere; the message says where it could be."""


def environment(names: Iterable[str]) -> dict[str, str]:
    """Return a task's environment: the worker's without Airflow's secrets, and the named connections.

    Raises:
        ConnectionMissingError: a connection is defined nowhere.

    """
    child = {key: value for key, value in os.environ.items() if not key.startswith(_HIDDEN)}
    for name in names:
        key = PREFIX + name.upper()
        url = os.environ.get(key) or _from_airflow(name)
        password = urlsplit(url).password
        if password:
            # Both spellings, as a driver's message may hold either.
            mask_secret(password)
            mask_secret(unquote(password))
        child[key] = url
    return child


def _from_airflow(name: str) -> str:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException as error:
        raise ConnectionMissingError(
            f"connection {name!r} is not defined; set {PREFIX}{name.upper()} on the workers or add an "
            "Airflow connection of that name"
        ) from error
    return url_of(connection)


def url_of(connection: Any) -> str:
    """Return an Airflow connection as a URL, its extras as the query."""
    scheme = connection.conn_type or ""
    authority = ""
    if connection.login or connection.password:
        authority = quote(connection.login or "", safe="")
        if connection.password:
            authority += f":{quote(connection.password, safe='')}"
        authority += "@"
    host = connection.host or ""
    authority += f"[{host}]" if ":" in host else quote(host, safe="")
    if connection.port:
        authority += f":{connection.port}"
    extras = {key: value for key, value in connection.extra_dejson.items() if isinstance(value, str | int)}
    query = f"?{urlencode(extras)}" if extras else ""
    return f"{_SCHEMES.get(scheme, scheme)}://{authority}/{quote(connection.schema or '', safe='')}{query}"
