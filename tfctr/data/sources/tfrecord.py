"""TFRecord files of tf.Examples, plain or gzip."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError
from typing_extensions import override

from tfctr.data.sources.base import ROWS, Rows, Source, record_source
from tfctr.data.sources.records import Example, located_records
from tfctr.errors import UserError
from tfctr.features.columns import Column
from tfctr.features.row_checks import ColumnRule
from tfctr.features.table_format import TableFormat

if TYPE_CHECKING:
    import pyarrow as pa

_DTYPES = {"bytes_list": "string", "int64_list": "int64", "float_list": "float32"}
_ARRAYS: dict[str, Any] = {"string": object, "int64": np.int64, "float32": np.float32}


@record_source
class TFRecord(Source):
    """TFRecord: read by TensorFlow where it is loaded, which is ten times as fast as without."""

    name = "TFRecord"
    examples = "*.tfrecord, *.tfrecord.gz"
    typed = True
    is_table = False

    @override
    def is_one(self, file_name: str) -> bool:
        return ".tfrecord" in file_name

    @override
    def types(self, path: str, tables: TableFormat) -> dict[str, str]:
        found: dict[str, str] = {}
        for where, record in islice(located_records([path]), ROWS):
            for column, feature in _features(where, record).items():
                kind = feature.WhichOneof("kind")
                if kind is not None:
                    found.setdefault(column, _DTYPES[kind])
        return found

    @override
    def read(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[Rows]:
        # Where it is not loaded yet, as in `tfctr data check`, its import would take longer than most logs.
        return _by_tensorflow(path, rules) if "tensorflow" in sys.modules else _by_python(path, rules)

    @override
    def serialized(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[bytes]:
        return (record for _, record in located_records([path]))

    @override
    def batches(self, path: str, wanted: Collection[str] | None, tables: TableFormat) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        records = located_records([path])
        while batch := list(islice(records, ROWS)):
            columns: dict[str, list[Any]] = {}
            for row, (where, record) in enumerate(batch):
                for name, feature in _features(where, record).items():
                    kind = feature.WhichOneof("kind")
                    if kind is not None and (wanted is None or name in wanted):
                        columns.setdefault(name, [None] * len(batch))[row] = (kind, getattr(feature, kind).value)
            yield pa.RecordBatch.from_pydict({name: _lists(path, name, columns[name]) for name in sorted(columns)})

    @override
    def bytes_in_memory(self, path: str, tables: TableFormat) -> int:
        return os.path.getsize(path) * (6 if path.endswith(".gz") else 1)

    @override
    def settled(self, table: pa.Table, histories: Collection[str], tables: TableFormat) -> pa.Table:
        """Every column of a tf.Example is a list; one that never has two values is none, unless it is a history."""
        import pyarrow.compute as pc

        for index, name in enumerate(table.column_names):
            lengths = pc.max(pc.list_value_length(table.column(name))).as_py()
            if name not in histories and (lengths or 0) <= 1:
                table = table.set_column(index, name, _single(table.column(name)))
        return table


def raw_records(path: Any) -> Any:
    """The records of a file, a string tensor, as a dataset: gzip where its name ends in .gz."""
    import tensorflow as tf

    return tf.data.TFRecordDataset(path, tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", ""))


def read_records(paths: Sequence[str]) -> Any:
    """The records of some files, one file after the other, as a dataset."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(list(paths)).flat_map(raw_records)


def _by_tensorflow(path: str, rules: Mapping[str, ColumnRule]) -> Iterator[Rows]:
    """TensorFlow does not say which record is bad, and overlooks some damage: a second look does."""
    import tensorflow as tf

    named = {rule.column: rule.dtype for rule in rules.values()}
    parse = _parser(tuple(sorted(named.items())))
    batches = raw_records(tf.constant(path)).batch(ROWS).map(parse, num_parallel_calls=2).prefetch(2)
    done = size = 0
    try:
        for serialized, length, parsed in batches:
            ragged = {name: parsed[rule.column] for name, rule in rules.items()}
            columns = {name: Column(flat, lengths.numpy()) for name, (flat, lengths) in ragged.items()}
            records = serialized.numpy()
            yield Rows(columns, _where(path, done), records, partial(_unread, records, frozenset(named)))
            done += len(serialized)
            size += int(length)
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter is TensorFlow's, which quotes the record
        yield from _by_python(path, rules, done)
        told = str(getattr(error, "message", error)).splitlines()[0]
        raise UserError(f"{path}: can't be read after record {done}: {told}") from None
    # TensorFlow takes the end of a cut gzip file, and up to eleven bytes of a record, for the end of data.
    if (_size(path) - size) % 2**32:
        for _ in located_records([path]):
            pass


