"""The interaction log that a build file names: its files, their columns and rows, and whole users in buckets."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.console import error_console
from tfctr.data.build.spec import Build
from tfctr.data.build.tables import (
    as_schema,
    merged,
    require_columns,
    table_batches,
    table_files,
    table_names,
    with_values,
)
from tfctr.data.sources import bytes_in_memory, with_lists
from tfctr.data.sources.texts import TextTypes
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError

FILE, ROW = "tfctr file", "tfctr row"
"""Columns that say where a row of the log stands: the number of its file, and its row there, from 1."""


_ROWS_AT_ONCE = 1 << 18
_BYTES_AT_ONCE = 1 << 26


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
        return [LogFile(path) for path in table_files(base / build.log.path, "log.path")]
    return [
        LogFile(path, SPLITS.index(split))
        for split, given in build.log.path.items()
        for path in table_files(base / given, f"log.path.{split}")
    ]


def log_schema(files: Sequence[LogFile], build: Build) -> pa.Schema:
    """The columns of the log, as its first file with a row has them, with the type of the first one with a value.

    Raises:
        UserError: a log without a row, or without a column that the build file names; a user or item of many values.
    """
    found: pa.Schema | None = None
    declared = pa.schema([])
    for file in files:
        batch = next(_read(file, build), None)
        if batch is None:
            continue
        if found is None:
            declared = batch.schema
            every = table_names(file.path, build.log).values()  # an error names those not wanted too
            require_columns(file.path, every, build.log_columns)
        found = merged(found, with_values(batch))
        if not any(pa.types.is_null(field.type) for field in found):
            break
    if found is None:
        raise UserError(f"{files[0].path}: the log has no row")
    found = merged(found, declared)
    if build.columns is None:
        _tell_left_out(files, build, found.names)
    for name in (FILE, ROW):
        if name in found.names:
            raise UserError(f"{files[0].path}: the column '{name}' has a name that is used here; call it otherwise")
    for name in filter(None, (build.log.user, build.log.item)):
        kind = found.field(name).type
        if pa.types.is_nested(kind):
            raise UserError(f"{files[0].path}: column '{name}' is {kind}; a user or item is one value")
    return found


def log_batches(number: int, file: LogFile, build: Build, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a file of the log, many at a time, each with its place.

    Args:
        number: The number of the file among the files of the log.
        file: The file.
        build: The build file.
        schema: The columns of the log.

    Raises:
        UserError: a damaged file, or one with other columns or types than the first.
    """
    done = 0
    for batch in _gathered(as_schema(one, schema, file.path) for one in _read(file, build)):
        places = np.arange(done + 1, done + 1 + batch.num_rows)
        numbers = np.full(batch.num_rows, number, np.int32)
        yield batch.append_column(FILE, pa.array(numbers)).append_column(ROW, pa.array(places))
        done += batch.num_rows


def with_places(schema: pa.Schema) -> pa.Schema:
    """The columns of the log, and those that say where a row stands."""
    return schema.append(pa.field(FILE, pa.int32())).append(pa.field(ROW, pa.int64()))


def place(table: pa.Table, row: int, files: Sequence[LogFile]) -> str:
    """Where a row of the log stands, in words."""
    return f"{files[table.column(FILE)[row].as_py()].path}, row {table.column(ROW)[row].as_py()}"


def column_of(table: pa.Table, name: str) -> pa.Array:
    """A column of some rows of the log."""
    return table.column(name).combine_chunks()


def require(table: pa.Table, name: str, files: Sequence[LogFile], told: str) -> None:
    """Raises a `UserError` for the first row without a value in a column, which ends in what is told."""
    missing = column_of(table, name).is_null().to_numpy(zero_copy_only=False)
    if missing.any():
        raise UserError(f"{place(table, int(missing.argmax()), files)}: column '{name}' {told}")


def bucket_count(files: Sequence[LogFile], build: Build, size: int) -> int:
    """How many buckets of about `size` bytes in memory the log makes."""
    return 1 + sum(bytes_in_memory(file.path, build.log.csv) for file in files) // size


def by_bucket(batch: pa.RecordBatch, user: str | None, count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of the log in pieces, such that all rows of a user are in pieces of one bucket.

    Args:
        batch: Some rows.
        user: The column of the user; without one no row depends on another, and every bucket gets a part.
        count: The number of buckets.
    """
    if count == 1:
        yield 0, batch
        return
    if user is None:
        edges = np.linspace(0, batch.num_rows, count + 1).astype(int).tolist()
        for bucket, (start, end) in enumerate(pairwise(edges)):
            if end > start:
                yield bucket, batch.slice(start, end - start)
        return
    users = batch.column(batch.schema.get_field_index(user)).cast(pa.string())
    coded = pc.fill_null(users, "").dictionary_encode()
    hashes = np.array([zlib.crc32(text.encode()) % count for text in coded.dictionary.to_pylist()], np.int64)
    bucket = hashes[coded.indices.to_numpy()]
    order = np.argsort(bucket, kind="stable")
    numbers, starts = np.unique(bucket[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield number, batch.take(pa.array(rows))


def text_types(build: Build) -> TextTypes:
    """What finds the types of the log's texts. A time that a pattern reads is no number: 2024.10 is not 2024.1."""
    return TextTypes(as_written=[build.log.time] if build.log.time_pattern is not None else ())


def _read(file: LogFile, build: Build) -> Iterator[pa.RecordBatch]:
    """The rows of a file with the columns that are wanted; given histories are lists."""
    for batch in table_batches(file.path, _wanted(build), build.log):
        yield with_lists(file.path, batch, build.list_columns, build.log.csv)


def _wanted(build: Build) -> list[str] | None:
    return None if build.columns is None else build.log_columns


def _tell_left_out(files: Sequence[LogFile], build: Build, names: Collection[str]) -> None:
    """Warns of the first file that has a column more than the first one."""
    for file in files:
        more = sorted(set(table_names(file.path, build.log).values()) - set(names))
        if more:
            columns = ", ".join(f"'{name}'" for name in more)
            error_console().print(f"warning: {file.path}: the first file lacks {columns}, so it is left out")
            return


def _gathered(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, more at a time, so that what a piece costs does not count."""
    gathered: list[pa.RecordBatch] = []
    for piece in pieces:
        gathered.append(piece)
        if sum(map(len, gathered)) >= _ROWS_AT_ONCE or sum(one.nbytes for one in gathered) >= _BYTES_AT_ONCE:
            yield from pa.Table.from_batches(gathered).combine_chunks().to_batches()
            gathered = []
    if gathered:
        yield from pa.Table.from_batches(gathered).combine_chunks().to_batches()
