"""The kind of keys that are looked up in a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from tfctr.features.columns import MISSING, InputSpec
from tfctr.features.kinds.base import Feature, Kind, Lookups, OneColumn, Reference, Summary, feature_kind
from tfctr.features.kinds.fields import FieldSpec, Lookup, Table
from tfctr.features.kinds.learned import Tokens
from tfctr.features.kinds.suggestion import FEW_VALUES, Found, Suggestion
from tfctr.features.kinds.vocabularies import VOCABULARIES, LearnedVocabulary, Vocabulary, suggested_vocabulary
from tfctr.features.yaml_file import Name, OneOf, either

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets

_ROWS_OF_A_KEY = 1000
"""In fewer rows, values that are all different need not be keys of the rows."""

_LAST_POSITION = 10_000
"""No candidate is shown behind it; a larger number is an id."""


@feature_kind
class Categorical(OneColumn):
    """A key, int64 or string, looked up in a vocabulary and embedded.

    Index 0 is padding and "missing", 1 .. n are the tokens, n + 1 is out of vocabulary. With `max_values` the raw value
    is one string of tokens joined by `separator`, embedded as the mean of its first `max_values` tokens.
    """

    kind: Literal["categorical"] = "categorical"
    dtype: Literal["int64", "string"] = "int64"
    vocabulary: Annotated[Vocabulary, OneOf(VOCABULARIES, "type", "learned")] = LearnedVocabulary()
    share: Name | None = Field(None, description="use the vocabulary and the table of that feature")
    dimension: int | None = Field(None, ge=1, description="width of the table; default: embedding_dimension")
    optimizer: Annotated[
        str | dict[str, Any] | None, either("the name of an optimizer, a mapping with its `type`, or null")
    ] = Field(None, description="how its table is trained; default: the experiment's embedding_optimizer")
    max_values: int | None = Field(None, ge=1, description="multi-valued: keep that many tokens")
    separator: str = Field("|", min_length=1)
    default: int | str | None = Field(None, description="used when the value is missing")

    places: ClassVar[tuple[str, ...]] = ("user", "candidate", "context", "bias", "sequence")

    @model_validator(mode="after")
    def _consistent(self) -> Categorical:
        if self.share is not None:
            own = self.model_fields_set & {"dtype", "vocabulary", "dimension", "separator", "optimizer"}
            if own:
                raise ValueError(
                    f"{', '.join(sorted(own))}: comes from the shared feature '{self.share}'; remove it here"
                )
            return self
        if self.max_values is not None and self.dtype != "string":
            raise ValueError("max_values needs dtype: string (the tokens joined by the separator)")
        if self.dtype not in self.vocabulary.dtypes:
            allowed = " or ".join(self.vocabulary.dtypes)
            raise ValueError(f"a vocabulary of type {self.vocabulary.type} needs dtype: {allowed}")
        return self

    @classmethod
    @override
    def suggest(cls, found: Found) -> Suggestion | None:
        if found.place == "bias":
            return _suggested_bias(found)
        if found.dtype == "float32":
            return None
        if found.shares is not None and _has_such_ids(found, found.shares[1]):
            return _suggested_share(found, *found.shares)
        different = found.distinct == found.count >= _ROWS_OF_A_KEY
        if different and not found.is_key and found.joined is None and found.place != "sequence":
            return Suggestion(0.4, None, "no value stands twice: a key of rows, from which nothing is learned")
        dtype: dict[str, Any] = {"dtype": found.dtype}
        about = f"{found.distinct:,} values"
        if found.joined is not None:
            dtype = {"dtype": "string", "max_values": found.joined.usual}
            dtype |= {"separator": found.joined.separator} if found.joined.separator != "|" else {}
            about += f", several a row; {found.joined.usual} are enough for nearly all rows"
        vocabulary, rarity = suggested_vocabulary(found)
        certain = found.is_id or found.is_key or found.dtype == "string" or found.distinct <= FEW_VALUES
        if not certain:
            about += "; taken for an id: an amount would be {kind: numeric, dtype: int64}"
        return Suggestion(0.9 if certain else 0.5, dtype | vocabulary, about + rarity)

    @property
    @override
    def reference(self) -> Reference | None:
        if self.share is None:
            return None
        return Reference("share", self.share, "a categorical feature that shares nothing itself")

    @override
    def may_refer_to(self, at: Feature, other: Feature) -> bool:
        return other.kind.shareable

    @property
    @override
    def shareable(self) -> bool:
        return self.share is None

    @property
    @override
    def is_key(self) -> bool:
        return self.max_values is None

    @override
    def check(self, at: Feature) -> None:
        if self.max_values is not None and _owner(at).dtype != "string":
            raise ValueError(
                f"{at.path}.max_values: '{self.share}' must have dtype: string. Received: {_owner(at).dtype}"
            )
        dtype, default = _owner(at).dtype, self.default
        if default is not None and (
            isinstance(default, str) != (dtype == "string") or (isinstance(default, int) and abs(default) >= 2**63)
        ):
            raise ValueError(f"{at.path}.default: must be of dtype {dtype}. Received: {default!r}")
        if at.place == "bias" and self._serving_row() is None:
            raise ValueError(
                f"{at.path}: a bias feature needs an identity vocabulary and a default in it (for serving). "
                f"Received: default {default!r}"
            )

    def _serving_row(self) -> int | None:
        own = self.share is None and self.default is not None
        return self.vocabulary.constant(self.default) if own else None

    @override
    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, _owner(at).dtype, at.shape, self._separator(at), self.column),)

    def _separator(self, at: Feature) -> str | None:
        return None if self.max_values is None else _owner(at).separator

    @override
    def new_values_are_normal(self, at: Feature) -> bool:
        # Joined values ("A|B") are new ones whenever their combination is.
        return self.share is not None or self.max_values is not None or self.vocabulary.grows

    @override
    def tokens(self, at: Feature) -> tuple[Tokens, ...]:
        return _owner(at).vocabulary.tokens(at.name, self.share or at.name, self._separator(at))

    @override
    def learned_rows(self, at: Feature, assets: FeatureAssets) -> int:
        return assets.token_count(at.name) + 2

    @override
    def files(self, at: Feature) -> tuple[str, ...]:
        return self.vocabulary.files if self.share is None else ()

    @override
    def given_tokens(self, at: Feature, data_directory: Path) -> list[bytes] | None:
        return self.vocabulary.given_tokens(data_directory) if self.share is None else None

    @override
    def made_values(self, at: Feature, assets: FeatureAssets) -> Mapping[str, int | float | bytes]:
        """Its default, or first tokens of a candidate's vocabulary; those of users and requests may be their names."""
        owner = self.share or at.name
        if self.default is not None:
            tokens = [str(self.default).encode()]
        elif (at.refers or at).side == "candidate" and assets.vocabulary_path(owner).is_file():
            tokens = assets.tokens(owner)[: self.max_values or 1]
        else:
            return super().made_values(at, assets)
        if _owner(at).dtype == "int64":
            # A file may give an integer feature any token; no value of the log ever equals one that is no integer.
            return {at.name: int(tokens[0]) if tokens[0].isdigit() and len(tokens[0]) < 19 else 0}
        return {at.name: _owner(at).separator.encode().join(tokens)}

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        values = () if self.max_values is None else (self.max_values,)
        return (InputSpec(at.name, at.side, "int32", (*at.shape, *values)),)

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        value = raw[at.name]
        if self.default is not None:
            default = tf.constant(self.default, value.dtype)
            value = tf.where(value == MISSING[value.dtype.name], default, value)
        if self.max_values is None:
            return {at.name: self._indices(at, value, lookups)}
        tokens = tf.strings.split(tf.reshape(value, [-1]), _owner(at).separator)
        indices = self._indices(at, tokens.values, lookups)
        ragged = tf.RaggedTensor.from_row_splits(indices, tokens.row_splits, validate=False)
        dense = ragged.to_tensor(0, shape=[None, self.max_values])
        out = tf.reshape(dense, tf.concat([tf.shape(value), [self.max_values]], axis=0))
        return {at.name: tf.ensure_shape(out, [*value.shape.as_list(), self.max_values])}

    def _indices(self, at: Feature, values: Any, lookups: Lookups) -> Any:
        """Index int32 of every value: 0 missing, 1 .. n known, n + 1 out of vocabulary."""
        import tensorflow as tf

        indices = _owner(at).vocabulary.indices(self.share or at.name, values, lookups)
        return tf.cast(tf.where(values == MISSING[values.dtype.name], tf.zeros_like(indices), indices), tf.int32)

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        owner = _owner(at)
        table = Table(self.share or at.name, owner.vocabulary.rows, owner.dimension, owner.optimizer)
        serving_row = self._serving_row() if at.place == "bias" else None
        return (Lookup(at.name, table, self.max_values is not None, serving_row),)

    @override
    def events(self, at: Feature) -> dict[str, str]:
        return {} if at.shares is None else {f"ids/{at.shares.name}": at.name}

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        owner = _owner(at)
        kind = self.kind if self.max_values is None else f"{self.kind} x{self.max_values}"
        if self.share is not None:
            return Summary(f"shares {self.share}", kind, 0, owner.dimension)
        rows = self.vocabulary.rows
        if rows is None and assets is not None:
            rows = self.learned_rows(at, assets)
        # A bias feature adds one number to the logit.
        return Summary(self.vocabulary.about, kind, rows, 1 if at.place == "bias" else owner.dimension)


