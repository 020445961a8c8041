"""Prove that compiled DAG files full of hostile texts are the code that benign texts give.

For each <name>.<target>.py of the folder given first:
- Python parses it to the same tree as benign.<target>.py, constants and the number of list items aside;
- it imports only what a DAG file may import;
- operators are given nothing but a task id, a plan, a timeout, a partition and assets, whose URIs hold nothing that
  means something to a template: so no text where Airflow sees templates;
- those who are told of failures are given nothing but names;
- the texts are found again, unchanged, where they belong;
- doc_md names no file;
- the plan file reads, its hash recomputed by the package's own reader, given second.
"""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path

ALLOWED_IMPORTS = {"datetime", "airflow", "dagwright_airflow"}
ALLOWED_ARGUMENTS = {"task_id", "plan", "execution_timeout", "partition", "outlets"}
ASSET_URI = re.compile(r"dagwright://[A-Za-z0-9_.%-]+/[a-z0-9_]+")


class Shape(ast.NodeTransformer):
    """Reduces a tree to what its texts must not change."""

    def visit_Constant(self, node):
        return ast.Constant(type(node.value).__name__)


def shape(tree):
    return ast.dump(Shape().visit(tree))


def value(node):
    return ast.literal_eval(node)


def check(path, benign, reader):
    tree = ast.parse(path.read_bytes())
    expected = json.loads(path.with_suffix(".expected").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.ImportFrom) and node.level == 0 for node in imports), "imports"
    assert {node.module.split(".")[0] for node in imports} <= ALLOWED_IMPORTS, "imports"

    doc = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "DOC")
    assert not value(doc).rstrip().endswith(".md"), "doc_md"
    (block,) = [node for node in tree.body if isinstance(node, ast.With)]
    dag = {keyword.arg: keyword.value for keyword in block.items[0].context_expr.keywords}
    defaults = value(
        ast.Dict(
            *zip(
                *[
                    (key, item)
                    for key, item in zip(dag["default_args"].keys, dag["default_args"].values, strict=True)
                    if key.value in ("owner", "pool")
                ],
                strict=True,
            )
        )
    )
    params = {key.value: call for key, call in zip(dag["params"].keys, dag["params"].values, strict=True)}
    region = {keyword.arg: keyword.value for keyword in params["region"].keywords}
    calls = [node for statement in block.body for node in ast.walk(statement) if isinstance(node, ast.Call)]
    operators = [node for node in calls if "Dagwright" in ast.dump(node.func)]
    task_ids = []
    for call in operators:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        assert not call.args and keywords.keys() <= ALLOWED_ARGUMENTS, "operator arguments"
        for asset in keywords["outlets"].elts if "outlets" in keywords else []:
            assert ASSET_URI.fullmatch(value(asset.args[0])), "assets"
        task_ids += [value(keywords["task_id"])] if "task_id" in keywords else []
    found = {
        "dag_id": value(dag["dag_id"]),
        "owner": defaults["owner"],
        "pool": defaults["pool"],
        "description": value(dag["description"]),
        "tag": value(dag["tags"])[0],
        "default": value(params["region"].args[0]),
        "enum": value(region["enum"]),
        "task_ids": task_ids,
        "plan_file": expected["plan_file"],
        **{keyword.arg: value(keyword.value) for keyword in dag["on_failure_callback"].keywords},
    }
    # Where it is `**deadline(…)`, those who are told are its second argument.
    assert None not in dag or value(dag[None].args[1]) == expected["on_deadline"], "deadline"
    assert found == expected, f"texts: {found} != {expected}"
    assert ast.dump(ast.Constant(expected["plan_file"])) in ast.dump(tree), "plan file"
    assert shape(tree) == benign, "shape"
    plan = reader.read(path.parent / expected["plan_file"])
    assert plan.body["dag_id"] == expected["dag_id"], "plan"


def main():
    folder, reader_path = map(Path, sys.argv[1:])
    spec = importlib.util.spec_from_file_location("plan", reader_path)
    reader = importlib.util.module_from_spec(spec)
    sys.modules["plan"] = reader
    spec.loader.exec_module(reader)
    count = 0
    for path in sorted(folder.glob("*.py")):
        target = path.name.split(".")[-2]
        benign = shape(ast.parse((folder / f"benign.{target}.py").read_text(encoding="utf-8")))
        try:
            check(path, benign, reader)
        except (AssertionError, SyntaxError, ValueError, reader.PlanError) as error:
            sys.exit(f"{path.name}: {error!r}\n{path.read_text(encoding='utf-8')}")
        count += 1
    print(f"{count} files")


if __name__ == "__main__":
    main()
