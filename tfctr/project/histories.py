"""Finds the histories among the columns, where nobody says which they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.features.table_format import TableFormat
from tfctr.project.names import before, named_in, words
from tfctr.project.roles import History, Options, Roles
from tfctr.project.sample import is_list
from tfctr.project.sides import Sides

_LONGEST = 200


def history_columns(table: pa.Table, written: Roles | None, options: Options) -> set[str]:
    """The columns of a table that hold histories, said before it is known what its texts are.

    In a text table a history is a text: it has several values, and the column whose name stands in its own has one.
    """
    said = {name for history in written.histories.values() for name in history.columns} if written else set()
    said |= options.shares.keys()
    single = [name for name in table.column_names if _holds_one(table.column(name), options.csv)]
    if written is None:
        for name in table.column_names:
            one = named_in(name, single)
            if one is not None and not _holds_one(table.column(name), options.csv):
                said |= {name, *_companions(table, name, before(name, one), options.csv)}
    return said & set(table.column_names)


def find_histories(table: pa.Table, written: Roles | None, roles: Roles, options: Options) -> dict[str, History]:
    """The histories of a sample by name, each with the columns of the row that hold the same as its own.

    Args:
        table: The rows.
        written: What the manifest says; None: the names are asked.
        roles: What each column is.
        options: What a person says of the columns.
    """
    if written is not None:
        return {name: _shared_as_said(history, options) for name, history in written.histories.items()}
    lists = [name for name in table.column_names if is_list(table.schema.field(name).type)]
    sides = Sides(table, roles)
    lists = [name for name in lists if name not in options.leave_out and roles.sides.get(name, "user") == "user"]
    lists = [name for name in lists if not sides.follows_item(name)]
    known = roles.no_features | {roles.user}
    single = [name for name in table.column_names if name not in lists and name not in known]
    same = {name: options.shares.get(name) or named_in(name, single) for name in lists}
    found: dict[str, History] = {}
    left = dict.fromkeys(lists)
    for name in lists:
        one = same[name]
        if one is None or name not in left:
            continue
        lengths = _lengths(table, name)
        columns = {other: same[other] for other in left if _lengths(table, other).equals(lengths)}
        for other in columns:
            del left[other]
        longest = int(pc.max(lengths).as_py() or 1)
        found[_name(before(name, one), found)] = History(length=max(1, min(longest, _LONGEST)), columns=columns)
    return found


def _shared_as_said(history: History, options: Options) -> History:
    columns = {name: options.shares.get(name, same) for name, same in history.columns.items()}
    return history.model_copy(update={"columns": columns})


def _name(wanted: str, taken: Mapping[str, History]) -> str:
    base = wanted if wanted and wanted[0].isalpha() and wanted != "user" else "history"
    return base if base not in taken else f"{base}_{len(taken) + 1}"


def _lengths(table: pa.Table, name: str) -> Any:
    return pc.fill_null(pc.list_value_length(table.column(name).combine_chunks()), 0).cast(pa.int64())


def _holds_one(column: Any, tables: TableFormat) -> bool:
    """Whether no row has several values."""
    if is_list(column.type):
        return False
    if not pa.types.is_string(column.type):
        return True
    return not pc.any(pc.match_substring(column, tables.list_delimiter)).as_py()


def _companions(table: pa.Table, name: str, start: str, tables: TableFormat) -> set[str]:
    """The text columns whose names begin as that of a history does, and that have as many values in every row."""
    if not start or not pa.types.is_string(table.schema.field(name).type):
        return set()
    counts = pc.count_substring(table.column(name), tables.list_delimiter)
    others = [other for other in table.column_names if "_".join(words(other)).startswith(f"{start}_")]
    texts = [other for other in others if pa.types.is_string(table.schema.field(other).type)]
    return {other for other in texts if pc.count_substring(table.column(other), tables.list_delimiter).equals(counts)}
