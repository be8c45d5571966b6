"""Finds the histories among the columns, where nobody says which they are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.sources.columns import is_list
from tfctr.features.table_format import TableFormat
from tfctr.project.codes import Codes, decides
from tfctr.project.names import before, is_identifier, named_in, words
from tfctr.project.roles import History, Options, Roles

_LONGEST = 200
_RECURRING = 0.1
"""So many of its values, at least, the rows of a sample have too: those of a long tail need not."""


def history_columns(table: pa.Table, written: Roles, options: Options) -> set[str]:
    """The columns of a table that hold histories, said before it is known what its texts are.

    In a text table a history is a text: it has several values, which are those that the column whose name stands in
    its own has in other rows.
    """
    said = {name for history in written.histories.values() for name in history.columns} | options.shares.keys()
    single = [name for name in table.column_names if _holds_one(table.column(name), options.csv)]
    several = [name for name in table.column_names if name not in single]
    for name in several:
        one = named_in(name, single)
        if name not in written.columns and one is not None and _recur(table, name, one, options.csv):
            said |= {name, *_companions(table, name, before(name, one), options.csv)}
    return said & set(table.column_names)


def find_histories(table: pa.Table, codes: Codes, written: Roles, roles: Roles, options: Options) -> dict[str, History]:
    """The histories of a sample by name, each with the columns of the row that hold the same as its own.

    Args:
        table: The rows.
        codes: Its columns.
        written: What the manifest says; of other columns it is found by their names.
        roles: What each column is.
        options: What a person says of the columns.
    """
    found = {name: _as_said(table, history, options) for name, history in written.histories.items()}
    lists = [name for name in table.column_names if _may_be_history(table, codes, name, roles, options)]
    known = roles.no_features | {roles.user}
    single = [name for name in table.column_names if name not in lists and name not in known]
    same = {name: options.shares.get(name) or named_in(name, single) for name in lists}
    taken = {name for history in found.values() for name in history.columns}
    left = dict.fromkeys(name for name in lists if name not in taken)
    for name in list(left):
        one = same[name]
        if one is None or name not in left:
            continue
        lengths = _lengths(table, name)
        columns = {other: same[other] for other in left if _lengths(table, other).equals(lengths)}
        for other in columns:
            del left[other]
        found[_name(before(name, one), found)] = History(length=_longest(lengths), columns=columns)
    return found


def _may_be_history(table: pa.Table, codes: Codes, name: str, roles: Roles, options: Options) -> bool:
    if not is_list(table.schema.field(name).type) or name in options.leave_out:
        return False
    if name in options.shares:
        return True
    follows_item = roles.item is not None and decides(codes.of(roles.item), codes.of(name))
    return roles.sides.get(name, "user") == "user" and not follows_item


def _as_said(table: pa.Table, history: History, options: Options) -> History:
    columns = {name: options.shares.get(name, same) for name, same in history.columns.items()}
    lists = [name for name in columns if name in table.column_names and is_list(table.schema.field(name).type)]
    length = history.length or max((_longest(_lengths(table, name)) for name in lists), default=1)
    return history.model_copy(update={"columns": columns, "length": length})


def _longest(lengths: Any) -> int:
    return max(1, min(int(pc.max(lengths).as_py() or 1), _LONGEST))


def _name(wanted: str, taken: Mapping[str, History]) -> str:
    base = wanted if is_identifier(wanted) and wanted != "user" else "history"
    numbered = (f"{base}_{number}" for number in count(2))
    return next(name for name in chain([base], numbered) if name not in taken)


def _lengths(table: pa.Table, name: str) -> Any:
    return pc.fill_null(pc.list_value_length(table.column(name).combine_chunks()), 0).cast(pa.int64())


def _holds_one(column: Any, tables: TableFormat) -> bool:
    """Whether no row has several values."""
    if is_list(column.type):
        return False
    if not pa.types.is_string(column.type):
        return True
    return not pc.any(pc.match_substring(column, tables.list_delimiter)).as_py()


def _recur(table: pa.Table, name: str, one: str, tables: TableFormat) -> bool:
    """Whether the values of a text are such as another column has; the words of a title are not."""
    texts, single = table.column(name).combine_chunks(), table.column(one).combine_chunks()
    if not (pa.types.is_string(texts.type) and pa.types.is_string(single.type)):
        return False
    events = pc.split_pattern(texts.drop_null(), tables.list_delimiter).flatten()
    return (pc.mean(pc.is_in(events, pc.unique(single))).as_py() or 0.0) >= _RECURRING


def _companions(table: pa.Table, name: str, start: str, tables: TableFormat) -> set[str]:
    """The text columns whose names begin as that of a history does, and that have as many values in every row."""
    if not start or not pa.types.is_string(table.schema.field(name).type):
        return set()
    counts = pc.count_substring(table.column(name), tables.list_delimiter)
    others = [other for other in table.column_names if "_".join(words(other)).startswith(f"{start}_")]
    texts = [other for other in others if pa.types.is_string(table.schema.field(other).type)]
    return {other for other in texts if pc.count_substring(table.column(other), tables.list_delimiter).equals(counts)}
