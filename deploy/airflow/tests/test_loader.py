"""Layout `loader`: the same DAGs as from one file each, however broken one of their plans is."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from airflows import dag_bag, serialization
from conftest import DAGS, GOLDENS

from dagwright_airflow import blueprint, loader, plan
from dagwright_airflow.compat import AirflowFailException

DAG_IDS = sorted(json.loads((GOLDENS / "loader" / loader.INDEX).read_text())["dags"])

# Where a DAG was found says nothing of it.
PLACES = {"fileloc", "relative_fileloc", "_processor_dags_folder"}


@pytest.fixture(autouse=True)
def no_context(monkeypatch):
    """Nothing is left of an earlier test's `dag.test()`, which in 3.1 and 3.2 leaves what is parsed for."""
    for name in ("DAG_ID", "TASK_ID"):
        monkeypatch.delenv(f"_AIRFLOW_PARSING_CONTEXT_{name}", raising=False)


@pytest.fixture
def folder(tmp_path):
    """A DAG folder in layout `loader` with every golden."""
    for path in [*DAGS.glob("*.plan.json"), *(GOLDENS / "loader").iterdir()]:
        shutil.copy(path, tmp_path)
    return tmp_path


def bag(folder):
    return dag_bag(folder)


def serialized(dag):
    """Return a DAG as Airflow stores it."""
    # As the database gets it: what no JSON could hold, or no UTF-8, fails here.
    text = json.dumps(without_places(serialization().to_dict(dag)), sort_keys=True, ensure_ascii=False)
    return json.loads(text.encode("utf-8"))


def without_places(value):
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items() if key not in PLACES}
    return [without_places(inner) for inner in value] if isinstance(value, list) else value


def read(folder):
    """Return the serialized DAGs of a folder, which has no import error."""
    found = bag(folder)
    assert not found.import_errors
    return {dag_id: serialized(dag) for dag_id, dag in found.dags.items()}


@pytest.fixture(scope="module")
def compiled():
    """The serialized DAGs of the compiled DAG files."""
    return read(DAGS)


def plan_of(folder, dag_id):
    return folder / json.loads((folder / loader.INDEX).read_text())["dags"][dag_id]


def change(path, edit):
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document, indent=2))


# === equality ===


def test_dags_are_those_of_the_compiled_files(folder, compiled):
    loaded = read(folder)
    assert sorted(loaded) == sorted(compiled) == DAG_IDS
    for dag_id in DAG_IDS:
        assert loaded[dag_id] == compiled[dag_id], dag_id


def test_documentation_is_that_of_the_compiled_files_to_the_byte(folder):
    loaded, written = bag(folder).dags, bag(DAGS).dags
    assert {dag_id: dag.doc_md for dag_id, dag in loaded.items()} == {
        dag_id: dag.doc_md for dag_id, dag in written.items()
    }


def test_dags_say_to_come_from_the_loaders_file(folder):
    assert {dag.fileloc for dag in bag(folder).dags.values()} == {str(folder / "dagwright_loader.py")}


def test_parsed_and_deployed_again_nothing_changes(folder, tmp_path_factory, compiled):
    for _ in range(10):
        again = tmp_path_factory.mktemp("snapshot")
        shutil.copytree(folder, again, dirs_exist_ok=True)
        # Elsewhere, as in the next snapshot of a bundle, a DAG is still the same version.
        assert read(again) == compiled


def test_operators_find_the_plan_beside_the_loader(folder, compiled):
    for dag_id, dag in bag(folder).dags.items():
        for task in dag.tasks:
            if not hasattr(task, "partial_kwargs"):
                assert plan.read(task.plan_path()).body["dag_id"] == dag_id


@pytest.mark.usefixtures("database")
def test_a_loaded_dag_runs(folder, fake):
    dag = bag(folder).dags["parts"]
    run = dag.test()
    assert {str(getattr(ti.state, "value", ti.state)) for ti in run.get_task_instances()} == {"success"}
    # Mapped tasks are made anew when they run, and find their plan as well.
    assert [task["task"]["id"] for task in fake.given()] == [
        "split_source",
        *["load_sink"] * 3,
        "publish_sink",
        "cleanup",
    ]


# === from one layout to the other ===


def test_a_dag_with_a_file_of_its_own_is_made_by_that_alone(folder, compiled):
    for path in DAGS.glob("parts.py"):
        shutil.copy(path, folder)
    found = bag(folder)
    assert not found.import_errors
    assert {dag_id: serialized(dag) for dag_id, dag in found.dags.items()} == compiled
    files = {dag_id: Path(dag.fileloc).name for dag_id, dag in found.dags.items()}
    assert files.pop("parts") == "parts.py"
    assert set(files.values()) == {"dagwright_loader.py"}


