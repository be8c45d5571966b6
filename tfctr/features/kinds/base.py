"""What every feature kind answers. A kind is one class in one file, registered by one decorator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfctr.features.kinds.fields import Elapsed, FieldSpec
from tfctr.features.yaml_file import Strict, registered_name

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets
    from tfctr.features.kinds.learned import Numbers, Tokens
    from tfctr.features.kinds.suggestion import Found, Suggestion

Side = Literal["user", "candidate", "context", "bias"]
SIDES: tuple[Side, ...] = get_args(Side)

INT64_MISSING = -(2**63)
"""Stands for "missing" in an int64 raw feature; "" does in a string, NaN in a float. The graph fills the defaults."""

MISSING: dict[str, Any] = {"int64": INT64_MISSING, "string": "", "float32": float("nan")}
"""The missing value by dtype."""

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
        side: user tensors are [B, ...], candidate and bias [B, C, ...], context [B, ...].
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
        flat: The values of all rows, one after the other: an array or a tensor.
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


@dataclass(frozen=True)
class FrozenTable:
    """Given vectors: the key of row i + 1 is `keys[i]`, and row 0 of `vectors` [1 + n, width] is zero."""

    keys: list[bytes]
    vectors: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Summary:
    """A feature in one line.

    Attributes:
        about: Its vocabulary or transform, in words.
        kind: The kind, in words.
        width: Width of its table or map; None for the feature file's `embedding_dimension`.
        rows: Rows of its own table or map, bias included: the factor of the width in its parameters. None where it is
            not known before the data is analyzed.
    """

    about: str
    kind: str
    rows: int | None
    width: int | None = None


@dataclass(frozen=True)
class Reference:
    """The feature that another one refers to.

    Attributes:
        key: The YAML key that names it.
        name: Its name.
        wanted: What it must be, in words.
    """

    key: str
    name: str
    wanted: str


@dataclass(frozen=True)
class Feature:
    """A feature where it stands in a feature file.

    Attributes:
        name: Its name. A kind with one column calls the column so, too.
        path: Where it stands in the file: `candidate.item_id`.
        side: Its side; "user" inside a sequence.
        kind: What the file says of it.
        sequence: The sequence that it is a field of, or None.
        length: The most events of that sequence, or None.
        timestamp: The column of the request's time, or None.
        refers: The feature that its kind refers to (`share`, `key`), or None.
        along: Set only for features that the package adds itself: the candidate's feature (a frozen table) whose rows
            this one has for the events of a sequence.
    """

    name: str
    path: str
    side: Side
    kind: Kind
    sequence: str | None = None
    length: int | None = None
    timestamp: str | None = None
    refers: Feature | None = None
    along: Feature | None = None

    @property
    def place(self) -> str:
        """The side, or "sequence"."""
        return self.side if self.sequence is None else "sequence"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value after the side's own axes: () or (L,)."""
        return () if self.length is None else (self.length,)

    @property
    def shares(self) -> Feature | None:
        """The candidate's feature in whose space a field of a sequence lies, if it does."""
        shared = self.sequence is not None and self.refers is not None and self.refers.side == "candidate"
        return self.refers if shared else None


class Lookups(Protocol):
    """Where vocabularies and statistics come from: files, or the analyzers of a Transform graph."""

    def vocabulary(self, owner: str, tokens: Any) -> Any:
        """Indices int64 of string tokens: 1 .. n in the vocabulary, n + 1 outside."""

    def rows(self, table: str, tokens: Any) -> Any:
        """Rows int64 of string keys in a frozen table: 1 .. n, 0 for a key without a vector."""

    def statistics(self, column: str) -> Mapping[str, Any]:
        """The numbers learned from a column."""


