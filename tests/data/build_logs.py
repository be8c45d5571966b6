"""Small logs and build files for the tests of `tfctr data build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of
from tfctr.data.splits import SPLITS

BUILD: dict[str, Any] = {
    "log": {"path": "log.parquet", "user": "user", "item": "item", "time": "time"},
    "label": {"column": "click"},
    "histories": {
        "clicks": {
            "length": 5,
            "events": [{"column": "click", "one_of": [1]}],
            "columns": {"clicks_item": "log.item", "clicks_time": "log.time"},
        }
    },
    "request": "request",
    "slices": {"activity": "activity", "popularity": "popularity", "hour": "hour"},
}
"""A build file of a click log, whose columns are all taken."""


def click_log(users: int = 30, events: int = 40, seed: int = 0) -> pa.Table:
    """A click log in no order: some users are twice as active, and meet several items in one second now and then."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), events)
    time = 1_700_000_000 + rng.integers(0, events * 40, len(user)) // 2
    item = np.concatenate([rng.permutation(500)[:events] for _ in range(users)])
    rows = {
        "user": user,
        "item": item,
        "time": time,
        "click": rng.integers(0, 2, len(user)),
        "price": rng.normal(size=len(user)).astype(np.float32),
    }
    active = np.flatnonzero(rng.random(len(user)) < 0.5 + 0.5 * user / users)
    return pa.table(rows).take(pa.array(rng.permutation(active)))


def build(directory: Path, table: pa.Table, /, **changed: Any) -> dict[str, list[dict[str, Any]]]:
    """Builds a log, and gives its rows by split."""
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / "log.parquet")
    build_dataset(build_of(BUILD | changed, "build.yaml"), directory, directory / "out", force=True)
    return rows_of(directory / "out")


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a data set by split."""
    return {split: pq.read_table(out / split).to_pylist() if (out / split).is_dir() else [] for split in SPLITS}
