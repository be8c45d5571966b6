"""Columns as whole numbers, by which it is seen what decides what."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.sources.columns import is_list
from tfctr.data.sources.missing import without

EVIDENCE = 100
"""So often, at least, something must be seen before it is taken for a rule."""

Ints = npt.NDArray[np.int64]


class Codes:
    """A whole number for each different value of a column; 0 where it is missing.

    Args:
        table: The rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._found: dict[str, Ints] = {}

    def of(self, column: str) -> Ints:
        """The numbers of a column, one for each row."""
        if column not in self._found:
            values = _one_text(self._table.column(column).combine_chunks())
            codes = pc.fill_null(pc.dictionary_encode(values).indices, -1).to_numpy(zero_copy_only=False)
            self._found[column] = np.asarray(codes, np.int64) + 1
        return self._found[column]


def joint(first: Ints, second: Ints) -> Ints:
    """A number for each different pair."""
    return first * (int(second.max()) + 1) + second


def count(codes: Ints) -> int:
    """How many different ones there are."""
    return len(np.unique(codes))


def agree(key: Ints, codes: Ints) -> bool:
    """Whether all rows with one key have one value."""
    return count(joint(key, codes)) == count(key)


def decides(key: Ints, codes: Ints) -> bool:
    """Whether all rows with one key have one value, with rows enough to say so."""
    return len(key) - count(key) >= EVIDENCE and agree(key, codes)


def _one_text(array: pa.Array) -> pa.Array:
    """Lists as texts, by which they can be told apart; anything else as it is."""
    if not is_list(array.type):
        return array
    values = _one_text(array.values)
    texts = (values if pa.types.is_binary(values.type) else values.cast(pa.string())).cast(pa.binary())
    joined = pc.binary_join(pa.ListArray.from_arrays(array.offsets, pc.fill_null(texts, b"")), b"\x1f")
    return without(joined, array.is_null())
