"""Small logs as teams have them, for `tfctr init`."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.records import write_records

NOW = 1_700_000_000
ROWS = {"train": 1_200, "valid": 200, "test": 200}


def odd_log(directory: Path, **changed: Any) -> Path:
    """A Parquet log with names that are no identifiers; a column that is given replaces one, None leaves it out."""
    for split, rows in ROWS.items():
        columns = {name: value for name, value in {**_odd_columns(split, rows), **changed}.items() if value is not None}
        (directory / split).mkdir(parents=True)
        made = {name: value(rows) if callable(value) else value for name, value in columns.items()}
        pq.write_table(pa.table(made), directory / split / "part.parquet")
    return directory


def _odd_columns(split: str, rows: int) -> Mapping[str, Any]:
    draw = np.random.default_rng(len(split))
    user, item = draw.integers(40, size=rows), draw.integers(60, size=rows)
    time = NOW + np.arange(rows) * 60
    lengths = draw.integers(4, size=rows)
    past = [[int(one) for one in draw.integers(60, size=length)] for length in lengths]
    return {
        "click": (draw.random(rows) < 0.2 + 0.6 * (item % 2)).astype(np.int64),
        "userId": user,
        "itemId": item,
        "ts": time,
        "importance": draw.random(rows) + 0.5,
        "impression": [f"{split}-{row}" for row in range(rows)],
        "205": user % 7,
        "class": [f"c{one % 5}" for one in item],
        "user-item_affinity_0": draw.normal(size=rows),
        "price (EUR)": np.exp(item / 5.0),
        "views": (np.exp(item / 4.0)).astype(np.int64) * 3 - 2,
        "tags": [[f"t{one % 3}", f"t{one % 4}"] for one in item],
        "premium": item % 3 == 0,
        "market": ["de"] * rows,
        "nothing": pa.nulls(rows, pa.string()),
        "device": [{"os": "a"}] * rows,
        "clickedItems": past,
        "clickedAt": [[int(now) - 5 - place for place in range(len(one))] for now, one in zip(time, past, strict=True)],
        "clickedTags": [[[f"t{event % 3}", f"t{event % 4}"] for event in one] for one in past],
        "clickedPrice": [[float(np.exp(event / 5.0)) for event in one] for one in past],
    }


CRITEO = ["label", *(f"I{number}" for number in range(1, 4)), *(f"C{number}" for number in range(1, 4))]


def criteo_log(directory: Path) -> Path:
    """Tabs, no names in the first line, counts with gaps, and hexadecimal texts."""
    for split, rows in ROWS.items():
        draw = np.random.default_rng(len(split))
        lines = []
        for row in range(rows):
            texts = [f"{draw.integers(2**32):08x}", f"{draw.integers(9):08d}", f"{draw.integers(300):x}z"]
            counts = [int(draw.pareto(0.7)), draw.integers(5), draw.integers(-3, 900)]
            lines.append(
                "\t".join(map(str, (draw.integers(2), *("" if row % 9 == 4 else one for one in counts), *texts)))
            )
        (directory / split).mkdir(parents=True)
        (directory / split / "part.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return directory


def history_csv(directory: Path) -> Path:
    """A CSV whose histories are texts, with companions of the same length, and a title that has spaces."""
    for split, rows in ROWS.items():
        draw = np.random.default_rng(len(split))
        lines = ["label,user_id,item_id,timestamp,title,hist_item_id,hist_time,search_title"]
        for row in range(rows):
            now, length = NOW + 60 * row, int(draw.integers(4))
            past = " ".join(str(one) for one in draw.integers(50, size=length))
            times = " ".join(str(now - 7 - place) for place in range(length))
            title = f"the item {draw.integers(9)}"
            lines.append(f"{row % 2},{draw.integers(20)},{draw.integers(50)},{now},{title},{past},{times},{title} now")
        (directory / split).mkdir(parents=True)
        (directory / split / "part.csv").write_text("\n".join(lines) + "\n")
    return directory


def csv_log(directory: Path, column: Callable[[np.random.Generator, int], Mapping[str, Any]]) -> Path:
    """A CSV of some columns, which are given a source of chance and the number of rows, and a label."""
    for split, rows in ROWS.items():
        draw = np.random.default_rng(len(split))
        columns = {"label": draw.integers(2, size=rows), **column(draw, rows)}
        lines = [",".join(map(str, line)) for line in (columns, *zip(*columns.values(), strict=True))]
        (directory / split).mkdir(parents=True)
        (directory / split / "part.csv").write_text("\n".join(lines) + "\n")
    return directory


def record_log(directory: Path, **column: Callable[[int], Any]) -> Path:
    """TFRecord files of a label, a user, an item and other columns, which are given the row."""
    for split, rows in ROWS.items():
        draw = np.random.default_rng(len(split))
        made = (
            {
                "label": int(draw.integers(2)),
                "user_id": row % 40,
                "item_id": int(draw.integers(60)),
                **{name: value(row) for name, value in column.items()},
            }
            for row in range(rows)
        )
        write_records(directory / split / "part.tfrecord", made)
    return directory
