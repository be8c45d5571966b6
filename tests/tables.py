"""The rows of a log as an Arrow table, and tables as the files that a user would write."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.data.sources import read
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile


def table_of(paths: Sequence[str | Path], file: FeatureFile) -> pa.Table:
    """The columns that the feature file names, texts as text, histories as lists."""
    rules = column_rules(file)
    found: dict[str, list[Any]] = {rule.column: [] for rule in rules.values()}
    for rows in read(paths, rules, file.csv):
        for name, rule in rules.items():
            values = [one.decode() if isinstance(one, bytes) else one for one in rows.columns[name].values.tolist()]
            start = 0
            for length in rows.columns[name].lengths.tolist():
                own = values[start : start + length]
                found[rule.column].append(own if rule.history else next(iter(own), None))
                start += length
    return pa.table(found)


def write_parquet(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=64)
    return path


def write_csv(path: Path, table: pa.Table) -> Path:
    """A CSV with a header, gzip where the name says so; the events of a history are joined by spaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.column_names)
        for row in table.to_pylist():
            writer.writerow(" ".join(map(str, one)) if isinstance(one, list) else one for one in row.values())
    return path
