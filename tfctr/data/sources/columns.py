"""Arrow columns as the columns of a log: types change where nothing is lost, lists are histories or joined values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.sources.base import Rows
from tfctr.data.sources.missing import without, without_empty, without_nan
from tfctr.errors import UserError
from tfctr.features.columns import INT64_MISSING, Column
from tfctr.features.row_checks import AS_WRITTEN, ColumnRule

_EXACT = 2**53  # float64 holds every whole number below it, and rounds the next one to it
_Ints = npt.NDArray[np.int64]


def log_rows(
    table: pa.RecordBatch,
    rules: Mapping[str, ColumnRule],
    path: str,
    before: int,
    unread: frozenset[str],
    of_words: str = "",
) -> Iterator[Rows]:
    """Some rows of a table, in the columns that the feature file names; one that the table lacks has no value.

    Rows before a bad value are given out before it is told, so that of all faults the first one is.

    Args:
        table: The rows.
        rules: What each column must be.
        path: The file.
        before: How many rows of the file come before them.
        unread: The columns of the file that the feature file does not name.
        of_words: What is said of a text that is no number, beside that it is none.

    Raises:
        UserError: a value that can't become what the feature file says without a loss.
    """
    columns, refused = {}, []
    for name, rule in rules.items():
        index = table.schema.get_field_index(rule.column)
        try:
            columns[name] = _Reader(rule, of_words).column(
                pa.nulls(table.num_rows) if index < 0 else table.column(index)
            )
        except _BadValueError as error:
            refused.append(error)

    def where(row: int) -> str:
        return f"{path}, row {before + row + 1}"

    if not refused:
        yield Rows(columns, where, unread=lambda: unread)
        return
    first = min(refused, key=lambda error: error.row)
    if first.row:
        yield from log_rows(table.slice(0, first.row), rules, path, before, unread, of_words)
    raise UserError(f"{where(first.row)}: {first}")


class _BadValueError(Exception):
    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


@dataclass(frozen=True)
class _Reader:
    rule: ColumnRule
    of_words: str

    def column(self, array: pa.Array) -> Column:
        array = _plain(array) if self.rule.dtype in ("float32", AS_WRITTEN) else without_nan(_plain(array))
        if self.rule.dtype in ("int64", "float32") and pa.types.is_string(array.type):
            array = without_empty(array)
        rows = np.arange(len(array))
        if array.null_count == len(array):
            return Column(self._values(array[:0], rows[:0]), np.zeros(len(array), np.int64))
        if self.rule.separator is not None and not self.rule.history and is_list(array.type):
            array = self._joined(array, rows)
        if not is_list(array.type):
            if self.rule.history:
                raise self._refused(0, array.type, "a list")
            known = array.is_valid().to_numpy(zero_copy_only=False)
            return Column(self._values(array.filter(pa.array(known)), rows[known]), known.astype(np.int64))
        lengths, values = _lists(array)
        events = np.repeat(rows, lengths)
        if self.rule.separator is not None and is_list(values.type):
            values = self._joined(values, events)
        return Column(self._values(values, events), lengths)

    def _joined(self, lists: pa.Array, rows: _Ints) -> pa.Array:
        """The texts of every list in one, with the separator between them; null for an empty list."""
        separator = self.rule.separator
        assert separator is not None
        lengths, values = _lists(lists)
        owner = np.repeat(np.arange(len(lists)), lengths)
        texts = self._text(values, rows[owner])
        bad = pc.fill_null(pc.match_substring(texts, separator), False).to_numpy(zero_copy_only=False)
        if bad.any():
            raise self._refused(int(rows[owner[bad.argmax()]]), texts[int(bad.argmax())], f"without '{separator}'")
        kept = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False).to_numpy(zero_copy_only=False)
        counts = np.bincount(owner[kept], minlength=len(lists))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        kept_texts = texts.filter(pa.array(kept)).cast(pa.binary())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, kept_texts), pa.scalar(separator.encode()))
        return without(joined, pa.array(counts == 0))

    def _values(self, array: pa.Array, rows: _Ints) -> Any:
        """Values of one column as its dtype; a null, which stands in a history, as the missing value."""
        if self.rule.dtype == AS_WRITTEN:
            return array
        if self.rule.dtype == "string":
            texts = pc.fill_null(self._text(array, rows).cast(pa.binary()), b"")
            return np.array(texts.to_numpy(zero_copy_only=False), object)
        kind = array.type
        if array.null_count == len(array):  # a column without a value has a type by chance
            array = pa.nulls(len(array), pa.int64())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            array = self._numbers(array, rows)
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            zone = array.type.tz if pa.types.is_timestamp(kind) else None
            array = array.cast(pa.timestamp("s", zone), safe=False).cast(pa.int64())
        elif pa.types.is_decimal(kind):
            array = array.cast(pa.float64())
        elif pa.types.is_boolean(kind):
            array = array.cast(pa.int64())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise self._refused(int(rows[0]) if len(rows) else 0, kind, self.rule.dtype)
        return self._integers(array, rows) if self.rule.dtype == "int64" else self._floats(array, rows)

    def _integers(self, array: pa.Array, rows: _Ints) -> npt.NDArray[Any]:
        array = without_nan(array)
        if pa.types.is_floating(array.type):
            numbers = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
            bad = (numbers != np.floor(numbers)) | (np.abs(numbers) >= _EXACT)
        else:
            numbers = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
            bad = numbers > np.iinfo(np.int64).max if numbers.dtype == np.uint64 else np.zeros(len(numbers), bool)
        self._refuse(bad, array, rows)
        known = array.is_valid().to_numpy(zero_copy_only=False)
        return np.where(known, numbers.astype(np.int64), INT64_MISSING)

    def _floats(self, array: pa.Array, rows: _Ints) -> npt.NDArray[Any]:
        known = array.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_integer(array.type):
            whole = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
            numbers = whole.astype(np.float32)
            bad = numbers.astype(whole.dtype) != whole
        else:
            double = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
            with np.errstate(over="ignore"):
                numbers = double.astype(np.float32)
            bad = np.isfinite(double) & ~np.isfinite(numbers)
        self._refuse(bad, array, rows)
        return np.where(known, numbers, np.float32(np.nan))

    def _numbers(self, texts: pa.Array, rows: _Ints) -> pa.Array:
        """Texts as numbers, each by itself, whatever stands beside it; an empty one is missing."""
        texts = without_empty(texts)
        if self.rule.dtype == "float32":
            return self._parsed(texts, pa.float64(), rows)
        # Most are digits alone, which is soon seen. Arrow takes 0x1F for 31, but in no column with a point in it.
        if pc.all(pc.ascii_is_decimal(texts)).as_py():
            with suppress(pa.ArrowInvalid):
                return texts.cast(pa.int64())
        # 7.0 is a whole number too. What has no point is not read as a float64, which does not hold all whole numbers.
        whole = pc.match_substring_regex(texts, r"^\s*-?[0-9]+\s*$")
        others = self._integers(self._parsed(without(texts, whole), pa.float64(), rows), rows)
        return pc.if_else(whole, self._parsed(without(texts, pc.invert(whole)), pa.int64(), rows), pa.array(others))

    def _parsed(self, texts: pa.Array, kind: pa.DataType, rows: _Ints) -> pa.Array:
        with suppress(pa.ArrowInvalid):
            return texts.cast(kind)
        trimmed = pc.utf8_trim_whitespace(texts)
        try:
            return trimmed.cast(kind)
        except pa.ArrowInvalid:
            bad = next(index for index in range(len(texts)) if not _is_number(trimmed[index : index + 1], kind))
            wanted = f"{self.rule.dtype}{self.of_words}"
            raise self._refused(int(rows[bad]), repr(texts[bad].as_py()), wanted) from None

    def _text(self, array: pa.Array, rows: _Ints) -> pa.Array:
        kind = array.type
        if array.null_count == len(array):
            return pa.nulls(len(array), pa.string())
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            return array.cast(pa.binary())
        if any(test(kind) for test in _TEXT_LIKE):
            return array.cast(pa.string())
        raise self._refused(int(rows[0]) if len(rows) else 0, kind, "string")

    def _refuse(self, bad: npt.NDArray[np.bool_], array: pa.Array, rows: _Ints) -> None:
        if bad.any():
            index = int(bad.argmax())
            raise self._refused(int(rows[index]), array[index], self.rule.dtype)

    def _refused(self, row: int, received: Any, wanted: str) -> _BadValueError:
        return _BadValueError(row, f"column '{self.rule.column}' is {received}; {self.rule.because} {wanted}")


_TEXT_LIKE = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)


def _is_number(text: pa.Array, kind: pa.DataType) -> bool:
    try:
        text.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _plain(array: pa.Array) -> pa.Array:
    """The values themselves, where they are written once and referred to; float32 for float16."""
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(array: pa.Array) -> tuple[_Ints, pa.Array]:
    """How many values every list has (a null has none), and the values of all, one after the other."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, _plain(array.flatten())