@lru_cache(maxsize=16)
def _parser(named: tuple[tuple[str, str], ...]) -> Any:
    """Parses a batch of records; a graph, which takes a tenth of a second to make and serves all files of a log."""
    import tensorflow as tf

    spec = {name: tf.io.RaggedFeature(tf.as_dtype(dtype), row_splits_dtype=tf.int64) for name, dtype in named}

    def parse(serialized: Any) -> Any:
        parsed = tf.io.parse_example(serialized, spec)
        columns = {name: (column.flat_values, column.row_lengths()) for name, column in parsed.items()}
        # A record has sixteen bytes of length and checksums.
        return serialized, tf.reduce_sum(tf.cast(tf.strings.length(serialized) + 16, tf.int64)), columns

    return tf.function(parse, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _size(path: str) -> int:
    """The size of what a file holds. A gzip file ends with it; one in several parts names that of the last."""
    if not path.endswith(".gz"):
        return Path(path).stat().st_size
    with Path(path).open("rb") as file:
        file.seek(-min(4, Path(path).stat().st_size), os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def _by_python(path: str, rules: Mapping[str, ColumnRule], skip: int = 0) -> Iterator[Rows]:
    """Records before a bad one are given out before it is told, so that of all faults the first one is."""
    names: dict[str, list[str]] = {}
    for name, rule in rules.items():
        names.setdefault(rule.column, []).append(name)
    records = islice(located_records([path]), skip, None)
    done, fault = skip, None
    while fault is None:
        values: list[dict[str, Any]] = []
        serialized: list[bytes] = []
        seen: set[str] = set()
        try:
            for where, record in islice(records, ROWS):
                features = _features(where, record)
                values.append(_values(where, features, rules, names))
                serialized.append(record)
                seen.update(features)
        except UserError as error:
            fault = error
        if not values:
            break
        unread = frozenset(seen - names.keys())
        yield Rows(_columns(values, rules), _where(path, done), serialized, partial(frozenset, unread))
        done += len(values)
    if fault is not None:
        raise fault


def _unread(records: Sequence[bytes], named: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*(Example.FromString(record).features.feature for record in records)) - named


def _where(path: str, done: int) -> Any:
    return lambda row: f"{path}, record {done + row + 1}"


def _features(where: str, record: bytes) -> Any:
    """The columns of a record."""
    try:
        return Example.FromString(record).features.feature
    except DecodeError:
        raise UserError(f"{where}: not a tf.Example") from None


def _values(
    where: str, features: Mapping[str, Any], rules: Mapping[str, ColumnRule], names: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The values of a record by name.

    A type that differs is refused, also where no value would change, as 7.0 for a whole number: `serving_default` and
    the pipeline parse the record itself, in TensorFlow, which refuses it.
    """
    found = {}
    for column, feature in features.items():
        kind = feature.WhichOneof("kind")
        for name in names.get(column, ()) if kind is not None else ():
            rule = rules[name]
            if _DTYPES[kind] != rule.dtype:
                raise UserError(f"{where}: {column} is {_DTYPES[kind]}; {rule.because} {rule.dtype}")
            found[name] = getattr(feature, kind).value
    return found


def _lists(path: str, name: str, column: Sequence[Any]) -> Any:
    """The values of a column, each a kind and what the row has of it, or None, as an Arrow array of lists."""
    import pyarrow as pa

    kinds = sorted({kind for kind, _ in filter(None, column)})
    if len(kinds) > 1:
        raise UserError(f"{path}: {name} is {' in some records and '.join(_DTYPES[kind] for kind in kinds)} in others")
    types = {"bytes_list": pa.binary(), "int64_list": pa.int64(), "float_list": pa.float32()}
    return pa.array([None if entry is None else list(entry[1]) for entry in column], pa.list_(types[kinds[0]]))


def _single(lists: Any) -> Any:
    """The one value of every list, null for an empty one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pa.chunked_array(lists.chunks, lists.type).combine_chunks()
    known = pc.fill_null(pc.greater(pc.list_value_length(array), 0), False)
    places = pc.if_else(known, pc.subtract(pc.cumulative_sum(pc.cast(known, pa.int64())), 1), None)
    return array.flatten().take(places)


def _columns(records: Sequence[Mapping[str, Any]], rules: Mapping[str, ColumnRule]) -> dict[str, Column]:
    columns = {}
    for name, rule in rules.items():
        values = [record.get(name, ()) for record in records]
        flat = np.array([value for row in values for value in row], _ARRAYS[rule.dtype])
        columns[name] = Column(flat, np.array([len(row) for row in values], np.int64))
    return columns
