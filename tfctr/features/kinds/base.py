"""What every feature kind answers. A kind is one class in one file, registered by one decorator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfctr.features.columns import NOTHING, Column, Fault, InputSpec, Side
from tfctr.features.kinds.fields import Elapsed, FieldSpec
from tfctr.features.yaml_file import Strict, registered_name

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets
    from tfctr.features.kinds.learned import Numbers, Tokens
    from tfctr.features.kinds.suggestion import Found, Suggestion


@dataclass(frozen=True)
class FrozenTable:
    """Given vectors: the key of row i + 1 is `keys[i]`, and row 0 of `vectors` [1 + n, width] is zero."""

    keys: list[bytes]
    vectors: npt.NDArray[np.floating[Any]]

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The row of each key as a log has it, a number or a text; 0 for one without a vector."""
        known = {key: row for row, key in enumerate(self.keys, start=1)}
        distinct, places = np.unique(values, return_inverse=True)
        return np.array([known.get(key_token(one), 0) for one in distinct.tolist()], np.int64)[places]


def key_token(key: Any) -> bytes:
    """The token of a frozen table's key."""
    return key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape")


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

    is_time: ClassVar[bool] = False
    """Whether the values are times. A client refuses those that training refuses."""

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

    def made_values(self, at: Feature, assets: FeatureAssets) -> Mapping[str, int | float | bytes]:
        """Values that no row of the log need have had, for a made row: what one event or candidate has, by column."""
        return {spec.name: NOTHING[spec.dtype] for spec in self.columns(at)}

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
