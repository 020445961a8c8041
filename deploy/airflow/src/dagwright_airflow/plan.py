"""Plan files: `{"dag": …, "hash": …, "plan": …}`, read from beside the DAG file.

`plan` is what tasks run by, and is refused unless it is what was sealed. `dag` is what Airflow makes a DAG of: it comes
first, so that who wants nothing else stops reading there, and proves nothing, as a DAG file does not either.

A plan's hash is the SHA-256 of its canonical JSON: keys sorted by code point, no white space, numbers and texts as
Dagwright writes them. Numbers with a fraction or an exponent keep the spelling of the file, as Python's own spelling of
them differs. This module needs nothing of Airflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLAN_VERSION = 1

# A plan of a hundred sources and steps has less than a megabyte.
PLAN_BYTES_MAX = 64 * 1024 * 1024

_FILE_NAME = re.compile(r".+\.(?P<hash>[0-9a-f]{12})\.plan\.json")

# How a plan file begins, as the compiler writes it.
_BEFORE_DAG = b'{\n  "dag": '


class PlanError(Exception):
    """A plan file that cannot be trusted; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """A sealed plan whose hash was verified."""

    hash: str
    body: dict[str, Any]

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the sealed spec of a task."""
        for task in self.body["tasks"]:
            if task["spec"]["id"] == task_id:
                return dict(task["spec"])
        raise PlanError(f"plan {self.hash[:12]} has no task {task_id!r}; compile and deploy it again")

    def split_before(self, task_id: str) -> str | None:
        """Return the id of the split whose partitions a publish task makes visible."""
        staged_by = self.task(task_id)["work"].get("staged_by")
        return next((task["mapped_over"] for task in self.body["tasks"] if task["spec"]["id"] == staged_by), None)


def read(path: str | Path) -> Plan:
    """Read a plan file and verify it against its hash and its name.

    Raises:
        PlanError: the file is missing, was changed, or is of another version.

    """
    path = Path(path)
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise PlanError(f"{path.name} is not named like a plan file (<dag_id>.<hash12>.plan.json)")
    content = read_file(path, PLAN_BYTES_MAX)
    try:
        document = loads(content.decode("utf-8"))
        sealed, body = document["hash"], document["plan"]
        actual = hashlib.sha256(dumps(body).encode("utf-8")).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PlanError(f"{path.name} is not a plan file; compile and deploy it again") from error
    if actual != sealed or not actual.startswith(named["hash"]):
        raise PlanError(f"{path.name} was changed after it was sealed; compile and deploy it again")
    if body.get("version") != PLAN_VERSION:
        raise PlanError(
            f"{path.name} has plan version {body.get('version')!r}, this package runs version "
            f"{PLAN_VERSION}; install the dagwright-airflow that came with your Dagwright"
        )
    return Plan(hash=actual, body=body)


def read_dag(path: Path) -> object:
    """Read what Airflow makes a DAG of; nothing of it is checked but that it is JSON.

    Raises:
        PlanError: the file is missing, or is no plan file.

    """
    content = read_file(path, PLAN_BYTES_MAX)
    if not content.startswith(_BEFORE_DAG):
        raise PlanError(f"{path.name} does not begin with a DAG; compile and deploy it again")
    try:
        return _DECODER.raw_decode(content.decode("utf-8"), len(_BEFORE_DAG))[0]
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path.name} is not a plan file; compile and deploy it again") from error


def read_file(path: Path, bytes_max: int) -> bytes:
    """Return the content of a file beside the DAG file.

    Raises:
        PlanError: it is missing, no regular file, or larger than `bytes_max`.

    """
    try:
        # Without waiting, as it might be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PlanError(_unread(path, error)) from error
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PlanError(f"{path.name} is no regular file")
            if status.st_size > bytes_max:
                raise PlanError(f"{path.name} is larger than any of its kind")
            # No buffer of `bytes_max` for it; one byte more, as it may have grown since.
            content = file.read(status.st_size + 1)
        except OSError as error:
            raise PlanError(_unread(path, error)) from error
    return content


def _unread(path: Path, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"{path.name} cannot be read ({reason}); deploy it beside its DAG file"


# === canonical JSON ===


class _Number(float):
    """A number that remembers how it was written."""

    spelling: str

    def __new__(cls, spelling: str) -> _Number:
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number


def loads(text: str) -> Any:
    """Parse JSON so that `dumps` writes each number as it stood."""
    return json.loads(text, parse_float=_Number, parse_constant=_refuse_constant)


def dumps(value: object) -> str:
    """Write a value as canonical JSON."""
    if isinstance(value, dict):
        items = (f"{_text(key)}:{dumps(value[key])}" for key in sorted(value))
        return f"{{{','.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(dumps(item) for item in value)}]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, _Number):
        return value.spelling
    return json.dumps(value, allow_nan=False)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
