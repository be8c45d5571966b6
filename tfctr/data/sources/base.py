"""What a record source answers. A source is one class in one file, registered by one decorator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from tfctr.data.examples import serialized_rows
from tfctr.errors import UserError
from tfctr.features.columns import Column
from tfctr.features.row_checks import ColumnRule
from tfctr.features.table_format import TableFormat

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 4096
"""Rows that a source gives out at a time, at most."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a log, as they were written.

    Attributes:
        columns: Every column that the feature file names.
        where: The place of a row, by its index here, in words: file and number.
        serialized: The rows as serialized tf.Examples where the log holds such; else None.
        unread: Finds the columns of these rows that the feature file does not name, which takes time where rows differ.
    """

    columns: dict[str, Column]
    where: Callable[[int], str]
    serialized: Sequence[bytes] | None = None
    unread: Callable[[], frozenset[str]] = frozenset

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).lengths)


class Source(Protocol):
    """A file format.

    Attributes:
        name: Its name in messages.
        examples: How its files are called, for messages.
        typed: Whether a file says what type a column has.
        is_table: Whether all rows have the same columns.
    """

    name: str
    examples: str
    typed: bool
    is_table: bool

    def is_one(self, file_name: str) -> bool:
        """Whether a file of that name has this format."""

    def types(self, path: str, tables: TableFormat) -> dict[str, str]:
        """The dtype by which each column of a file is read as it stands there.

        Records need not have the same columns: it is told of those that the first ones have.
        """

    def read(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[Rows]:
        """The rows of a file, in order.

        Args:
            path: The file.
            rules: The columns to read, and what each must be.
            tables: How text tables are written.

        Raises:
            UserError: the file is damaged, or a value can't be what a rule says; where.
        """

    def serialized(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[bytes]:
        """The rows of a file as serialized tf.Examples; what a log holds as such stays as it is.

        Args:
            path: The file.
            rules: The columns to read, and what each must be.
            tables: How text tables are written.

        Raises:
            UserError: the file is damaged, or a value can't be what a rule says; where.
        """
        for rows in self.read(path, rules, tables):
            yield from serialized_rows(rows, rules)

    def batches(self, path: str, wanted: Collection[str] | None, tables: TableFormat) -> Iterator[pa.RecordBatch]:
        """The rows of a file, in order, with the types that it gives them: text tables give texts, tf.Examples lists.

        Args:
            path: The file.
            wanted: The columns to read, of those that the file has; None reads all.
            tables: How text tables are written.

        Raises:
            UserError: the file is damaged.
        """

    def with_lists(self, batch: pa.RecordBatch, histories: Collection[str], tables: TableFormat) -> pa.RecordBatch:
        """Rows that `batches` gave with lists as their histories, where the format has none.

        Args:
            batch: The rows.
            histories: The columns that hold histories.
            tables: How text tables are written.
        """
        return batch

    def bytes_in_memory(self, path: str, tables: TableFormat) -> int:
        """About how many bytes the rows of a file take as Arrow columns; a bound of what is read at a time needs it."""

    def settled(self, table: pa.Table, histories: Collection[str], tables: TableFormat) -> pa.Table:
        """Some rows as a table whose types say what the columns hold, where the format leaves that open.

        Args:
            table: Rows that `batches` gave.
            histories: The columns that hold histories.
            tables: How text tables are written.
        """


SOURCES: list[Source] = []
"""The formats that a log can have."""

SourceClass = TypeVar("SourceClass", bound=type[Source])


def record_source(source: SourceClass) -> SourceClass:
    """Register a format."""
    SOURCES.append(source())
    return source


def unique_names(path: str, names: Sequence[str], named_by: str = "") -> frozenset[str]:
    """The names of a table's columns.

    Args:
        path: The table.
        names: The names.
        named_by: What must name the columns, for the message, where that may be forgotten.

    Raises:
        UserError: two are equal.
    """
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise UserError(f"{path}: two columns are called '{repeated[0]}'{named_by}")
    return frozenset(names)
