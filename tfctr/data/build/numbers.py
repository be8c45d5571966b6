"""Where a build asks numbers of the log, and what a text among them is told as: a CSV has no types of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.console import error_console
from tfctr.data.build.log import LogFile, column_of
from tfctr.data.build.sides import SideTable, side_files
from tfctr.data.build.spec import LABEL_WANTED, TIME_WANTED, Build, Side
from tfctr.data.build.tables import is_typed, table_batches
from tfctr.data.sources import with_lists
from tfctr.data.sources.columns import is_list
from tfctr.data.sources.texts import first_text
from tfctr.errors import UserError


def check_numbers(log: pa.Table, build: Build, files: Sequence[LogFile]) -> None:
    """Refuses a column of texts where the build file asks numbers of it, by the first value that made it one of texts.

    Args:
        log: Some rows of the log.
        build: The build file.
        files: The files of the log.

    Raises:
        UserError: file and row, value, and how a word for a missing value is named.
    """
    for column, asks in _asked(build):
        if pa.types.is_string(column_of(log, column).type):
            # The log is read once more for it: who reads it first does not know yet what is asked.
            told = first_word(log_pieces(build, files, column), column, booleans=asks == LABEL_WANTED)
            if told is not None:
                raise _no_number(told, asks, "log")


def check_changed(sides: Mapping[str, SideTable], build: Build, base: Path) -> None:
    """The same for the columns of tables whose numbers are changed.

    Args:
        sides: The tables of users and items.
        build: The build file.
        base: The directory that its paths start from.

    Raises:
        UserError: as of `check_numbers`.
    """
    for table, side in sides.items():
        for column, asks in _changed(build, table):
            if pa.types.is_string(side.column(column).type):
                told = first_word(_side_pieces(build.sides[table], base, table, column), column)
                if told is not None:
                    raise _no_number(told, asks, table)


def _side_pieces(side: Side, base: Path, table: str, column: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    for path in side_files(side, base, table):
        if not is_typed(path):
            yield from ((path, batch) for batch in table_batches(path, [column], side))


def _no_number(told: str, asks: str, table: str) -> UserError:
    return UserError(
        f"{told}, which is no number, so all of the column are texts; {asks}. A missing value is left empty, or its "
        f"word is named in `{table}.csv.nulls` of the build file"
    )


def _changed(build: Build, table: str) -> Iterator[tuple[str, str]]:
    """The columns of a table whose changes ask numbers of them, and by what."""
    for name, source in (build.columns or {}).items():
        if source.startswith(f"{table}.") and name in build.changes and build.changes[name].between is not None:
            yield source.removeprefix(f"{table}."), f"`changes.{name}.between` asks numbers"


def _asked(build: Build) -> Iterator[tuple[str, str]]:
    """The columns of which numbers are asked, and by what."""
    log, label = build.log, build.label
    if log.time is not None and log.time_pattern is None:
        yield log.time, TIME_WANTED
    conditions = [*log.where, *build.impressions, *(one for h in build.histories.values() for one in h.events)]
    for rule, column in [*((one, one.column) for one in conditions), (label, label.column)]:
        if rule.asks_numbers:
            yield column, f"`{rule.text}` asks numbers"
    if label.given is None:
        yield label.column, LABEL_WANTED
    yield from _changed(build, "log")


def warn_of_words(
    columns: Iterable[str], pieces: Callable[[str], Iterable[tuple[str, pa.RecordBatch]]], key: str
) -> None:
    """Warns of columns that a single word among numbers makes texts.

    Args:
        columns: `TextTypes.of_one_word` of the table.
        pieces: The files of the table and their rows, for a column.
        key: What the build file calls the table.
    """
    for column in columns:
        told = first_word(pieces(column), column)
        error_console().print(
            f"warning: {told}, the only word among numbers, so all of the column are texts; if it stands for a missing "
            f"value, leave that empty, or name the word in `{key}.csv.nulls` of the build file",
            markup=False,
            highlight=False,
        )


def log_pieces(build: Build, files: Sequence[LogFile], column: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """One column of the log, from those of its files that have no types; given histories are lists."""
    for file in files:
        if not is_typed(file.path):
            for batch in table_batches(file.path, [column], build.log):
                yield file.path, with_lists(file.path, batch, build.list_columns, build.log.csv)


def first_word(pieces: Iterable[tuple[str, pa.RecordBatch]], column: str, booleans: bool = False) -> str | None:
    """The first value of a column, or in its lists, that is no number, in words with its place; None if there is none.

    Args:
        pieces: The rows of some files in order, each with its file.
        column: The column.
        booleans: Whether true and false count as numbers.
    """
    rows = Counter[str]()
    for path, batch in pieces:
        values = batch.column(batch.schema.get_field_index(column))
        of_lists = is_list(values.type)
        texts = values.flatten() if of_lists else values
        found = first_text(texts, booleans) if pa.types.is_string(texts.type) else None
        if found is not None:
            row = pc.list_parent_indices(values)[found].as_py() if of_lists else found
            told = f"has '{texts[found]}' in its list" if of_lists else f"is '{texts[found]}'"
            return f"{path}, row {rows[path] + row + 1}: column '{column}' {told}"
        rows[path] += batch.num_rows
    return None
