"""The tables that a build file names: the log, and what is known of users and items."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.console import error_console
from tfctr.data.build.spec import Build, Side
from tfctr.data.sources import batches, bytes_in_memory, files_of, source_of
from tfctr.data.sources import types as types_of
from tfctr.data.sources.missing import without_nan
from tfctr.data.sources.texts import TextTypes, typed
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
        return [LogFile(path) for path in _files(base / build.log.path, "log.path")]
    return [
        LogFile(path, SPLITS.index(split))
        for split, given in build.log.path.items()
        for path in _files(base / given, f"log.path.{split}")
    ]


def log_schema(files: Sequence[LogFile], build: Build) -> pa.Schema:
    """The columns of the log, as its first file with a row has them, with the type of the first one with a value.

    Raises:
        UserError: a log without a row, or without a column that the build file names; a user or item of many values.
    """
    found: pa.Schema | None = None
    declared = pa.schema([])
    for file in files:
        batch = next(batches(file.path, _wanted(build), build.log.csv), None)
        if batch is None:
            continue
        if found is None:
            declared = batch.schema
            every = [*types_of(file.path, build.log.csv), *batch.schema.names]  # an error names those not wanted too
            require_columns(file.path, dict.fromkeys(every), build.log_columns)
        found = _merged(found, _with_values(batch))
        if not any(pa.types.is_null(field.type) for field in found):
            break
    if found is None:
        raise UserError(f"{files[0].path}: the log has no row")
    found = _merged(found, declared)
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
    for batch in _gathered(_as(one, schema, file.path) for one in batches(file.path, _wanted(build), build.log.csv)):
        places = np.arange(done + 1, done + 1 + batch.num_rows)
        numbers = np.full(batch.num_rows, number, np.int32)
        yield batch.append_column(FILE, pa.array(numbers)).append_column(ROW, pa.array(places))
        done += batch.num_rows


def with_places(schema: pa.Schema) -> pa.Schema:
    """The columns of the log, and those that say where a row stands."""
    return schema.append(pa.field(FILE, pa.int32())).append(pa.field(ROW, pa.int64()))


@contextmanager
def arrow_errors() -> Iterator[None]:
    """Tells in one line what Arrow can't do with a log or a table."""
    try:
        yield
    except pa.ArrowException as error:
        raise UserError(f"the log or a table can't be used: {str(error).splitlines()[0]}") from error


def _wanted(build: Build) -> list[str] | None:
    return None if build.columns is None else build.log_columns


def _tell_left_out(files: Sequence[LogFile], build: Build, names: Collection[str]) -> None:
    """Warns of the first file that has a column more than the first one."""
    for file in files:
        more = sorted(types_of(file.path, build.log.csv).keys() - set(names))
        if more:
            columns = ", ".join(f"'{name}'" for name in more)
            error_console().print(f"warning: {file.path}: the first file lacks {columns}, so it is left out")
            return


def _with_values(batch: pa.RecordBatch) -> pa.Schema:
    """The columns of some rows; one without a value has no type."""
    known = [without_nan(column.cast(_plain(column.type))) for column in batch.columns]
    types = [pa.null() if one.null_count == len(one) else one.type for one in known]
    return pa.schema(list(zip(batch.schema.names, types, strict=True)))


def _merged(first: pa.Schema | None, other: pa.Schema) -> pa.Schema:
    """The columns of the first of several tables; one that has no value at all there has the other's type."""
    types = {field.name: _plain(field.type) for field in other}
    before = {} if first is None else {field.name: field.type for field in first if not pa.types.is_null(field.type)}
    names = types if first is None else first.names
    return pa.schema([(name, before.get(name, types.get(name, pa.null()))) for name in names])


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a dictionary holds; a float32 for a float16, which Arrow can't compute with."""
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _as(batch: pa.RecordBatch, schema: pa.Schema, path: str) -> pa.RecordBatch:
    """Rows of a file with the columns of the first one; a column that has no value at all may have no type.

    Numbers, texts and times of one zone may be of another width there, if nothing is lost.

    What is not a number is a missing one here, as it is to all that reads the impressions.
    """
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            raise UserError(f"{path}: no column '{field.name}', which the first file has")
        kind = _plain(batch.schema.field(index).type)
        told = f"{path}: column '{field.name}' is {kind}; in the first file it is {field.type}"
        given = without_nan(batch.column(index).cast(kind))
        if given.null_count == len(given):
            columns.append(pa.nulls(len(given), field.type))
            continue
        if kind != field.type and not _alike(kind, field.type):
            raise UserError(told)
        try:
            values = given.cast(field.type)
        except pa.ArrowInvalid as error:
            raise UserError(f"{told}, which can't hold it: {str(error).splitlines()[0]}") from None
        floating = pa.types.is_floating(kind) and pa.types.is_floating(field.type)
        if floating and not values.cast(kind).equals(given):  # here Arrow rounds without a word
            raise UserError(f"{told}, which can't hold all its digits")
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema.names)


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

    def column(self, name: str) -> pa.Array:
        """A column of the table."""
        return self.table.column(name).combine_chunks()

    @cached_property
    def _keys(self) -> pa.Array:
        return self.column(self.key)

    @cached_property
    def _texts(self) -> pa.Array:
        return self._keys.cast(pa.string())

    def find(self, keys: pa.Array) -> pa.Array:
        """The row of each key [n]; null where there is none. 7 and 7.0 are one key; else two types are texts."""
        if keys.type == self._keys.type:
            return pc.index_in(keys, self._keys, skip_nulls=True)
        both = (keys.type, self._keys.type)
        if all(map(_is_number, both)) and any(map(pa.types.is_floating, both)):
            return pc.index_in(keys.cast(pa.float64()), self._keys.cast(pa.float64()), skip_nulls=True)
        return pc.index_in(keys.cast(pa.string()), self._texts, skip_nulls=True)


def side_files(side: Side, base: Path, name: str) -> list[str]:
    """The files of a table of users or items.

    Raises:
        UserError: there are none.
    """
    return _files(base / side.path, f"{name}.path")


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
    found: list[tuple[str, pa.RecordBatch]] = []
    schema: pa.Schema | None = None
    for path in side_files(side, base, name):
        for batch in batches(path, None, side.csv):
            require_columns(path, batch.schema.names, [side.key])
            found.append((path, batch))
            schema = _merged(schema, batch.schema)
            if not is_typed(path):
                types.add(batch)
    if schema is None:
        raise UserError(f"{base / side.path}: the table of {name} is empty")
    table = typed(pa.Table.from_batches([_as(batch, schema, path) for path, batch in found]), types.types)
    table = table.filter(table.column(side.key).is_valid()).combine_chunks()
    if not table.num_rows:
        raise UserError(f"{base / side.path}: the table of {name} has no row with a {side.key}")
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


def _alike(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether values of one of two types may become such of the other one, if nothing is lost."""
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(other):
        return bool(kind.tz == other.tz)
    return any(is_one(kind) and is_one(other) for is_one in (_is_number, _is_text))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
