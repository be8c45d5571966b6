"""Types for the columns of a text table, which has none of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.sources.missing import without_empty

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_LONG = r"^-?[0-9]{16}"  # a float64 does not hold them all
_BOOLEAN = r"^([Tt]rue|TRUE|[Ff]alse|FALSE)$"
_NUMBER = r"^-?((0|[1-9][0-9]{0,14})(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


class TextTypes:
    """What texts can be read as, over all rows of a table: booleans, whole numbers, numbers, or nothing but texts.

    A whole number that another text is written for (`007`), or that no int64 holds, is a text.

    Args:
        as_written: Columns whose numbers with a point are texts.
    """

    def __init__(self, as_written: Iterable[str | None] = ()) -> None:
        self._as_written = frozenset(as_written)
        self._texts: set[str] = set()
        self._others: set[str] = set()
        self._numbers: set[str] = set()
        self._long: set[str] = set()
        self._seen: set[str] = set()
        self._with_numbers: set[str] = set()
        self._words: dict[str, set[str]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Looks at some rows; in a history, at the values of its events."""
        for name in batch.schema.names:
            column = batch.column(name)
            texts = column.flatten() if pa.types.is_list(column.type) else column
            of_many_words = len(self._words.get(name, ())) > 1
            if not pa.types.is_string(texts.type) or (name in self._texts and name in self._others and of_many_words):
                continue
            texts = _known(texts)
            if not of_many_words:
                self._add_words(name, texts)
            if texts.null_count < len(texts):
                self._seen.add(name)
            if _any(pc.match_substring_regex(texts, _LONG)):
                self._long.add(name)
            if name not in self._others and not _all(pc.match_substring_regex(texts, _BOOLEAN)):
                self._others.add(name)
            if name not in self._numbers and not _all(pc.match_substring_regex(texts, _WHOLE)):
                self._numbers.add(name)
            if name in self._numbers and (
                name in self._as_written or not _all(pc.match_substring_regex(texts, _NUMBER))
            ):
                self._texts.add(name)

    def _add_words(self, name: str, texts: pa.Array) -> None:
        """Notes whether there are numbers, and the first two texts that are none."""
        numbers = _is_number(texts)
        if _any(numbers):
            self._with_numbers.add(name)
        words = texts.filter(pc.invert(numbers)).unique()[:2].to_pylist()
        self._words[name] = set([*self._words.get(name, ()), *words][:2])

    def merge(self, other: TextTypes) -> None:
        """Adds what was seen of other rows."""
        self._texts |= other._texts
        self._others |= other._others
        self._numbers |= other._numbers
        self._long |= other._long
        self._seen |= other._seen
        self._with_numbers |= other._with_numbers
        for name, words in other._words.items():
            self._words[name] = set([*self._words.get(name, ()), *words][:2])

    @property
    def of_one_word(self) -> list[str]:
        """The columns of numbers that one word makes texts, in the order of their names."""
        found = (name for name in self._with_numbers & self._texts if len(self._words[name]) == 1)
        return sorted(set(found) - self._as_written)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types of the columns that are not texts."""
        found = self._seen - self._texts - (self._numbers & self._long)
        numbers = {name: pa.float64() if name in self._numbers else pa.int64() for name in sorted(found)}
        return numbers | {name: pa.bool_() for name in sorted(self._seen - self._others)}


def typed(table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with some columns of other types; of a history it is the type of its values."""
    for name, kind in types.items():
        index = table.schema.get_field_index(name)
        if index < 0:
            continue
        column = table.column(index).combine_chunks()
        if pa.types.is_list(column.type):
            values = _known(column.flatten()).cast(kind)
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            settled = pa.ListArray.from_arrays(offsets, values, mask=column.is_null())
        else:
            settled = _known(column).cast(kind)
        table = table.set_column(index, name, settled)
    return table


def first_text(texts: pa.Array, booleans: bool = False) -> int | None:
    """The index of the first of some texts that no number is written as; None where each is a number or missing.

    Args:
        texts: The texts [n].
        booleans: Whether true and false count as numbers.
    """
    known = _known(texts)
    told = _is_number(known)
    if booleans:
        told = pc.or_(told, pc.match_substring_regex(known, _BOOLEAN))
    others = pc.invert(pc.fill_null(told, True)).to_numpy(zero_copy_only=False)
    return int(others.argmax()) if others.any() else None


def _is_number(texts: pa.Array) -> pa.Array:
    return pc.or_(pc.match_substring_regex(texts, _WHOLE), pc.match_substring_regex(texts, _NUMBER))


def _known(texts: pa.Array) -> pa.Array:
    """Texts of which an empty one is missing."""
    return without_empty(texts) if pa.types.is_string(texts.type) else texts


def _all(values: pa.Array) -> bool:
    return pc.all(values).as_py() is not False


def _any(values: pa.Array) -> bool:
    return pc.any(values).as_py() is True
