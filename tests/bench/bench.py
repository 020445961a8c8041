"""Measures Dagwright beside its peers: TPC-H lineitem, medians of several runs, one tool after the other in each round.

Every run's row count and sums are verified. Wall time is the whole command, from start to exit; memory is the largest
sum of resident sets over the process tree, sampled every 20 ms; CPU is user + system of the tree. The ratios are what
counts: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = Path(os.environ["DAGWRIGHT_TOOLS"])
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

LINEITEM = """
    l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber int, l_quantity decimal(15,2),
    l_extendedprice decimal(15,2), l_discount decimal(15,2), l_tax decimal(15,2), l_returnflag text, l_linestatus text,
    l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text
"""
CHECKSUM = "count(*), sum(l_orderkey), sum(l_extendedprice), min(l_shipdate), max(l_receiptdate)"

COLUMNS = "\n".join(
    f"      {name}: {{ type: '{kind}' }}"
    for name, kind in (
        ("l_orderkey", "int64"),
        ("l_partkey", "int64"),
        ("l_suppkey", "int64"),
        ("l_linenumber", "int32"),
        ("l_quantity", "decimal(15,2)"),
        ("l_extendedprice", "decimal(15,2)"),
        ("l_discount", "decimal(15,2)"),
        ("l_tax", "decimal(15,2)"),
        ("l_returnflag", "string"),
        ("l_linestatus", "string"),
        ("l_shipdate", "date"),
        ("l_commitdate", "date"),
        ("l_receiptdate", "date"),
        ("l_shipinstruct", "string"),
        ("l_shipmode", "string"),
        ("l_comment", "string"),
    )
)


@dataclass
class Sample:
    """One measured command."""

    wall: float
    cpu: float
    peak_mib: float


@dataclass
class Contender:
    """One tool at one kind of work."""

    work: str
    tool: str
    prepare: Callable[[], None]
    command: list[str]
    checksum: Callable[[], tuple]
    env: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None
    samples: list[Sample] = field(default_factory=list)


def tree(pid: int) -> Iterator[int]:
    """Yields a process and its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from tree(int(child))


def resident(pid: int) -> int:
    """Returns the bytes a process holds in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def measure(contender: Contender) -> Sample:
    """Runs the command once and measures it."""
    contender.prepare()
    before = os.times()
    start = time.monotonic()
    process = subprocess.Popen(
        contender.command,
        env={**os.environ, **contender.env},
        stdin=subprocess.PIPE if contender.stdin else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if contender.stdin:
        process.stdin.write(contender.stdin)
        process.stdin.close()
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident(pid) for pid in tree(process.pid)))
        time.sleep(0.02)
    wall = time.monotonic() - start
    after = os.times()
    if process.returncode != 0:
        sys.exit(f"{contender.work}, {contender.tool}: exit {process.returncode}\n{process.stderr.read()[-4000:]}")
    cpu = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Sample(wall, cpu, peak / 2**20)


@contextmanager
def postgres() -> Iterator[str]:
    """Starts a throwaway server for the length of a block and yields its URL."""
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as folder:
        Path(folder).chmod(0o755)
        script = ROOT / "tests/scripts/postgres.sh"
        data = f"{folder}/postgres"
        start = [script, "start", data, str(os.getpid())]
        url = subprocess.run(start, check=True, capture_output=True, text=True).stdout.strip()
        try:
            # The tests' server trades durability for speed; nobody's warehouse does.
            for setting in (
                "fsync = on",
                "synchronous_commit = on",
                "full_page_writes = on",
                "shared_buffers = '512MB'",
                "max_wal_size = '4GB'",
            ):
                psql(url, f"alter system set {setting}")
            subprocess.run([script, "stop", data], check=True)
            subprocess.run(start, check=True, capture_output=True)
            yield url
        finally:
            subprocess.run([script, "stop", data], check=True)


def psql(url: str, sql: str) -> str:
    """Runs SQL and returns what it prints."""
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", sql],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def generate(folder: Path, scale: str) -> Path:
    """Generates lineitem once; its bytes depend on the scale alone."""
    path = folder / f"lineitem-sf{scale}.csv"
    if not path.exists():
        part = folder / f"generating-sf{scale}"
        subprocess.run(
            [
                TOOLS / "tools/bin/tpchgen-cli",
                "csv",
                f"--scale-factor={scale}",
                "--tables=lineitem",
                f"--output-dir={part}",
            ],
            check=True,
        )
        (part / "lineitem.csv").rename(path)
        shutil.rmtree(part)
    return path


def spec(work: Path, name: str, csv: Path, sink: str) -> Path:
    """Writes a Dagwright spec for one copy of lineitem."""
    path = work / f"{name}.yaml"
    path.write_text(
        f"version: 1\npipeline: {name}\n"
        f"source:\n    uri: {csv}\n    format: csv\n    columns:\n{COLUMNS}\n"
        f"sink: {sink}\n"
    )
    return path


def contenders(bin_dir: Path, csv: Path, work: Path, url: str) -> list[Contender]:
    """Lists what is compared, each with how to start from nothing and how to verify it."""
    out = work / "out"

    def fresh_folder() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    def fresh_table() -> None:
        psql(url, f"drop table if exists lineitem; create table lineitem ({LINEITEM})")
        psql(url, "drop table if exists _dagwright_effects, _dagwright_cursors")
        psql(url, "checkpoint")

    def parquet(pattern: str) -> Callable[[], tuple]:
        return lambda: tuple(
            str(value) for value in duckdb.sql(f"select {CHECKSUM} from '{out}/{pattern}'").fetchall()[0]
        )

    def table() -> tuple:
        return tuple(psql(url, f"select {CHECKSUM} from lineitem").split("|"))

    store = str(work / "store")
    names = ", ".join(
        f"'{part.split()[0]}': '{' '.join(part.split()[1:])}'"
        for part in LINEITEM.replace("decimal(15,2)", "decimal(15;2)").split(",")
    ).replace("decimal(15;2)", "decimal(15,2)")
    environment = {"DAGWRIGHT__STORE__PATH": store, "DAGWRIGHT_CONN_WAREHOUSE": url}
    to_parquet = spec(work, "lineitem_parquet", csv, f"{{ uri: {out}/lineitem.parquet, mode: replace }}")
    to_postgres = spec(
        work,
        "lineitem_postgres",
        csv,
        "{ connection: warehouse, table: public.lineitem, mode: append, meta_columns: false }",
    )
    dagwright = str(bin_dir / "dagwright")

    def fresh_run(then: Callable[[], None]) -> Callable[[], None]:
        def prepare() -> None:
            shutil.rmtree(store, ignore_errors=True)
            then()

        return prepare

    read = f"read_csv('{csv}', columns={{{names}}}, header=true)"
    duck = f"copy (select * from {read}) to '{out}/duckdb.parquet' (format parquet, compression zstd)"
    return [
        Contender(
            "CSV → Parquet (zstd)",
            "DuckDB " + duckdb.__version__,
            fresh_folder,
            [sys.executable, "-c", f'import duckdb; duckdb.sql("""{duck}""")'],
            parquet("duckdb.parquet"),
        ),
        Contender(
            "CSV → Parquet (zstd)",
            "Dagwright",
            fresh_run(fresh_folder),
            [dagwright, "run", str(to_parquet)],
            parquet("lineitem.parquet"),
            environment,
        ),
        Contender(
            "CSV → PostgreSQL",
            "psql \\copy",
            fresh_table,
            ["psql", "-X", "-q", url, "-c", f"\\copy lineitem from '{csv}' with (format csv, header)"],
            table,
        ),
        Contender(
            "CSV → PostgreSQL",
            "Dagwright",
            fresh_run(fresh_table),
            [dagwright, "run", str(to_postgres)],
            table,
            environment,
        ),
    ]


def demo(bin_dir: Path, work: Path) -> Contender:
    """The demo's main spec, from start to summary."""
    store = str(work / "demo-store")

    def prepare() -> None:
        shutil.rmtree(store, ignore_errors=True)

    return Contender(
        "demo: examples/flights.yaml",
        "Dagwright",
        prepare,
        [str(bin_dir / "dagwright"), "run", str(ROOT / "examples/flights.yaml")],
        tuple,
        {"DAGWRIGHT__STORE__PATH": store},
    )


