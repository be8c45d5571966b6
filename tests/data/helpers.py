"""Helpers that make a tiny MovieLens directory, and read data sets with TensorFlow's or Arrow's own reader."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

USERS = "1::F::25::7::12345\n2::M::56::0::99999\n"
MOVIES = "".join(f"{item}::Film {item} ({1980 + item})::Drama\n" for item in range(1, 11)) + (
    "11::Caf\xe9, The (1999)::Comedy|Drama\n12::Undated::Horror\n"
)
# Rating and time by item of user 1. Items 2 and 12 are neutral; 1 and 2 share a second, and so do 4 and 5.
EVENTS = {
    1: (5, 100),
    2: (3, 100),
    3: (1, 200),
    4: (4, 300),
    5: (2, 300),
    6: (5, 400),
    7: (5, 500),
    8: (4, 600),
    9: (4, 700),
    10: (2, 800),
    11: (5, 900),
    12: (3, 950),
}
# The lines are not in order of time, as in the publisher's file. Within a second the later line counts as newer.
RATINGS = "".join(
    f"1::{item}::{EVENTS[item][0]}::{EVENTS[item][1]}\n" for item in (7, 2, 1, 11, 3, 12, 4, 5, 6, 10, 8, 9)
) + ("2::1::4::5000\n")


def write_movielens(directory: Path, compress: bool = False, **changed: str) -> Path:
    """The tiny directory; `ratings`, `users` or `movies` replace the content of that file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {"ratings": RATINGS, "users": USERS, "movies": MOVIES, **changed}.items():
        raw = content.encode("latin-1")
        if compress:
            (directory / f"{name}.dat.gz").write_bytes(gzip.compress(raw))
        else:
            (directory / f"{name}.dat").write_bytes(raw)
    return directory


def write_vectors(path: Path, ids: Any = range(1, 13), vectors: Any = None) -> Path:
    """Item vectors in our own layout."""
    ids = np.asarray(ids)
    np.savez(path, ids=ids, vectors=np.ones((len(ids), 4), np.float32) if vectors is None else vectors)
    return path


def read_split(directory: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split as plain values: scalars, and lists for the history columns; what is missing is left out."""
    rows: list[dict[str, Any]] = []
    for path in sorted((directory / split).glob("*.parquet")):
        table = pq.read_table(path).to_pylist()
        rows += [{name: value for name, value in row.items() if value is not None} for row in table]
    for record in tf.data.TFRecordDataset(sorted(map(str, (directory / split).glob("*.tfrecord.gz"))), "GZIP"):
        rows.append(decode(record.numpy()))
    return rows


def decode(record: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        if feature.WhichOneof("kind") == "bytes_list":
            values: list[Any] = [value.decode() for value in feature.bytes_list.value]
        else:
            values = list(feature.int64_list.value)
        row[name] = values if name.startswith("history_") else values[0]
    return row


def content(directory: Path) -> dict[str, bytes]:
    """The bytes of every file below a directory except vectors, which differ by the time that their zip stores."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".npz")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
