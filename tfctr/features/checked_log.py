"""Reads a split with TensorFlow and checks every row on the way; a second look says where a fault lies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.console import track
from tfctr.errors import UserError
from tfctr.features.kinds.base import Column
from tfctr.features.parsing import told_in_words
from tfctr.features.records import located_records, location
from tfctr.features.row_checks import SplitCheck, record_values
from tfctr.features.spec import FeatureFile

_BATCH = 4096


@dataclass(frozen=True)
class Rows:
    """Some rows of a log.

    Attributes:
        serialized: tf.Examples, a string tensor [N].
        columns: Every column that the feature file names; their flat values are tensors.
    """

    serialized: Any
    columns: dict[str, Column]


def raw_records(path: Any) -> Any:
    """The records of a file, a string tensor, as a dataset: gzip where its name ends in .gz."""
    return tf.data.TFRecordDataset(path, tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", ""))


def checked_rows(
    file: FeatureFile, records: Sequence[str | Path], title: str, training: bool = False, both_classes: bool = True
) -> Iterator[Rows]:
    """The rows of a split, file after file, each checked before it is given out.

    Args:
        file: The feature file.
        records: TFRecord files, plain or .gz.
        title: What is done with the rows, for the progress.
        training: Whether it is the training split, which must have every column.
        both_classes: Whether labels of one class only are refused.

    Raises:
        UserError: what is wrong, in which record of which file.
    """
    paths = [str(path) for path in records]
    check = SplitCheck(file, str(Path(paths[0]).parent))
    spec = {
        name: tf.io.RaggedFeature(tf.as_dtype(rule.dtype), row_splits_dtype=tf.int64)
        for name, rule in check.rules.items()
    }

    def parse(serialized: Any) -> Any:
        parsed = tf.io.parse_example(serialized, spec)
        columns = {name: (column.flat_values, column.row_lengths()) for name, column in parsed.items()}
        # A record has sixteen bytes of length and checksums.
        return serialized, tf.reduce_sum(tf.cast(tf.strings.length(serialized) + 16, tf.int64)), columns

    dataset = tf.data.Dataset.from_tensor_slices(paths).flat_map(raw_records).batch(_BATCH)
    size = 0
    try:
        for serialized, length, parsed in track(dataset.map(parse, num_parallel_calls=2).prefetch(2), title):
            columns = {name: Column(flat, lengths.numpy()) for name, (flat, lengths) in parsed.items()}
            fault = check.add(columns)
            if fault is not None:
                raise UserError(f"{location(paths, check.rows + fault.row)}: {fault.problem}")
            size += int(length)
            yield Rows(serialized, columns)
    except (tf.errors.OpError, UnicodeDecodeError):  # the latter is TensorFlow's, which quotes the record
        _second_look(paths, check)
        with told_in_words(str(Path(paths[0]).parent)):
            raise
    _refuse_lost_end(paths, size)
    check.finish(training, both_classes)


def _second_look(paths: Sequence[str], check: SplitCheck) -> None:
    """Raise a UserError for the first record after those checked that can't be read or has a column of another type."""
    for where, record in islice(located_records(paths), check.rows, None):
        record_values(where, record, check.rules, set())


def _refuse_lost_end(paths: Sequence[str], size: int) -> None:
    """Look for a damaged file where the sizes don't add up.

    TensorFlow takes the end of a cut gzip file, and up to eleven bytes of a record, for the end of data. A gzip file
    ends with its unpacked size. Files in several parts name the last part's, and pass the second look.
    """
    packed = [path for path in paths if path.endswith(".gz")]
    named = sum(_named_size(path) for path in packed)
    plain = sum(Path(path).stat().st_size for path in paths if path not in packed)
    if (named + plain - size) % 2**32:
        for _ in located_records(paths):
            pass


def _named_size(path: str) -> int:
    with Path(path).open("rb") as file:
        file.seek(-min(4, Path(path).stat().st_size), os.SEEK_END)
        return int.from_bytes(file.read(), "little")