def render(entries: list[Contender], runs: int) -> str:
    """Renders the table in Markdown; the first tool of each work is the peer that ratios refer to."""
    lines = ["| work | tool | wall s | × peer | CPU s (client) | peak MiB |", "|---|---|---|---|---|---|"]
    peers: dict[str, float] = {}
    for entry in entries:
        wall = statistics.median(sample.wall for sample in entry.samples)
        cpu = statistics.median(sample.cpu for sample in entry.samples)
        peak = max(sample.peak_mib for sample in entry.samples)
        ratio = f"{wall / peers.setdefault(entry.work, wall):.2f}"
        lines.append(f"| {entry.work} | {entry.tool} | {wall:.2f} | {ratio} | {cpu:.2f} | {peak:.0f} |")
    lines.append("")
    lines.append(
        f"Medians of {runs} (memory: the largest), {os.cpu_count()} cores, {platform.system()} {platform.machine()}."
    )
    return "\n".join(lines)


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, help="the folder with dagwright and dagwright-task")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", default="1", help="TPC-H scale factor")
    parser.add_argument("--data", type=Path, default=TOOLS / "tpch", help="where the generated data is kept")
    parser.add_argument("--json", type=Path, help="also write every sample here")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    csv = generate(options.data, options.scale)
    with tempfile.TemporaryDirectory(prefix="dagwright-bench-") as folder, postgres() as url:
        work = Path(folder)
        entries = contenders(options.bin.resolve(), csv, work, url)
        wanted: dict[str, tuple] = {}
        for run in range(options.runs + 1):  # The first round warms the page cache and is thrown away.
            for entry in entries:
                sample = measure(entry)
                seen = entry.checksum()
                if wanted.setdefault(entry.work, seen) != seen:
                    sys.exit(f"{entry.work}, {entry.tool}: {seen} instead of {wanted[entry.work]}")
                if run:
                    entry.samples.append(sample)
                print(
                    f"run {run}: {entry.work}, {entry.tool}: {sample.wall:.2f} s, {sample.peak_mib:.0f} MiB",
                    file=sys.stderr,
                )
        small = demo(options.bin.resolve(), work)
        small.samples = [measure(small) for _ in range(options.runs)]
        entries.append(small)
    print(render(entries, options.runs))
    if options.json:
        options.json.write_text(
            json.dumps(
                [{"work": e.work, "tool": e.tool, "samples": [vars(s) for s in e.samples]} for e in entries], indent=2
            )
        )


if __name__ == "__main__":
    main()
