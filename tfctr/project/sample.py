"""The first rows of a data set, in plain Arrow types."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.console import track
from tfctr.data.sources import batches as source_batches
from tfctr.data.sources import source_of, split_files
from tfctr.data.sources.columns import is_list
from tfctr.data.sources.missing import without_empty, without_nan
from tfctr.errors import UserError
from tfctr.features.table_format import TableFormat

ROWS = 50_000
"""So many first rows of train are read, at most."""

OTHER_ROWS = 10_000
"""So many first rows of valid and of test."""

_BYTES = 128 << 20
"""A sample is not larger, however long its rows are."""


@dataclass(frozen=True)
class Sample:
    """Some first rows of a split.

    Attributes:
        table: The rows: int64, float64, text or bytes, or lists of these; a missing value is null.
        refused: The columns of other types, and their types in words.
        whole: Whether these are all rows.
        about: The rows in words.
        joined_by: What joins the values of a list in the log, where a list is a text there.
    """

    table: pa.Table
    refused: dict[str, str]
    whole: bool
    about: str
    joined_by: str | None = None

    @property
    def names(self) -> list[str]:
        """Every column, refused ones too."""
        return [*self.table.column_names, *self.refused]


def read_sample(
    data: Path, split: str, tables: TableFormat, histories: Callable[[pa.Table], Collection[str]], rows: int = ROWS
) -> Sample:
    """The first rows of a split, the same number from each of its files.

    Args:
        histories: The columns that hold histories, said of rows whose types may still be open.

    Raises:
        UserError: there is no such split, it is empty, or a file is damaged.
    """
    paths = split_files(data, split)
    share, whole, read = -(-rows // len(paths)), True, []
    for path in track(paths, f"Reading {split}"):
        batches, ended = _first(source_batches(path, None, tables), share, _BYTES // len(paths))
        whole &= ended
        read += [pa.Table.from_batches([batch]) for batch in batches]
    try:
        table = pa.concat_tables(read, promote_options="permissive") if read else pa.table({})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{data / split}: a column has two types in the files of one split: {told}") from None
    if not table.num_rows:
        raise UserError(f"{data / split}: the split holds no row")
    source = source_of(paths[0])
    assert source is not None  # split_files gives only files that have one
    table = source.settled(table, histories(table), tables)
    columns, refused = {}, {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        try:
            columns[name] = plain(column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            refused[name] = str(column.type)
    about = f"all {table.num_rows:,} rows" if whole else f"the first {table.num_rows:,} rows"
    about += f" of {split}" + (f" (equally many of {len(paths)} files)" if len(paths) > 1 and not whole else "")
    return Sample(pa.table(columns), refused, whole, about, None if source.typed else tables.list_delimiter)


def _first(batches: Iterator[Any], rows: int, size: int) -> tuple[list[Any], bool]:
    """The first of some rows, and whether there were no others."""
    found: list[Any] = []
    for batch in batches:
        found.append(batch.slice(0, rows))
        rows -= batch.num_rows
        size -= batch.nbytes
        if rows < 0 or size <= 0:
            return found, False
        if rows == 0:
            return found, all(other.num_rows == 0 for other in batches)
    return found, True


def plain(column: Any) -> Any:
    """A column in the types of a sample; an empty text or list is a missing value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if is_list(kind):
        lists = column.cast(pa.list_(kind.value_type))
        empty = pc.fill_null(pc.equal(pc.list_value_length(lists), 0), True)
        return pa.ListArray.from_arrays(_offsets(lists), plain(lists.flatten()), mask=empty)
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind):
        return without_empty(column) if kind != pa.null() else column
    if pa.types.is_large_string(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind):
        return plain(column.cast(pa.string() if pa.types.is_large_string(kind) else pa.binary()))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        return column.cast(pa.timestamp("s", zone), safe=False).cast(pa.int64())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return column.cast(pa.int64())
    number = column.cast(pa.float64())
    return without_nan(number)


def _offsets(lists: Any) -> Any:
    """Offsets into the flattened values, which leave out what stands under a null."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int32())
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
