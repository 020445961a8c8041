r"""Snapshots of a folder of DAGs, named by their content.

A version is the SHA-256, in hexadecimal, of a text with a line ``<SHA-256 of the file>  <path>`` for each file, sorted
by path as bytes: what ``sha256sum`` prints. So a snapshot proves itself, and nobody has to be believed:

    cd <root>/<version> && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum

Folders `__pycache__` do not count. A snapshot holds regular files and folders alone. This module needs nothing of
Airflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CURRENT = "CURRENT"

# Some thousands of pipelines with room to spare; a folder that was pointed at by mistake ends here.
FILES_MAX = 100_000
BYTES_MAX = 4 * 1024**3

# How long a plan that no DAG names any more is kept where DAGs are parsed: longer than a parse may take.
LEAVING_SECONDS = 600.0

_VERSION = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 1024 * 1024


class SnapshotError(Exception):
    """A snapshot that cannot be used; the message says why."""


class File(NamedTuple):
    """A file of a snapshot."""

    path: str
    digest: str


def checked(version: str) -> str:
    """Return a version, which then is safe as the name of a folder.

    Raises:
        SnapshotError: it is none.

    """
    if not _VERSION.fullmatch(version):
        raise SnapshotError(f"{version[:100]!r} is no version of a snapshot (64 hexadecimal digits)")
    return version


def current(root: Path) -> str | None:
    """Return the version that `CURRENT` names, or None while nothing was deployed.

    Raises:
        SnapshotError: the file says something else, or cannot be read.

    """
    try:
        descriptor = os.open(root / CURRENT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(f"{root / CURRENT} cannot be read ({error.strerror})") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        text = file.read(200)
    return checked(text.decode("utf-8", "replace").strip())


def version_of(files: Mapping[str, str]) -> str:
    """Return the version of a snapshot with these files and their digests."""
    lines = (f"{files[path]}  {path}\n" for path in sorted(files, key=os.fsencode))
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def read(folder: Path) -> dict[str, str]:
    """Return the digest of each file of a snapshot.

    Raises:
        SnapshotError: something in it is no regular file, or there is too much.

    """
    return {file.path: file.digest for file in _walk(folder, None)}


def copy(root: Path, version: str, target: Path) -> None:
    """Copy a snapshot, verified, to `target`, which is there whole or not at all.

    What is copied is what was verified, whoever may change the original meanwhile. Does nothing where `target` is. Only
    one process may copy into a folder at a time.

    Raises:
        SnapshotError: there is no such snapshot, or its content is not what its name says.

    """
    checked(version)
    if target.is_dir():
        return
    with _verified(root, version, target.parent) as (temporary, _):
        # For the tasks that run as somebody else.
        temporary.chmod(0o755)
        temporary.rename(target)


def follow(root: Path, version: str, folder: Path) -> None:
    """Make `folder` hold a snapshot, verified, by changing what differs, as others read it meanwhile.

    Whoever parses a DAG while it is replaced finds the plan that it names: files are added first, then replaced, each
    whole; code that went is removed, and whatever else went stays for a while. A process that dies in the middle is
    completed by the next call. A file that did not change keeps its time of change, so that Airflow parses the others.
    Only one process may change a folder at a time.

    Raises:
        SnapshotError: there is no such snapshot, or its content is not what its name says; nothing was changed.

    """
    checked(version)
    state = folder.with_name(f"{folder.name}.json")
    shown, leaving = _read_state(state)
    if shown == version and folder.is_dir():
        return
    with _verified(root, version, folder.parent) as (temporary, wanted):
        folder.mkdir(mode=0o755, exist_ok=True)
        known = read(folder)
        for path in sorted(wanted, key=lambda path: (path in known, path)):
            if known.get(path) != wanted[path]:
                _replace(temporary, folder, path)
        now = time.time()
        leaving = {path: leaving.get(path, now) for path in known if path not in wanted}
        for path, since in list(leaving.items()):
            if path.endswith(".py") or not 0 <= now - since < LEAVING_SECONDS:
                (folder / path).unlink(missing_ok=True)
                del leaving[path]
        _remove_empty(folder)
        written = temporary / ".state"
        written.write_text(json.dumps({"version": version, "leaving": leaving}), encoding="utf-8")
        written.rename(state)


@contextmanager
def _verified(root: Path, version: str, beside: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Copy a snapshot into a temporary folder in `beside`; gives the folder, and the digest of each file in it."""
    source = root / version
    if not source.is_dir() or source.is_symlink():
        raise SnapshotError(f"{source} is missing; was it removed while runs still need it?")
    beside.mkdir(parents=True, exist_ok=True)
    for abandoned in beside.glob(".copy-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".copy-", dir=beside))
    try:
        files = {file.path: file.digest for file in _walk(source, temporary)}
        if version_of(files) != version:
            raise SnapshotError(f"{source} was changed after it was named; deploy it again")
        yield temporary, files
    except OSError as error:
        raise SnapshotError(f"{source} could not be copied to {beside} ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path, path: str) -> None:
    """Move a file to where another one may be."""
    source, target = temporary / path, folder / path
    # What was a file may be a folder by now, and the other way round.
    for parent in reversed(Path(path).parents[:-1]):
        if (folder / parent).is_file():
            (folder / parent).unlink()
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        # Python takes byte code for that of a source by its length and its time of change, in seconds.
        before = int(target.stat().st_mtime)
        if int(source.stat().st_mtime) <= before:
            os.utime(source, (before + 1, before + 1))
    source.replace(target)


def _remove_empty(folder: Path) -> None:
    """Remove the folders in a folder that hold nothing, or byte code alone."""
    for inner, folders, files in os.walk(folder, topdown=False):
        path = Path(inner)
        if path == folder or path.name == "__pycache__" or files:
            continue
        if folders == ["__pycache__"]:
            shutil.rmtree(path / "__pycache__", ignore_errors=True)
        with suppress(OSError):
            path.rmdir()


def _read_state(path: Path) -> tuple[str | None, dict[str, float]]:
    """Return the version that a folder holds, and since when which files are to go."""
    try:
        said = json.loads(path.read_bytes()[:BYTES_MAX])
        leaving = {str(name): float(since) for name, since in said["leaving"].items()}
        return checked(str(said["version"])), leaving
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SnapshotError):
        # Nothing is there yet, or nobody knows what is: it is looked through.
        return None, {}


def _walk(folder: Path, target: Path | None) -> Iterator[File]:
    """Yield each file under a folder, and copy it where there is a target."""
    files, size = 0, 0
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            with os.scandir(folder / inner) as found:
                entries = list(found)
        except OSError as error:
            raise SnapshotError(f"{folder / inner} cannot be read ({error.strerror})") from error
        for entry in entries:
            path = _checked_path(f"{inner}/{entry.name}" if inner else entry.name, folder)
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    pending.append(path)
                    if target is not None:
                        (target / path).mkdir()
                continue
            digest, length = _copy_file(folder / path, None if target is None else target / path)
            files, size = files + 1, size + length
            if files > FILES_MAX or size > BYTES_MAX:
                raise SnapshotError(f"{folder} holds more than any snapshot")
            yield File(path, digest)


def _checked_path(path: str, folder: Path) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise SnapshotError(f"{folder} holds a name that is not UTF-8") from None
    # `sha256sum` escapes the last two.
    if not path.isprintable() or "\\" in path:
        raise SnapshotError(f"{folder} holds a name that is not printable: {path!r}")
    return path


def _copy_file(source: Path, target: Path | None) -> tuple[str, int]:
    """Return the digest and the length of what was read, which is what was written."""
    digest, length = hashlib.sha256(), 0
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SnapshotError(f"{source} is no regular file, or cannot be read ({error.strerror})") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SnapshotError(f"{source} is no regular file")
        copied = None if target is None else target.open("xb")
        try:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                length += len(block)
                if length > BYTES_MAX:
                    raise SnapshotError(f"{source} is larger than any snapshot")
                if copied is not None:
                    copied.write(block)
        finally:
            if copied is not None:
                copied.close()
    return digest.hexdigest(), length
