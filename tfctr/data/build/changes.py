"""How the values of a column are changed on their way from the log to the impressions."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from tfctr.errors import UserError
from tfctr.features.yaml_file import Strict

if TYPE_CHECKING:
    import pyarrow as pa


class Change(Strict):
    """One change of a column's values; a missing value stays missing."""

    part: str | None = Field(
        None,
        description="a regular expression: of a text, what it finds first (its group, if it has one); else missing",
    )
    between: tuple[float, ...] | None = Field(
        None,
        min_length=2,
        description="growing numbers: of a number, between which two it lies (1: above the first, at most the second); "
        "outside of all it is missing",
    )
    without: tuple[int | str, ...] | None = Field(
        None, description="of a list, the values that are left out; of a history, of each event's list"
    )

    @field_validator("part")
    @classmethod
    def _an_expression(cls, part: str | None) -> str | None:
        if part is not None:
            try:
                groups = re.compile(part).groups
            except re.error as error:
                raise ValueError(f"must be a regular expression; {error}. Received: {part}") from None
            if groups > 1:
                raise ValueError(f"must have one group at most. Received: {part}")
        return part

    @field_validator("between")
    @classmethod
    def _growing(cls, edges: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if edges is not None and not all(low < high for low, high in pairwise(edges)):
            raise ValueError(f"must be growing numbers. Received: {list(edges)}")
        return edges

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, key) is not None for key in Change.model_fields) != 1:
            raise ValueError(f"must have one of {', '.join(Change.model_fields)}")
        return self

    def apply(self, values: pa.Array, told: str) -> pa.Array:
        """The values [n] as they are written.

        Args:
            values: The values [n].
            told: Their table and the change, for the message: `log.csv: changes.age`.

        Raises:
            UserError: such values can't be changed so.
        """
        import pyarrow as pa

        kind = values.type
        if values.null_count == len(values) and not pa.types.is_nested(kind):
            if self.without is not None:
                return values
            # Other pieces of the log may have values; what they become has one type in all.
            return pa.nulls(len(values), pa.string() if self.between is None else pa.int64())
        if self.part is not None:
            if not pa.types.is_string(kind):
                raise UserError(f"{told}.part: needs texts; the column is {kind}")
            return _part(values, self.part)
        if self.between is not None:
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise UserError(f"{told}.between: needs numbers; the column is {kind}")
            return _interval(values, self.between)
        if not _is_list(kind):
            raise UserError(f"{told}.without: needs lists; the column is {kind}")
        return _without(values, self.without or (), f"{told}.without")


def _part(values: pa.Array, part: str) -> pa.Array:
    """The part of each text [n] that is found."""
    import pyarrow as pa

    coded = values.dictionary_encode()  # each text is looked at once
    expression = re.compile(part)
    found = [expression.search(text) for text in coded.dictionary.to_pylist()]
    parts = [None if one is None else one[expression.groups] for one in found]
    return pa.array(parts, pa.string()).take(coded.indices)


def _interval(values: pa.Array, edges: tuple[float, ...]) -> pa.Array:
    """Between which two edges each number [n] lies."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.fill_null(values.cast(pa.float64()), edges[0]).to_numpy(zero_copy_only=False)
    place = np.searchsorted(edges, numbers, side="left")
    return pa.array(place, mask=(place == 0) | (place == len(edges)))


def values_of_type(values: tuple[int | str, ...], kind: pa.DataType, key: str) -> pa.Array:
    """What a key of the build file names of a column's values, in their type.

    Args:
        values: What is named.
        kind: The type of the column's values; none of them is named where there are none at all.
        key: The key, for the message.

    Raises:
        UserError: a value that can't be one of the column's.
    """
    import pyarrow as pa

    try:
        return pa.nulls(0, kind) if pa.types.is_null(kind) else pa.array(values).cast(kind)
    except (pa.ArrowException, OverflowError):
        raise UserError(f"{key}: the values are {kind}; {list(values)} can't be among them") from None


def _without(lists: pa.Array, gone: tuple[int | str, ...], key: str) -> pa.Array:
    """The lists [n] without some values, and without missing ones; a list that is missing is empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = lists.flatten()
    if _is_list(values.type):  # of each event of a history a list
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, _without(values, gone, key))
    if pa.types.is_null(values.type):  # no list of the log has a value
        return lists
    kept = pc.and_(values.is_valid(), pc.invert(pc.is_in(values, values_of_type(gone, values.type, key))))
    kept = kept.to_numpy(zero_copy_only=False)
    counts = np.bincount(np.repeat(np.arange(len(lists)), lengths)[kept], minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values.filter(pa.array(kept)))


def _is_list(kind: pa.DataType) -> bool:
    from tfctr.data.sources.columns import is_list

    return is_list(kind)
