"""Writes the rows of a test as a log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf


def example(row: Mapping[str, Any]) -> bytes:
    """A serialized tf.Example of columns, each a value or a list; None and an empty list are left out."""
    made = tf.train.Example()
    for name, column in row.items():
        values = column if isinstance(column, list) else [column]
        if not values or values[0] is None:
            continue
        feature = made.features.feature[name]
        if isinstance(values[0], str | bytes):
            feature.bytes_list.value.extend(one.encode() if isinstance(one, str) else one for one in values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    serialized: bytes = made.SerializeToString()
    return serialized


def write_records(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes the rows as a TFRecord file, whose directory is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(example(row))
    return path
