"""The formats that a log can have, behind one reader."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfctr.data.sources import csv, parquet, tfrecord
from tfctr.data.sources.base import SOURCES, Rows, Source
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features.row_checks import ColumnRule
from tfctr.features.table_format import TableFormat
from tfctr.storage import join, local_copy, names

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "SOURCES",
    "Rows",
    "Source",
    "batches",
    "bytes_in_memory",
    "csv",
    "files_of",
    "parquet",
    "read",
    "serialized",
    "source_of",
    "split_files",
    "tfrecord",
    "types",
    "with_lists",
]


def source_of(path: str | Path) -> Source | None:
    """The format of a file, by its name."""
    return next((source for source in SOURCES if source.is_one(str(path).rpartition("/")[2])), None)


def files_of(directory: str | Path) -> list[str]:
    """The files of a log in a directory, of one format, in the order of their names; none where it has no such file.

    Hidden files are those of other programs.

    Raises:
        UserError: when they are of two formats.
    """
    found = [name for name in names(directory) if not name.startswith(".") and source_of(name) is not None]
    formats = {source.name: join(directory, name) for name in found if (source := source_of(name)) is not None}
    if len(formats) > 1:
        raise UserError(f"{directory}: files of several formats, {' and '.join(sorted(formats.values()))}; keep one")
    return [join(directory, name) for name in found]


def split_files(data: str | Path, split: str) -> list[str]:
    """The files of a split: of one format, in the order of their names.

    Raises:
        UserError: when there are none, or of two formats.
    """
    directory = join(data, split)
    found = files_of(directory)
    if not found:
        raise UserError(
            f"{directory}: no file of a log ({'; '.join(one.examples for one in SOURCES)}). A data directory has the "
            f"folders {', '.join(SPLITS)}; make one with `tfctr data prepare` or `tfctr data synthesize`"
        )
    return found


def types(path: str | Path, tables: TableFormat) -> dict[str, str]:
    """The columns of a file, and the dtype of a `ColumnRule` by which each is read as it stands there.

    Args:
        path: The file.
        tables: How text tables are written.

    Raises:
        UserError: a file that is no log, or is damaged.
    """
    with local_copy(path) as copy:
        return _known(str(path)).types(str(copy), tables)


def read(paths: Sequence[str | Path], rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[Rows]:
    """The rows of some files, one file after the other.

    Args:
        paths: The files.
        rules: The columns to read, and what each must be.
        tables: How text tables are written.

    Raises:
        UserError: a file that is no log, or is damaged; a value that can't be what a rule says.
    """
    for path in map(str, paths):
        with local_copy(path) as copy:
            for rows in _known(path).read(str(copy), rules, tables):
                yield rows if str(copy) == path else _placed(rows, str(copy), path)


def serialized(path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[bytes]:
    """The rows of a file as serialized tf.Examples; see `Source.serialized`.

    Raises:
        UserError: a file that is no log, or is damaged; a value that can't be what a rule says.
    """
    with local_copy(path) as copy:
        yield from _known(path).serialized(str(copy), rules, tables)


def batches(path: str, wanted: Collection[str] | None, tables: TableFormat) -> Iterator[pa.RecordBatch]:
    """The rows of a file as `Source.batches` gives them.

    Raises:
        UserError: a file that is no log, or is damaged.
    """
    with local_copy(path) as copy:
        yield from _known(path).batches(str(copy), wanted, tables)


def with_lists(path: str, batch: pa.RecordBatch, histories: Collection[str], tables: TableFormat) -> pa.RecordBatch:
    """Rows that `batches` gave with lists as their histories, where the format has none.

    Args:
        path: The file.
        batch: The rows.
        histories: The columns that hold histories.
        tables: How text tables are written.
    """
    return _known(path).with_lists(batch, histories, tables)


def bytes_in_memory(path: str, tables: TableFormat) -> int:
    """About how many bytes the rows of a file take as Arrow columns."""
    with local_copy(path) as copy:
        return _known(path).bytes_in_memory(str(copy), tables)


def _placed(rows: Rows, copy: str, path: str) -> Rows:
    """Rows that were read from a copy of a file, told to be those of the file."""
    return replace(rows, where=lambda row: rows.where(row).replace(copy, path))


def _known(path: str) -> Source:
    source = source_of(path)
    if source is None:
        raise UserError(f"{path}: no log. Allowed: {', '.join(one.examples for one in SOURCES)}")
    return source
