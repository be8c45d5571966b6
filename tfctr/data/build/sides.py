"""What a build knows of users and items: a table with one row a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.spec import Build, Side
from tfctr.data.build.tables import (
    as_schema,
    is_number,
    is_typed,
    merged,
    require_columns,
    table_batches,
    table_files,
    with_values,
)
from tfctr.data.item_vectors import ItemVectors, checked_vectors, load_item_vectors
from tfctr.data.sources.columns import is_list
from tfctr.data.sources.texts import TextTypes, typed
from tfctr.errors import UserError


@dataclass(frozen=True)
class SideTable:
    """What is known of users or items.

    Attributes:
        path: Where it is.
        table: One row a key.
        key: The name of the key's column.
        words: The columns of numbers that one word makes texts.
        read: What was read of each file, by which such a word is found.
    """

    path: str
    table: pa.Table
    key: str
    words: Sequence[str] = ()
    read: Sequence[tuple[str, pa.RecordBatch]] = ()

    def pieces(self, column: str) -> Sequence[tuple[str, pa.RecordBatch]]:
        """The files of the table and the rows of each, in which a word of a column is found."""
        return self.read

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
        if all(map(is_number, both)) and any(map(pa.types.is_floating, both)):
            return pc.index_in(keys.cast(pa.float64()), self._keys.cast(pa.float64()), skip_nulls=True)
        return pc.index_in(keys.cast(pa.string()), self._texts, skip_nulls=True)


def vectors_of_items(build: Build, base: Path, sides: Mapping[str, SideTable]) -> ItemVectors | None:
    """The vectors of the items, if the build file names some.

    Args:
        build: The build file.
        base: The directory that its paths start from.
        sides: The tables of users and items.

    Raises:
        UserError: no such file or column, or one that does not hold a vector of each item.
    """
    named = build.item_vectors
    if named is None or isinstance(named, str):
        return None if named is None else load_item_vectors(base / named)
    side, path = sides["items"], base / build.sides["items"].path
    require_columns(str(path), side.table.schema.names, [named.column])
    lists = side.column(named.column)
    if not is_list(lists.type):
        raise UserError(f"{path}: column '{named.column}' is {lists.type}; vectors are lists of numbers")
    widths = pc.list_value_length(lists)
    uneven = pc.fill_null(pc.not_equal(widths, widths[0]), True).to_numpy(zero_copy_only=False)
    if uneven.any():
        key = side.column(side.key)[int(uneven.argmax())]
        raise UserError(f"{path}: the vector of {side.key} {key} in '{named.column}' has another length than the first")
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return checked_vectors(path, side.column(side.key).to_numpy(zero_copy_only=False), values.reshape(len(lists), -1))


def side_files(side: Side, base: Path, name: str) -> list[str]:
    """The files of a table of users or items.

    Raises:
        UserError: there are none.
    """
    return table_files(base / side.path, f"{name}.path")


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
    declared: pa.Schema | None = None
    for path in side_files(side, base, name):
        for batch in table_batches(path, None, side):
            require_columns(path, batch.schema.names, [side.key])
            found.append((path, batch))
            schema, declared = merged(schema, with_values(batch)), merged(declared, batch.schema)
            if not is_typed(path):
                types.add(batch)
    if schema is None or declared is None:
        raise UserError(f"{base / side.path}: the table of {name} is empty")
    schema = merged(schema, declared)
    table = typed(pa.Table.from_batches([as_schema(batch, schema, path) for path, batch in found]), types.types)
    table = table.filter(table.column(side.key).is_valid()).combine_chunks()
    if not table.num_rows:
        raise UserError(f"{base / side.path}: the table of {name} has no row with a {side.key}")
    counted = table.column(side.key).value_counts()
    counts = counted.field("counts").to_numpy()
    if (counts > 1).any():
        key, rows = counted.field("values")[int(counts.argmax())], counts.max()
        raise UserError(f"{base / side.path}: {side.key} '{key}' stands in {rows} rows; keep one")
    read = found if types.of_one_word else ()
    return SideTable(str(base / side.path), table, side.key, types.of_one_word, read)
