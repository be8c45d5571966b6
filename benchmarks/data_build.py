"""How long `tfctr data build` takes for a log, and how much memory: `python -m benchmarks.data_build`.

The log has a rating log's shape: 10^6 events of 6,000 users in no order, a table of items with a text column, a history
of 50 events with four columns. Bar: a minute and 2 GiB on two cores.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of

EVENTS, USERS, ITEMS = 1_000_000, 6_000, 4_000
BUILD = {
    "log": {"path": "log.parquet", "user": "user", "item": "item", "time": "time", "duplicates": "keep"},
    "items": {"path": "items.parquet", "key": "item"},
    "label": {"column": "rating", "above": 3},
    "columns": {"user": "log.user", "item": "log.item", "genres": "items.genres", "time": "log.time"},
    "histories": {
        "history": {
            "length": 50,
            "columns": {
                "history_item": "log.item",
                "history_genres": "items.genres",
                "history_rating": "log.rating",
                "history_time": "log.time",
            },
        }
    },
    "request": "request",
    "slices": {"activity": "activity", "popularity": "popularity", "hour": "hour"},
}


def main() -> None:
    """Prints seconds, rows and the peak of memory, which the made log and the imports are part of."""
    rng = np.random.default_rng(0)
    log = {
        "user": rng.integers(0, USERS, EVENTS),
        "item": (ITEMS * rng.random(EVENTS) ** 2).astype(np.int64),
        "rating": rng.integers(1, 6, EVENTS),
        "time": 1_600_000_000 + rng.integers(0, 10**7, EVENTS),
    }
    genres = [f"Genre{rng.integers(18)}|Genre{rng.integers(18)}" for _ in range(ITEMS)]
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        pq.write_table(pa.table(log), directory / "log.parquet")
        pq.write_table(pa.table({"item": np.arange(ITEMS), "genres": genres}), directory / "items.parquet")
        started, used = time.perf_counter(), time.process_time()
        manifest = build_dataset(build_of(BUILD, "build"), directory, directory / "out")
        seconds, used = time.perf_counter() - started, time.process_time() - used
        written = sum(path.stat().st_size for path in (directory / "out").rglob("*.parquet"))
    rows = sum(count["rows"] for count in manifest["splits"].values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(
        f"{EVENTS:,} events, {rows:,} rows, {written / 2**20:.0f} MiB written: {seconds:.1f} s, "
        f"{used:.1f} s of processor time, peak {peak:.2f} GiB\n"
    )


if __name__ == "__main__":
    main()