def _owner(at: Feature) -> Categorical:
    """The definition of the vocabulary and the table: its own, or that of the feature that it shares."""
    kind = at.kind if at.refers is None else at.refers.kind
    assert isinstance(kind, Categorical)
    return kind


def _suggested_bias(found: Found) -> Suggestion:
    numbers = None if found.dtype != "int64" or found.joined is not None else found.quantiles
    if numbers is None or numbers[0] < 0 or numbers[-1] > _LAST_POSITION:
        why = (
            f"a position must be a whole number from 0 to {_LAST_POSITION:,}; if it is known before anything is shown, "
            "name its side, such as --context"
        )
        return Suggestion(1.0, None, why)
    first, *_, last = map(int, numbers)
    size = 1 << max(last, 1).bit_length()
    keys = {"dtype": "int64", "vocabulary": {"type": "identity", "size": size}, "default": first}
    return Suggestion(1.0, keys, f"seen {first} to {last}; read in training only, where serving has {first} for all")


def _has_such_ids(found: Found, kind: Kind) -> bool:
    """Whether ids can stand in the vocabulary of another feature."""
    return not isinstance(kind, Categorical) or kind.dtype != "int64" or found.dtype == "int64"


def _suggested_share(found: Found, name: str, kind: Kind) -> Suggestion:
    keys: dict[str, Any] = {"share": name}
    if found.joined is not None and isinstance(kind, Categorical) and kind.max_values is not None:
        keys["max_values"] = found.joined.usual
    return Suggestion(1.0, keys, f"the ids of {name}, so one table for both")
