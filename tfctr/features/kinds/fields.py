"""What fields are made of, as data: the model builds them from these without knowing any feature kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Table:
    """A trained table of an embedding.

    Attributes:
        name: The feature that owns it; features that share it name the same table.
        rows: How many rows it has; None where that is learned from the data.
        width: Width of a row; None for the feature file's `embedding_dimension`.
        optimizer: How it is trained, as the feature file says; None for as all tables are.
    """

    name: str
    rows: int | None
    width: int | None = None
    optimizer: str | dict[str, Any] | None = None


@dataclass(frozen=True)
class Lookup:
    """A field that is a row of a trained table.

    Attributes:
        input: The model input with the indices: int32 [...], or [..., M] when pooled.
        table: The table.
        pooled: Whether the field is the mean over the last axis, index 0 left out.
        serving_row: The row that serving takes whatever the input; for bias features.
    """

    input: str
    table: Table
    pooled: bool = False
    serving_row: int | None = None
    size: ClassVar[None] = None
    source: ClassVar[str] = "table"

    @property
    def has_value_axis(self) -> bool:
        """Whether the model input has a last axis that the field has not."""
        return self.pooled


@dataclass(frozen=True)
class Linear:
    """A field that is a linear map of numbers.

    Attributes:
        input: The model input: float [...], or [..., n] with `size` n.
        size: How many numbers the last axis holds; None for a single number without such an axis.
    """

    input: str
    size: int | None = None
    table: ClassVar[None] = None
    source: ClassVar[str] = "number"

    @property
    def has_value_axis(self) -> bool:
        """Whether the model input has a last axis that the field has not."""
        return self.size is not None


@dataclass(frozen=True)
class FrozenRow:
    """A field that is a linear map of a row of a given table.

    Attributes:
        input: The model input with the rows: int32 [...].
        vectors: The name of the frozen table.
        dtype: How the table is stored, whatever the model's precision.
    """

    input: str
    vectors: str
    dtype: str = "float32"
    table: ClassVar[None] = None
    size: ClassVar[None] = None
    source: ClassVar[str] = "vector"
    has_value_axis: ClassVar[bool] = False


FieldSpec = Lookup | Linear | FrozenRow


@dataclass(frozen=True)
class Elapsed:
    """A field of the request: the time since something in the user's state, as a row of a table by log buckets.

    Attributes:
        now: The context input with the present time in seconds, int64 [B].
        since: The state tensor with the earlier time, int64 [B].
        table: The table.
        boundaries: Lower edges of the buckets in 1 + seconds; bucket 0 stands for an unknown time.
    """

    now: str
    since: str
    table: Table
    boundaries: tuple[int, ...]
