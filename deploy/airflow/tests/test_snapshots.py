import os
import subprocess
import sys

import pytest

from dagwright_airflow import snapshots
from dagwright_airflow.snapshots import SnapshotError


def write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def publish(root, files):
    """Put a snapshot into a root, as the daemon does, and return its version."""
    version = snapshots.version_of(snapshots.read(write(root / ".new", files)))
    (root / ".new").rename(root / version)
    return version


def switch(root, version):
    (root / ".CURRENT").write_text(f"{version}\n")
    (root / ".CURRENT").rename(root / "CURRENT")


FILES = {"b.py": "b", "a/b.txt": "ab", "a.py": "a", "é 🛫.json": "", "Z.py": "z"}


def test_a_version_is_what_sha256sum_says(tmp_path):
    version = publish(tmp_path, FILES)
    # Python's own leavings do not count.
    write(tmp_path / version, {"a/__pycache__/b.pyc": "x"})
    said = subprocess.run(
        "find . -name __pycache__ -prune -o -type f -printf '%P\\0'"
        " | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum",
        shell=True,
        cwd=tmp_path / version,
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split()[0] == version
    assert snapshots.version_of(snapshots.read(tmp_path / version)) == version
    assert snapshots.version_of({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_copy_is_whole(tmp_path):
    version = publish(tmp_path, FILES)
    target = tmp_path / "copies" / version
    snapshots.copy(tmp_path, version, target)
    assert snapshots.read(target) == snapshots.read(tmp_path / version)
    assert target.stat().st_mode & 0o777 == 0o755
    # Again, even where the original is gone.
    (tmp_path / version).rename(tmp_path / "gone")
    snapshots.copy(tmp_path, version, target)
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [version]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "a.py").write_text("evil"),
        lambda folder: (folder / "a.py").unlink(),
        lambda folder: (folder / "c.py").write_text("evil"),
        lambda folder: (folder / "a.py").rename(folder / "c.py"),
        lambda folder: ((folder / "a.py").unlink(), (folder / "a.py").symlink_to("b.py")),
        lambda folder: (folder / "c").symlink_to("/etc"),
        lambda folder: os.mkfifo(folder / "c.py"),
        lambda folder: (folder / "c\n.py").write_text(""),
        lambda folder: (folder / "c\\.py").write_text(""),
        lambda folder: (folder / os.fsdecode(b"\xff.py")).write_text(""),
    ],
)
def test_what_was_changed_is_refused(tmp_path, spoil):
    version = publish(tmp_path, FILES)
    spoil(tmp_path / version)
    with pytest.raises(SnapshotError):
        snapshots.copy(tmp_path, version, tmp_path / "copies" / version)
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize(
    "version", ["", "..", "../x", "/etc", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "a" * 60 + "/../"]
)
def test_what_is_no_version_leads_nowhere(tmp_path, version):
    with pytest.raises(SnapshotError):
        snapshots.copy(tmp_path, version, tmp_path / "copies" / "x")
    (tmp_path / "CURRENT").write_text(version)
    if version.strip() == "a" * 64:
        assert snapshots.current(tmp_path) == "a" * 64, "a line may end"
        return
    with pytest.raises(SnapshotError):
        snapshots.current(tmp_path)


def test_snapshots_are_folders_not_links(tmp_path):
    version = publish(tmp_path, FILES)
    (tmp_path / version).rename(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="is missing"):
        snapshots.copy(tmp_path, version, tmp_path / "copies" / version)
    (tmp_path / version).symlink_to("elsewhere")
    with pytest.raises(SnapshotError, match="is missing"):
        snapshots.copy(tmp_path, version, tmp_path / "copies" / version)


def test_current_is_a_file_not_a_link(tmp_path):
    assert snapshots.current(tmp_path) is None
    (tmp_path / "other").write_text("a" * 64)
    (tmp_path / "CURRENT").symlink_to("other")
    with pytest.raises(SnapshotError, match="cannot be read"):
        snapshots.current(tmp_path)