def test_somebody_elses_file_hides_no_dag(folder):
    (folder / "parts.py").write_text("print('mine')\n")
    os.mkfifo(folder / "carriers.py")
    namespace = {}
    loader.load(str(folder / "dagwright_loader.py"), namespace)
    assert sorted(dag.dag_id for dag in namespace.values()) == DAG_IDS


def test_a_task_that_was_queued_by_the_loader_finds_its_dag_there(folder, monkeypatch):
    shutil.copy(DAGS / "parts.py", folder)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "parts")
    namespace = {}
    loader.load(str(folder / "dagwright_loader.py"), namespace)
    assert [dag.dag_id for dag in namespace.values()] == ["parts"]


# === the parsing context ===


def test_for_one_dag_no_other_plan_is_read(folder, monkeypatch):
    asked = []
    real = plan.read_dag
    monkeypatch.setattr(plan, "read_dag", lambda path: asked.append(path.name) or real(path))
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "parts")
    assert list(bag(folder).dags) == ["parts"]
    assert asked == [plan_of(folder, "parts").name]
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "gone")
    assert not bag(folder).dags


def test_a_task_of_an_unreadable_plan_says_why(folder, monkeypatch):
    plan_of(folder, "parts").unlink()
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "parts")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "publish_sink")
    assert [task.task_id for task in bag(folder).dags["parts"].tasks] == ["publish_sink"]


# === bad plans ===


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def make_folder(path):
    path.unlink()
    path.mkdir()


def write(content):
    return lambda path: path.write_bytes(content)


def say(**changes):
    return lambda path: change(path, lambda document: document["dag"].update(changes))


BAD = {
    "missing": lambda path: path.unlink(),
    "a pipe": make_pipe,
    "a folder": make_folder,
    "empty": write(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "no JSON": write(b'{\n  "dag": nope'),
    "no Unicode": write(b'{\n  "dag": "\xff"'),
    "no number": write(b'{\n  "dag": {"max_active_runs": NaN}'),
    "too deep": write(b'{\n  "dag": ' + b"[" * 200_000),
    "no map": write(b'{\n  "dag": []'),
    "without a DAG": lambda path: change(path, lambda document: document.pop("dag")),
    "another DAG": say(dag_id="carriers"),
    "a file's name as documentation": say(doc_md="/etc/passwd.md"),
    "an unknown operator": say(
        tasks=[{"task_id": "x", "operator": "BashOperator", "execution_timeout_ms": 1, "outlets": [], "after": []}]
    ),
    "no cron expression": say(schedule={"cron": "nonsense", "timezone": "UTC"}),
    "no time zone": say(schedule={"cron": "@daily", "timezone": "Mars"}),
    "an asset of Airflow's": say(schedule={"assets": ["airflow://x"]}),
    "a schedule and a parameter without default": say(
        schedule={"cron": "0 3 * * *", "timezone": "UTC"}, params={"day": {"schema": {"type": "string"}}}
    ),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD.keys())
def test_a_bad_plan_harms_its_dag_alone(folder, compiled, spoil):
    spoil(plan_of(folder, "parts"))
    loaded = bag(folder)
    assert not loaded.import_errors, "Airflow would start no run of any DAG of this file"
    assert sorted(loaded.dags) == DAG_IDS
    for dag_id in DAG_IDS:
        assert (serialized(loaded.dags[dag_id]) == compiled[dag_id]) is (dag_id != "parts")
    stands_in = loaded.dags["parts"]
    # The daemon knows by them which plan cannot be read, and why.
    plan_tag = f"plan {plan_of(folder, 'parts').name.split('.')[1]}"
    assert sorted(stands_in.tags) == ["dagwright", "dagwright-unreadable", plan_tag]
    assert stands_in.description.startswith("DW0120: ")
    assert "DW0120" in stands_in.doc_md
    assert "deployed again" in stands_in.doc_md
    assert [(task.task_id, task.retries) for task in stands_in.tasks] == [("plan_unreadable", 0)]
    assert not stands_in.timetable.can_be_scheduled


@pytest.mark.usefixtures("database")
def test_a_run_of_an_unreadable_plan_fails_and_says_why(folder):
    plan_of(folder, "parts").write_bytes(b"")
    dag = bag(folder).dags["parts"]
    run = dag.test()
    assert str(getattr(run.state, "value", run.state)) == "failed"
    with pytest.raises(AirflowFailException, match=r"DW0120: parts\.\S+ does not begin with a DAG"):
        type(dag.tasks[0]).execute.__wrapped__(dag.tasks[0], {})


def test_reasons_are_no_markup_and_have_an_end(folder):
    change(plan_of(folder, "parts"), lambda document: document["dag"]["tasks"][0].update(task_id="\n\n# x\x1b[2J" * 70))
    doc = bag(folder).dags["parts"].doc_md
    assert len(doc.splitlines()) == 5
    assert doc.splitlines()[2].startswith("    DW0120: Airflow does not take the DAG")
    assert len(doc) < 1000
    assert "\x1b" not in doc


# === hostile blueprints ===

VALUES = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "x" * 3000,
    "\ud800",
    "a\0b",
    "{{ ds }}",
    "../../etc/passwd",
    "/etc/passwd.md",
    [],
    {},
    ["x"],
    [["x"]],
    {"x": 1},
    [None],
]


