"""What the values of a column are like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.sources.columns import is_list
from tfctr.features.kinds.request_time import YEAR_2100
from tfctr.features.kinds.suggestion import Found, Joined
from tfctr.project.names import TIME_WORDS, names_an_id, words

_SEPARATORS = ("|", ",", ";")
_YEAR_1990 = 631_152_000
_UNITS = (1, 10**3, 10**6, 10**9)
"""So many of a second times are counted in."""
_EXACT = 2**53  # float64 holds every whole number below it
_MOST_VALUES = 20
_JOINED_SHARE = 0.05
"""Fewer rows with a separator than these do not make a column one of several values."""


@dataclass(frozen=True)
class Context:
    """What is known of a column beside its values.

    Attributes:
        place: Where its feature will stand: a side, or "sequence".
        is_key: Whether it is known to hold ids, such as that of the user or the item.
        has_clock: Whether the time of the request is known.
        is_time: Whether it is known to hold times.
        joined_by: What joins the values of a list in the log, where a list is a text there.
    """

    place: str
    is_key: bool = False
    has_clock: bool = False
    is_time: bool = False
    joined_by: str | None = None


def facts(name: str, column: Any, known: Context) -> Found | None:
    """What the values of a column of a sample are like; None where there are none, or they are lists of lists."""
    values, lengths = column, None
    if known.place == "sequence":
        values = values.flatten()
    if is_list(values.type):
        lengths = pc.list_value_length(values)
        values = values.flatten()
    values = values.drop_null()
    if not len(values) or is_list(values.type):
        return None
    is_id = names_an_id(name)
    is_time = known.is_time or _looks_like_time(name, values)
    if (is_id or is_time or known.is_key or known.place == "bias") and _are_whole(values):
        values = values.cast(pa.int64())  # ids of which some are missing are floats in many a data frame
    joined = None if lengths is None else Joined(known.joined_by or _free_separator(values), _usual(lengths))
    if joined is None and _dtype(values) == "string":
        values, joined = _split(values)
    counts = pc.value_counts(values).field("counts")
    quantiles = None
    if _dtype(values) != "string":
        quantiles = tuple(pc.quantile(values, [0.0, 0.5, 0.75, 1.0], interpolation="lower").to_pylist())
    return Found(
        place=known.place,
        dtype=_dtype(values),
        count=len(values),
        distinct=len(counts),
        once=pc.sum(pc.equal(counts, 1)).as_py(),
        quantiles=quantiles,
        joined=joined,
        is_id=is_id,
        is_key=known.is_key,
        is_time=is_time,
        has_clock=known.has_clock,
    )


def is_constant(column: Any) -> bool:
    """Whether all rows have the same value, and none lacks it."""
    values = column.flatten() if is_list(column.type) else column
    return column.null_count == 0 and not is_list(values.type) and len(pc.unique(values)) == 1


def has_infinite(column: Any) -> bool:
    """Whether a column, or a list of it, holds an infinite value."""
    values = column
    while is_list(values.type):
        values = values.flatten()
    return bool(pa.types.is_floating(values.type) and pc.any(pc.is_inf(values)).as_py())


def are_seconds(column: Any) -> bool:
    """Whether a column holds whole seconds since 1970, of our days."""
    if not pa.types.is_integer(column.type) or column.null_count == len(column):
        return False
    ends = pc.min_max(column).as_py()
    return _in_our_days(ends["min"], ends["max"])


def are_weights(column: Any) -> bool:
    """Whether a column can say how often its row counts."""
    if not is_number(column):
        return False
    ends = pc.min_max(column).as_py()
    return bool(ends["min"] is not None and ends["min"] >= 0 and 0 < ends["max"] < float("inf"))


def is_text(values: Any) -> bool:
    """Whether a column holds one text a row."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def is_number(values: Any) -> bool:
    """Whether the values of a column are numbers."""
    return bool(pa.types.is_integer(values.type) or pa.types.is_floating(values.type))


def _in_our_days(first: float, last: float) -> bool:
    return _YEAR_1990 <= first <= last <= YEAR_2100


def _looks_like_time(name: str, values: Any) -> bool:
    if not is_number(values) or not TIME_WORDS & set(words(name)):
        return False
    ends = pc.min_max(values).as_py()
    return any(_in_our_days(ends["min"] / unit, ends["max"] / unit) for unit in _UNITS)


def _are_whole(values: Any) -> bool:
    """Whether values are floats that whole numbers can replace."""
    if not pa.types.is_floating(values.type):
        return False
    exact = pc.less(pc.abs(values), float(_EXACT))
    return bool(pc.all(pc.and_(exact, pc.equal(values, pc.floor(values)))).as_py())


def _dtype(values: Any) -> Literal["int64", "string", "float32"]:
    if pa.types.is_integer(values.type):
        return "int64"
    return "float32" if pa.types.is_floating(values.type) else "string"


def _split(texts: Any) -> tuple[Any, Joined | None]:
    """Texts that hold several values each as the values, and how they are joined; else the texts themselves."""
    try:
        texts = texts.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        return texts, None
    for separator in (_as_written(texts, one) for one in _SEPARATORS):
        has = pc.sum(pc.match_substring(texts, separator)).as_py()
        if has < _JOINED_SHARE * len(texts):
            continue
        lists = pc.split_pattern(texts, separator)
        parts = lists.flatten()
        # The values of a text with a comma in it, such as a title, do not come back in other texts.
        if len(pc.unique(parts)) < len(pc.unique(texts)):
            return parts, Joined(separator, _usual(pc.list_value_length(lists)))
    return texts, None


def _as_written(texts: Any, separator: str) -> str:
    """A separator with the spaces that stand beside it everywhere."""
    times = pc.sum(pc.count_substring(texts, separator))
    spaced = (f" {separator} ", f"{separator} ")
    return next((one for one in spaced if pc.sum(pc.count_substring(texts, one)) == times), separator)


def _free_separator(values: Any) -> str:
    if not pa.types.is_string(values.type):
        return _SEPARATORS[0]
    free = (one for one in (*_SEPARATORS, "\t") if not pc.any(pc.match_substring(values, one)).as_py())
    return next(free, _SEPARATORS[0])


def _usual(lengths: Any) -> int:
    nearly_all = pc.quantile(lengths, 0.95, interpolation="higher")[0].as_py()
    return max(1, min(int(nearly_all or 1), _MOST_VALUES))