class Kind(Strict):
    """Everything that the package asks about a feature. `at` is the feature itself, where it stands.

    A kind must have `columns`, `inputs`, `to_model`, `fields` and `summary`; the other methods have defaults. It may
    have several columns, `<name>_latitude` and `<name>_longitude` for instance.
    The methods that take or give tensors import TensorFlow inside, so that a feature file can be read without it.
    """

    kind: str
    places: ClassVar[tuple[str, ...]] = ("user", "candidate", "context", "sequence")
    """Where features of this kind may stand: sides, and "sequence"."""

    single: ClassVar[bool] = False
    """Whether a sequence may have one such field only."""

    # What a first feature file says.

    @classmethod
    def suggest(cls, found: Found) -> Suggestion | None:
        """The definition of a column that looks like this; None for a column that can't be of this kind."""
        return None

    @classmethod
    def suggest_vectors(cls, key: str, vectors: str) -> dict[str, Any] | None:
        """The definition of what a file of vectors adds to the ids that a feature holds; None: nothing."""
        return None

    # What stands in the feature file.

    @property
    def reference(self) -> Reference | None:
        """The other feature that this one needs."""
        return None

    def may_refer_to(self, at: Feature, other: Feature) -> bool:
        """Whether `other` can be the feature that this one needs."""
        return False

    @property
    def shareable(self) -> bool:
        """Whether other features may share its vocabulary and table."""
        return False

    @property
    def is_key(self) -> bool:
        """Whether its raw value is a single key, by which a row of another table can be chosen."""
        return False

    def check(self, at: Feature) -> None:
        """Raise a ValueError for what can't be where the feature stands."""

    def along(self, at: Feature, fields: Sequence[Feature]) -> Feature | None:
        """The feature to add to a sequence with these fields, so that its events have what the candidate has."""
        return None

    # The log, and what is learned from its training split.

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        """Its columns in the log, which are also the raw inputs of the signatures."""
        return ()

    def faults(self, at: Feature, columns: Mapping[str, Column]) -> Iterator[Fault]:
        """The first row with each fault that its columns of the log can have beside their types and lengths."""
        yield from ()

    def new_values_are_normal(self, at: Feature) -> bool:
        """Whether values that the training data never had are to be expected, and no anomaly."""
        return False

    def tokens(self, at: Feature) -> tuple[Tokens, ...]:
        """What is counted in its columns for learned vocabularies."""
        return ()

    def numbers(self, at: Feature) -> Mapping[str, Numbers]:
        """The statistics that are learned, by the column they are learned from."""
        return {}

    def learned_rows(self, at: Feature, assets: FeatureAssets) -> int:
        """Rows of its table, where that depends on what was learned or given."""
        raise NotImplementedError

    # Files beside the log.

    def files(self, at: Feature) -> tuple[str, ...]:
        """Files that it reads, relative to the data directory."""
        return ()

    def given_tokens(self, at: Feature, data_directory: Path) -> list[bytes] | None:
        """Its own vocabulary where a file gives it, in index order."""
        return None

    def frozen_table(self, at: Feature, data_directory: Path) -> FrozenTable | None:
        """Its own table of given vectors."""
        return None

    # The model.

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        """The tensors that the raw function makes of it."""
        raise NotImplementedError

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        """Map raw tensors to its model inputs, by name. The caller sets padded steps to 0 afterwards."""
        raise NotImplementedError

    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        """What its fields are made of."""
        raise NotImplementedError

    def request_fields(self, at: Feature) -> tuple[Elapsed, ...]:
        """Fields of the request that also need the user's state."""
        return ()

    def state(self, at: Feature) -> dict[str, str]:
        """The model inputs that the user's state keeps for `score`: name in the state -> model input."""
        return {}

    def events(self, at: Feature) -> dict[str, str]:
        """Further model inputs that interests read: their name for it (`ages`, `ids/...`) -> model input."""
        return {}

    # People and tools.

    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        """Its line in `tfctr features show`."""
        raise NotImplementedError


class OneColumn(Kind):
    """A kind with one column, which may have another name in the log."""

    column: str | None = Field(None, min_length=1, description="the column's name in the log, if it has another one")


KINDS: dict[str, type[Kind]] = {}
"""The feature kinds by the name that a feature file uses."""

KindClass = TypeVar("KindClass", bound=type[Kind])


def feature_kind(kind: KindClass) -> KindClass:
    """Register a feature kind under the one value that its field `kind` allows."""
    KINDS[registered_name(kind, "kind")] = kind
    return kind
