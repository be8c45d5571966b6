"""Checks a directory of impressions, anyone's, against its feature file before time is spent on it."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tfctr.console import track
from tfctr.data.item_vectors import FILE_NAME, load_item_vectors
from tfctr.data.splits import SPLITS
from tfctr.data.tfrecord import read_records
from tfctr.errors import UserError
from tfctr.features.inputs import length_name, raw_inputs
from tfctr.features.spec import FeatureFile

_KINDS = {"bytes_list": "string", "int64_list": "int64", "float_list": "float32"}


@dataclass(frozen=True)
class _Column:
    dtype: str
    sequence: bool = False


def check_dataset(directory: Path, file: FeatureFile, limit: int | None = None) -> dict[str, int]:
    """Reads impressions and refuses the first that the feature file does not allow.

    A record may have only columns that the feature file names, with the types that it names. Its label must be 0 or 1.
    The columns of a history must have one length. The times of a history must be newest first and before the second of
    the impression.

    Args:
        directory: Holds train/, valid/ and test/, and perhaps items.csv and item_vectors.npz.
        file: The feature file.
        limit: How many records of each split are read; None reads all.

    Returns:
        The number of records read, by split.

    Raises:
        UserError: What is wrong, in which record of which file.
    """
    columns = _columns(file)
    seen: set[str] = set()
    counts = {}
    for split in SPLITS:
        paths = sorted((directory / split).glob("*.tfrecord*"))
        if not paths:
            raise UserError(f"{directory / split} has no *.tfrecord or *.tfrecord.gz file")
        counts[split] = 0
        for where, record in track(_records(paths, limit), f"Checking {split}"):
            seen.update(_check_record(where, record, columns, file))
            counts[split] += 1
    absent = sorted(set(columns) - seen)
    if absent:
        raise UserError(f"{directory}: no record has the column {absent[0]}, which the feature file names")
    _check_items(directory / "items.csv")
    if (directory / FILE_NAME).is_file():
        load_item_vectors(directory / FILE_NAME)
    return counts


def _columns(file: FeatureFile) -> dict[str, _Column]:
    lengths = {length_name(name) for name in file.sequences}
    columns = {
        entry.name: _Column(entry.dtype, bool(entry.shape)) for entry in raw_inputs(file) if entry.name not in lengths
    }
    columns[file.label] = _Column("int64")
    if file.weight is not None:
        columns[file.weight] = _Column("float32")
    for name in (*file.meta, file.group, file.request):
        if name is not None:
            columns.setdefault(name, _Column("string"))
    return columns


def _records(paths: list[Path], limit: int | None) -> Iterator[tuple[str, bytes]]:
    left = limit
    for path in paths:
        number = 0
        try:
            for number, record in enumerate(read_records(path), start=1):
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield f"{path}, record {number}", record
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is damaged after record {number}: {error}") from error


def _check_record(where: str, record: bytes, columns: dict[str, _Column], file: FeatureFile) -> set[str]:
    try:
        from tensorflow.train import Example
    except ModuleNotFoundError:
        raise UserError("checking needs TensorFlow; install tfctr[train]") from None
    try:
        features = Example.FromString(record).features.feature
    except DecodeError:
        raise UserError(f"{where}: not a tf.Example") from None
    values = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        if name not in columns:
            raise UserError(f"{where}: unknown column {name}; the feature file names {', '.join(sorted(columns))}")
        if kind is None:
            continue
        values[name] = list(getattr(feature, kind).value)
        _check_values(where, name, columns[name], _KINDS[kind], values[name])
    label = values.get(file.label)
    if label not in ([0], [1]):
        raise UserError(f"{where}: {file.label} must be 0 or 1. Received: {label[0] if label else 'nothing'}")
    _check_histories(where, values, file)
    return set(values)


def _check_values(where: str, name: str, column: _Column, dtype: str, values: list[Any]) -> None:
    if dtype != column.dtype:
        raise UserError(f"{where}: {name} is {dtype}; the feature file says {column.dtype}")
    if not column.sequence and len(values) > 1:
        raise UserError(f"{where}: {name} has {len(values)} values; join several values of one row by |")


def _check_histories(where: str, values: dict[str, list[Any]], file: FeatureFile) -> None:
    for sequence in file.sequences.values():
        lengths = {name: len(values.get(name, [])) for name in sequence.fields}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{where}: the columns of a history must have one length. Received: {lengths}")
        times = values.get(sequence.time_field or "", [])
        if times != sorted(times, reverse=True):
            raise UserError(f"{where}: {sequence.time_field} must be newest first")
        now = values.get(file.timestamp or "", [])
        if times and now and times[0] >= now[0]:
            raise UserError(
                f"{where}: {sequence.time_field} {times[0]} is not before {file.timestamp} {now[0]};"
                " a history may only hold what came before the second of its impression"
            )


def _check_items(path: Path) -> None:
    if not path.is_file():
        return
    lines: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "item_id" not in (reader.fieldnames or ()):
            raise UserError(f"{path}: the column item_id is missing; its first line must name the columns")
        for row in reader:
            if row["item_id"] in lines:
                raise UserError(
                    f"{path}, line {reader.line_num}: item {row['item_id']} is there twice,"
                    f" first in line {lines[row['item_id']]}"
                )
            lines[row["item_id"]] = reader.line_num
