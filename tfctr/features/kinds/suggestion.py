"""What a kind is told of a column for which a first definition is wanted, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tfctr.features.kinds.base import Kind

FEW_VALUES = 100
"""So many different whole numbers are classes rather than amounts, unless their tail is long."""


@dataclass(frozen=True)
class Joined:
    """How several values of one row, or event, stand in one text or list.

    Attributes:
        separator: What joins them, or would: a list has no separator, and takes one that stands in no value.
        usual: So many values are enough for nearly all rows.
    """

    separator: str
    usual: int


@dataclass(frozen=True)
class Found:
    """What some rows of a log hold in one column.

    Attributes:
        place: Where the feature will stand: a side, or "sequence".
        dtype: What its values are.
        count: How many values there are; missing ones do not count.
        distinct: How many different ones.
        once: How many of the different ones were seen once.
        quantiles: The smallest number, those that a half and three quarters do not pass, and the largest; None for
            texts.
        joined: How several values of one row stand there, if they do.
        is_id: Whether its name is that of an id.
        is_key: Whether it is known to say which user or which item a row is about.
        shares: The feature with the same ids and its kind, if there is one.
        is_time: Whether its numbers are event times.
        has_clock: Whether the time of the request is known.
    """

    place: str
    dtype: Literal["int64", "string", "float32"]
    count: int
    distinct: int
    once: int
    quantiles: tuple[float, float, float, float] | None = None
    joined: Joined | None = None
    is_id: bool = False
    is_key: bool = False
    shares: tuple[str, Kind] | None = None
    is_time: bool = False
    has_clock: bool = False


@dataclass(frozen=True)
class Suggestion:
    """A definition that a kind proposes.

    Attributes:
        fit: How well the column and the kind go together, from 0 to 1; of several kinds the best is taken.
        keys: The definition as it stands in the feature file; None: better without this column.
        why: A line for the reader of the feature file.
    """

    fit: float
    keys: dict[str, Any] | None
    why: str
