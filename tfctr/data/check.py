"""Checks a directory of impressions, anyone's, against its feature file before time is spent on it."""

import csv
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tfctr.console import track
from tfctr.data.item_vectors import FILE_NAME, load_item_vectors
from tfctr.data.splits import SPLITS
from tfctr.data.tfrecord import read_records
from tfctr.errors import UserError
from tfctr.features import inputs
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
        for where, record in track(islice(_records(paths), limit), f"Checking {split}"):
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
    columns = {spec.name: _Column(spec.dtype, bool(spec.shape)) for spec in inputs.columns(file)}
    columns |= dict.fromkeys(file.labels.columns, _Column(file.labels.dtype))
    if file.weight is not None:
        columns[file.weight] = _Column("float32")
    for name in (*file.meta, file.group, file.request):
        if name is not None:
            columns.setdefault(name, _Column("string"))
    return columns


def _records(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        number = 0
        try:
            for number, record in enumerate(read_records(path), start=1):
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
        column, dtype, count = columns[name], _KINDS[kind], len(values[name])
        if dtype != column.dtype:
            raise UserError(f"{where}: {name} is {dtype}; the feature file says {column.dtype}")
        if not column.sequence and count > 1:
            raise UserError(f"{where}: {name} has {count} values; join several values of one row by |")
    file.labels.check_record(where, values)
    _check_histories(where, values, file)
    return set(values)


def _check_histories(where: str, values: dict[str, list[Any]], file: FeatureFile) -> None:
    for name in file.sequences:
        columns = [spec.name for spec in inputs.columns(file, name)]
        lengths = {column: len(values.get(column, [])) for column in columns}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{where}: the columns of a history must have one length. Received: {lengths}")
    for feature in file.features:
        feature.kind.check_record(feature, where, values)


def _check_items(path: Path) -> None:
    if not path.is_file():
        return
    lines: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "item_id" not in (reader.fieldnames or ()):
            raise UserError(f"{path}: the column item_id is missing; its first line must name the columns")
        for row in reader:
            item = row["item_id"]
            if item in lines:
                first = lines[item]
                raise UserError(f"{path}, line {reader.line_num}: item {item} is there twice, first in line {first}")
            lines[item] = reader.line_num