def places(value, path=()):
    """Yield the path of each value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(document, path, value):
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("dag_id", ["parts", "aviation.flights_daily", "aviation.chained"])
def test_any_value_anywhere_gives_a_dag_that_airflow_takes(folder, dag_id, monkeypatch):
    said = plan.read_dag(plan_of(folder, dag_id))
    file = str(folder / "dagwright_loader.py")
    taken = 0
    for path in places(said):
        for value in VALUES:
            broken = put(said, path, value)
            monkeypatch.setattr(plan, "read_dag", lambda _, broken=broken: broken)
            dag = loader._dag(dag_id, plan_of(folder, dag_id).name, file, None)
            where = f"{value!r:.40} at {path}"
            assert (dag.dag_id, dag.fileloc) == (dag_id, file), where
            stored = json.dumps(serialized(dag))
            assert "root:" not in stored, where
            dag.validate()
            taken += "dagwright-unreadable" not in dag.tags
    # Free texts, times and counts may be anything within their bounds.
    assert taken > 10


def test_a_task_cannot_come_before_itself(folder):
    said = plan.read_dag(plan_of(folder, "parts"))
    for task, other in [(0, "cleanup"), (0, "split_source"), (2, "cleanup")]:
        broken = put(said, ("tasks", task, "after"), [other])
        with pytest.raises(plan.PlanError, match="not valid"):
            blueprint.build(broken, "parts", "parts.x", "x.py")


# === indexes ===


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 200_000,
        b'{"dags": {}}',
        b'{"dags": {}, "version": 2}',
        b'{"dags": [], "version": 1}',
        b'{"dags": {"a": 1}, "version": 1}',
        b'{"dags": {"a": "../a.0123456789ab.plan.json"}, "version": 1}',
        b'{"dags": {"a": "/etc/a.0123456789ab.plan.json"}, "version": 1}',
        b'{"dags": {"a": "a.plan.json"}, "version": 1}',
        b'{"dags": {"a b": "a.0123456789ab.plan.json"}, "version": 1}',
        b'{"dags": {"": "a.0123456789ab.plan.json"}, "version": 1}',
    ],
)
def test_a_bad_index_is_an_import_error(folder, content):
    (folder / loader.INDEX).write_bytes(content)
    found = bag(folder)
    assert not found.dags
    (error,) = found.import_errors.values()
    assert "DW0120" in error
    assert loader.INDEX in error


def test_a_missing_index_is_an_import_error(folder):
    (folder / loader.INDEX).unlink()
    assert len(bag(folder).import_errors) == 1


def test_an_empty_index_is_an_empty_folder(folder):
    (folder / loader.INDEX).write_text('{"dags": {}, "version": 1}')
    assert read(folder) == {}


def test_a_plan_that_was_replaced_meanwhile_is_found(folder, compiled, monkeypatch):
    before, after = plan_of(folder, "parts"), folder / "parts.0123456789ab.plan.json"
    real = loader.read_index

    def stale(path):
        index = real(path)
        monkeypatch.setattr(loader, "read_index", real)
        # Now comes the deploy: the new plan, the index, and the old plan goes.
        shutil.copy(before, after)
        change(folder / loader.INDEX, lambda document: document["dags"].update(parts=after.name))
        before.unlink()
        return index

    monkeypatch.setattr(loader, "read_index", stale)
    namespace = {}
    loader.load(str(folder / "dagwright_loader.py"), namespace)
    (dag,) = [dag for dag in namespace.values() if dag.dag_id == "parts"]
    assert {task.task_id for task in dag.tasks} == {"cleanup", "load_sink", "publish_sink", "split_source"}
