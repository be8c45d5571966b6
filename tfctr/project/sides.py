"""Which side a column stands on: what does not change with it says so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.features.columns import Side
from tfctr.project.roles import Roles
from tfctr.project.sample import is_list

_EVIDENCE = 100
"""In so many rows, at least, a key must come back before it is said to decide a column."""

_Ints = npt.NDArray[np.int64]


class Sides:
    """The sides of columns, by what the rows of a sample show.

    Args:
        table: The rows.
        roles: What is known of the columns.
    """

    def __init__(self, table: pa.Table, roles: Roles) -> None:
        self._table, self._roles = table, roles
        self._user = None if roles.user is None else self._codes(roles.user)
        self._item = None if roles.item is None else self._codes(roles.item)
        self._request = None if roles.request is None else self._codes(roles.request)
        if self._request is None and self._user is not None and roles.timestamp is not None:
            self._request = _joint(self._user, self._codes(roles.timestamp))

    def of(self, column: str) -> tuple[Side, str]:
        """The side of a column, and how that is known, in words."""
        roles = self._roles
        if column in roles.sides:
            return roles.sides[column], ""
        if column in (roles.user, roles.item):
            return ("user" if column == roles.user else "candidate"), ""
        if self.follows_item(column):
            return "candidate", f"one value for each {roles.item}"
        codes = self._codes(column)
        if self._user is not None and _decides(self._user, codes):
            return "user", f"one value for each {roles.user}"
        if self._request is not None and _decides(self._request, codes):
            return "context", "one value for each request"
        return "candidate", ""

    def follows_item(self, column: str) -> bool:
        """Whether the item decides a column, so that it can't be a history of the user."""
        return self._item is not None and _decides(self._item, self._codes(column))

    def _codes(self, column: str) -> _Ints:
        """A whole number for each different value of a column, missing ones too."""
        values = _one_text(self._table.column(column).combine_chunks())
        codes = pc.fill_null(pc.dictionary_encode(values).indices, -1).to_numpy(zero_copy_only=False)
        return np.asarray(codes, np.int64) + 1


def _one_text(array: pa.Array) -> pa.Array:
    """Lists as texts, by which they can be told apart; anything else as it is."""
    if not is_list(array.type):
        return array
    values = _one_text(array.values)
    texts = (values if pa.types.is_binary(values.type) else values.cast(pa.string())).cast(pa.binary())
    joined = pc.binary_join(pa.ListArray.from_arrays(array.offsets, pc.fill_null(texts, b"")), b"\x1f")
    return pc.if_else(array.is_valid(), joined, None)


def _joint(first: _Ints, second: _Ints) -> _Ints:
    return first * (int(second.max()) + 1) + second


def _decides(key: _Ints, codes: _Ints) -> bool:
    """Whether rows with one key have one value, with rows enough to say so."""
    keys = len(np.unique(key))
    return len(key) - keys >= _EVIDENCE and len(np.unique(_joint(key, codes))) == keys