def test_snapshots_are_bounded(tmp_path, monkeypatch):
    version = publish(tmp_path, FILES)
    monkeypatch.setattr(snapshots, "FILES_MAX", 3)
    with pytest.raises(SnapshotError, match="more than any"):
        snapshots.copy(tmp_path, version, tmp_path / "copies" / version)
    monkeypatch.undo()
    monkeypatch.setattr(snapshots, "BYTES_MAX", 1)
    with pytest.raises(SnapshotError, match="than any snapshot"):
        snapshots.read(tmp_path / version)


def follow(root, files):
    version = publish(root, files)
    snapshots.follow(root, version, root / "shown")
    return root / "shown"


def test_what_did_not_change_keeps_its_time(tmp_path):
    shown = follow(tmp_path, {"a.py": "a", "b.py": "b"})
    os.utime(shown / "a.py", ns=(1, 1))
    os.utime(shown / "b.py", ns=(1, 1))
    follow(tmp_path, {"a.py": "a", "b.py": "changed"})
    assert (shown / "a.py").stat().st_mtime_ns == 1
    assert (shown / "b.py").stat().st_mtime_ns > 1
    assert (shown / "b.py").read_text() == "changed"


def test_a_file_of_the_same_length_is_newer_by_a_second(tmp_path):
    """Or else Python would run the byte code of the one before."""
    shown = follow(tmp_path, {"a.py": "a = 1"})
    for value in "23":
        before = int((shown / "a.py").stat().st_mtime)
        follow(tmp_path, {"a.py": f"a = {value}"})
        assert int((shown / "a.py").stat().st_mtime) > before
        command = [sys.executable, "-c", "import a; print(a.a)"]
        ran = subprocess.run(command, cwd=shown, stdout=subprocess.PIPE, text=True, check=True)
        assert ran.stdout.strip() == value


def test_a_plan_stays_while_its_dag_may_be_parsed(tmp_path, monkeypatch):
    shown = follow(tmp_path, {"a.py": "1", "a.1.plan.json": "1", "gone.py": "", "sub/x.json": ""})
    follow(tmp_path, {"a.py": "2", "a.2.plan.json": "2"})
    assert names(shown) == {"a.py", "a.1.plan.json", "a.2.plan.json", "sub/x.json"}
    # One that comes back is as if it had never gone.
    follow(tmp_path, {"a.py": "1", "a.1.plan.json": "1"})
    monkeypatch.setattr(snapshots, "LEAVING_SECONDS", 0)
    follow(tmp_path, {"a.py": "3", "a.1.plan.json": "1"})
    assert names(shown) == {"a.py", "a.1.plan.json"}
    assert not (shown / "sub").exists()


def test_files_become_folders_and_folders_files(tmp_path):
    follow(tmp_path, {"a": "", "b/c": ""})
    shown = follow(tmp_path, {"a/b": "in a", "b": "a file"})
    assert ((shown / "a/b").read_text(), (shown / "b").read_text()) == ("in a", "a file")


def test_what_was_interrupted_is_completed(tmp_path, monkeypatch):
    shown = follow(tmp_path, {"a.py": "1", "b.py": "1"})
    replaced = snapshots._replace
    moves = iter(range(10))

    def once(*arguments):
        if next(moves):
            raise KeyboardInterrupt
        replaced(*arguments)

    files = {"a.py": "2", "b.py": "2", "c.py": "2"}
    monkeypatch.setattr(snapshots, "_replace", once)
    with pytest.raises(KeyboardInterrupt):
        follow(tmp_path, files)
    monkeypatch.undo()
    version = snapshots.version_of(snapshots.read(write(tmp_path / "again", files)))
    snapshots.follow(tmp_path, version, shown)
    assert snapshots.version_of(snapshots.read(shown)) == version
    assert not list(tmp_path.glob(".copy-*"))


def test_a_spoiled_snapshot_changes_nothing(tmp_path):
    shown = follow(tmp_path, {"a.py": "1"})
    version = publish(tmp_path, {"a.py": "2"})
    (tmp_path / version / "a.py").write_text("3")
    with pytest.raises(SnapshotError, match="changed after it was named"):
        snapshots.follow(tmp_path, version, shown)
    assert (shown / "a.py").read_text() == "1"


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
