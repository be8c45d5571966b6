"""The tables that a build file names: the log, and what is known of users and items."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.spec import Build, Side
from tfctr.data.sources import batches, files_of, source_of
from tfctr.data.sources.texts import TextTypes, typed
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features.table_format import TableFormat

FILE, ROW = "tfctr file", "tfctr row"
"""Columns that say where a row of the log stands: the number of its file, and its row there, from 1."""


@dataclass(frozen=True)
class LogFile:
    """A file of the log.

    Attributes:
        path: Where it is.
        split: The number of the split that it was given; None where the split is made.
    """

    path: str
    split: int | None = None


def log_files(build: Build, base: Path) -> list[LogFile]:
    """The files of the log, in order.

    Args:
        build: The build file.
        base: The directory that its paths start from.

    Raises:
        UserError: no such file, or files of several formats.
    """
    if isinstance(build.log.path, str):
        return [LogFile(path) for path in _files(base / build.log.path, "log.path")]
    return [
        LogFile(path, SPLITS.index(split))
        for split, given in build.log.path.items()
        for path in _files(base / given, f"log.path.{split}")
    ]


def log_batches(
    number: int, file: LogFile, wanted: Collection[str] | None, tables: TableFormat
) -> Iterator[pa.RecordBatch]:
    """The rows of a file of the log, each with its place.

    Args:
        number: The number of the file among the files of the log.
        file: The file.
        wanted: The columns to read; None reads all.
        tables: How text tables are written.

    Raises:
        UserError: a column that the file lacks, or a damaged file.
    """
    done = 0
    for batch in batches(file.path, wanted, tables):
        require_columns(file.path, batch.schema.names, wanted or ())
        for index, column in enumerate(batch.columns):
            if pa.types.is_dictionary(column.type):
                batch = batch.set_column(index, batch.schema.names[index], column.dictionary_decode())
        places = np.arange(done + 1, done + 1 + batch.num_rows)
        yield batch.append_column(FILE, pa.array(np.full(batch.num_rows, number, np.int32))).append_column(
            ROW, pa.array(places)
        )
        done += batch.num_rows


def by_bucket(batch: pa.RecordBatch, user: str | None, count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of the log in pieces, such that all rows of a user are in pieces of one bucket.

    Args:
        batch: Some rows.
        user: The column of the user; without one there is one bucket.
        count: The number of buckets.
    """
    if user is None or count == 1:
        yield 0, batch
        return
    require_columns("the log", batch.schema.names, [user])
    users = batch.column(batch.schema.get_field_index(user)).cast(pa.string())
    coded = pc.fill_null(users, "").dictionary_encode()
    hashes = np.array([zlib.crc32(text.encode()) % count for text in coded.dictionary.to_pylist()], np.int64)
    bucket = hashes[coded.indices.to_numpy()]
    order = np.argsort(bucket, kind="stable")
    numbers, starts = np.unique(bucket[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield number, batch.take(pa.array(rows))


def require_columns(path: str, names: Collection[str], wanted: Collection[str]) -> None:
    """Raises a `UserError` for the first column that a table lacks."""
    for name in wanted:
        if name not in names:
            raise UserError(f"{path}: no column '{name}'; it has {', '.join(names)}")


def is_typed(path: str) -> bool:
    """Whether the format of a file says what type a column has."""
    source = source_of(path)
    return source is not None and source.typed


@dataclass(frozen=True)
class SideTable:
    """What is known of users or items.

    Attributes:
        table: One row a key.
        key: The name of the key's column.
    """

    table: pa.Table
    key: str

    @cached_property
    def _keys(self) -> pa.Array:
        return self.table.column(self.key).combine_chunks()

    @cached_property
    def _texts(self) -> pa.Array:
        return self._keys.cast(pa.string())

    def find(self, keys: pa.Array) -> pa.Array:
        """The row of each key [n]; null where there is none. Keys of two types are compared as texts."""
        if keys.type == self._keys.type:
            return pc.index_in(keys, self._keys, skip_nulls=True)
        return pc.index_in(keys.cast(pa.string()), self._texts, skip_nulls=True)


def load_side(side: Side, base: Path, name: str) -> SideTable:
    """Reads a table of users or items.

    Args:
        side: What the build file says of it.
        base: The directory that its paths start from.
        name: `users` or `items`, for messages.

    Raises:
        UserError: no such file, no such column, a key that stands twice.
    """
    types = TextTypes()
    found = []
    for path in _files(base / side.path, f"{name}.path"):
        for batch in batches(path, None, side.csv):
            require_columns(path, batch.schema.names, [side.key])
            found.append(batch)
            if not is_typed(path):
                types.add(batch)
    if not found:
        raise UserError(f"{base / side.path}: the table of {name} is empty")
    table = typed(pa.Table.from_batches(found), types.types).combine_chunks()
    counted = table.column(side.key).value_counts()
    counts = counted.field("counts").to_numpy()
    if (counts > 1).any():
        key, rows = counted.field("values")[int(counts.argmax())], counts.max()
        raise UserError(f"{base / side.path}: {side.key} '{key}' stands in {rows} rows; keep one")
    return SideTable(table, side.key)


def _files(path: Path, key: str) -> list[str]:
    found = files_of(path) if path.is_dir() else [str(path)]
    sources = [source_of(one) for one in found if Path(one).is_file()]
    if not sources or not all(source is not None and source.is_table for source in sources):
        raise UserError(f"{path}: `{key}` must be a .parquet, .csv or .csv.gz file, or a folder of such")
    return found
