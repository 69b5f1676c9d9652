"""The table of finished runs: per model, mean ± standard deviation over folds and seeds.

    python -m benchmarks.summary runs/Synthetic/fold1 [--csv table.csv]

Reads every ``metrics.json`` that a ``fit`` left below a folder. Runs on different corpora, or on
different data under the same name, are refused: they cannot be compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.errors import InputError
from datamodules.files import atomic_path
from ifmmin.metrics import SUMMARY_ROWS
from ifmmin.report import SYNTHETIC, readable

Record = dict[str, Any]
METRICS = ("WA", "UA")


def read_records(folder: Path) -> list[Record]:
    """The results of all finished fits below ``folder``.

    Raises:
        InputError: there are none, or they are of different corpora or data.
    """
    paths = [path for path in sorted(folder.rglob("metrics.json")) if (path.parent / "config.yaml").is_file()]
    records: list[Record] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not records:
        raise InputError(f"{folder}: no finished run there.")
    data: dict[tuple[str, int], str] = {}
    for path, record in zip(paths, records, strict=True):
        key = (record["corpus"], record["fold"])
        found = data.setdefault(key, record["record"]["data_fingerprint"])
        if found != record["record"]["data_fingerprint"] or record["corpus"] != records[0]["corpus"]:
            raise InputError(f"{path}: its data are not those of the other runs; compare them apart.")
    return records


def spread(values: Sequence[float | None]) -> str:
    """``mean ± standard deviation`` in percent; a dash where a run did not answer."""
    numbers = [100 * value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        return "–"
    return f"{mean(numbers):.2f} ± {stdev(numbers):.2f}" if len(numbers) > 1 else f"{mean(numbers):.2f}"


def by_model(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each model, best pooled WA first."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record["model"]].append(record)
    return dict(sorted(groups.items(), key=lambda item: -mean(r["metrics"]["pooled"]["WA"] or 0 for r in item[1])))


def bayes_limit(records: Sequence[Record]) -> Mapping[str, float] | None:
    """WA of the Bayes rule per row, where it is known: the mean over the folds that occur."""
    folds = {record["fold"]: record["metrics"] for record in records}
    if any(rows["a"]["bayes_WA"] is None for rows in folds.values()):
        return None
    return {name: mean(rows[name]["bayes_WA"] for rows in folds.values()) for name in SUMMARY_ROWS}


def table_of(records: Sequence[Record], metric: str) -> Table:
    """One row per model, one column per condition."""
    first = records[0]
    corpus = SYNTHETIC if first["is_synthetic"] else first["corpus"]
    folds, seeds = (sorted({record[key] for record in records}) for key in ("fold", "seed"))
    title = f"{metric} in % on {corpus}\nfolds {folds}, seeds {seeds}: mean ± std"
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in SUMMARY_ROWS:
        table.add_column(readable(name), justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    for model, runs in by_model(records).items():
        cells = [spread([run["metrics"][name][metric] for run in runs]) for name in SUMMARY_ROWS]
        table.add_row(model, *cells, str(len(runs)))
    limit = bayes_limit(records)
    if limit is not None and metric == "WA":
        table.add_section()
        table.add_row("Bayes limit", *(f"{100 * limit[name]:.2f}" for name in SUMMARY_ROWS), "")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the tables; 1 where the runs cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, help="also write every run's values to this file")
    options = parser.parse_args(argv)
    try:
        records = read_records(options.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console = Console(width=max(180, Console().width))
    for metric in METRICS:
        console.print(table_of(records, metric))
    if options.csv:
        with atomic_path(options.csv) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["model", "fold", "seed", "condition", "WA", "UA", "F1", "bayes_WA"])
            for record in records:
                for name, row in record["metrics"].items():
                    values = (row[key] for key in ("WA", "UA", "F1", "bayes_WA"))
                    writer.writerow([record["model"], record["fold"], record["seed"], name, *values])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
