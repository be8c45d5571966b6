"""Columns of a log and input tensors: their sides, missing values and taken names, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Side = Literal["user", "candidate", "context", "bias"]
SIDES: tuple[Side, ...] = get_args(Side)

INT64_MISSING = -(2**63)
"""Stands for "missing" in an int64 raw feature; "" does in a string, NaN in a float. The graph fills the defaults."""

MISSING: dict[str, Any] = {"int64": INT64_MISSING, "string": "", "float32": float("nan")}
"""The missing value by dtype."""

NOTHING: dict[str, int | float | bytes] = {"int64": 0, "string": b"", "float32": 0.0}
"""What a made row has where nothing better is known, by dtype."""

CANDIDATE_MASK = "candidate_mask"
"""The model input that says which candidates are real, bool [B, C]."""

MODEL_TAG = "model_tag"
"""The state tensor that says which model made the state."""

GROUP = "tfctr_group"
"""The column of the transformed examples that carries the raw group."""

USER_STATE = "user"
"""What the names of the state tensors of user features begin with, where those of a sequence begin with its name."""

STATISTICS = "tfctr_statistics"
"""The column of the pipeline's transformed examples that carries what was learned of numbers."""

RESERVED = {
    CANDIDATE_MASK: "the model",
    MODEL_TAG: "the user's state",
    STATISTICS: "the pipeline",
    GROUP: "the pipeline",
}
"""Names that no column can have, and what needs them."""


def length_name(sequence: str) -> str:
    """The raw and model input that holds the number of events of a sequence."""
    return f"{sequence}_length"


@dataclass(frozen=True)
class InputSpec:
    """One input tensor.

    Attributes:
        name: Its name, the same in the signatures and the model, and in the log unless that has a `column`.
        side: user tensors are [B, ...], candidate and bias [B, C, ...], context [B, ...], or
            [B, 1 or C, ...] in batches of requests and users.
        dtype: "string", "int64", "int32" or "float32".
        shape: The axes after [B] or [B, C]: (), (M,), (L,) or (L, M), with L events and M values.
        separator: What joins the tokens of a raw string that holds several values; None for a single value.
        column: The name of the column in the log, where it is another one.
    """

    name: str
    side: Side
    dtype: str
    shape: tuple[int, ...] = ()
    separator: str | None = None
    column: str | None = None

    @property
    def logged(self) -> str:
        """The name of the column in the log."""
        return self.name if self.column is None else self.column


@dataclass(frozen=True)
class Column:
    """A column of some rows of a log, as it was written.

    Attributes:
        flat: The values of all rows, one after the other: an array, an Arrow array or a tensor.
        lengths: How many of them each row has, int64 [N]; a missing value has none.
    """

    flat: Any
    lengths: npt.NDArray[np.int64]

    @cached_property
    def values(self) -> npt.NDArray[Any]:
        """The values as an array."""
        return np.asarray(self.flat)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of every value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def first(self, bad: npt.NDArray[np.bool_], problem: str) -> Iterator[Fault]:
        """The fault of the first of the values [n] that are bad, if any; the value ends the line."""
        if bad.any():
            value = int(bad.argmax())
            yield Fault(int(self.rows[value]), f"{problem}. Received: {self.values[value]}")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row.

    Attributes:
        row: Which of the rows that were looked at.
        problem: The column and what is wrong with it, in words.
    """

    row: int
    problem: str
