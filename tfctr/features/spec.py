"""The feature file: one YAML that says what the features are; everything else follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfctr.errors import UserError
from tfctr.features.yaml_file import describe_validation_error, load_yaml

Side = Literal["user", "candidate", "context", "bias"]
SIDES: tuple[Side, ...] = ("user", "candidate", "context", "bias")
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LearnedVocabulary(_Strict):
    """Tokens counted on the training split, most frequent first."""

    type: Literal["learned"] = "learned"
    min_count: int = Field(1, ge=1, description="tokens seen less often are out of vocabulary")
    max_size: int | None = Field(None, ge=1, description="keep only that many tokens")


class HashVocabulary(_Strict):
    """Tokens hashed to a fixed number of buckets; nothing is learned and nothing is out of vocabulary."""

    type: Literal["hash"]
    buckets: int = Field(ge=1)


class FileVocabulary(_Strict):
    """Tokens read from a text file, one a line, relative to the data directory."""

    type: Literal["file"]
    path: str


class IdentityVocabulary(_Strict):
    """The value, an integer in [0, size), is its own index; anything else is out of vocabulary."""

    type: Literal["identity"]
    size: int = Field(ge=1)


Vocabulary = Annotated[
    LearnedVocabulary | HashVocabulary | FileVocabulary | IdentityVocabulary, Field(discriminator="type")
]


class Categorical(_Strict):
    """A key, int64 or string, looked up in a vocabulary and embedded.

    Index 0 is padding and "missing", 1 .. n are the tokens, n + 1 is out of vocabulary. With `max_values` the raw value
    is one string of tokens joined by `separator`, embedded as the mean of its first `max_values` tokens.
    """

    kind: Literal["categorical"] = "categorical"
    dtype: Literal["int64", "string"] = "int64"
    vocabulary: Vocabulary = LearnedVocabulary()
    share: Name | None = Field(None, description="use the vocabulary and the table of that feature")
    dimension: int | None = Field(None, ge=1, description="width of the table; default: embedding_dimension")
    max_values: int | None = Field(None, ge=1, description="multi-valued: keep that many tokens")
    separator: str = Field("|", min_length=1)
    default: int | str | None = Field(None, description="used when the value is missing")

    @model_validator(mode="after")
    def _consistent(self) -> Categorical:
        if self.share is not None:
            own = self.model_fields_set & {"dtype", "vocabulary", "dimension", "separator"}
            if own:
                raise ValueError(
                    f"{', '.join(sorted(own))}: comes from the shared feature '{self.share}'; remove it here"
                )
        elif self.max_values is not None and self.dtype != "string":
            raise ValueError("max_values needs dtype: string (the tokens joined by the separator)")
        if self.share is None and self.vocabulary.type == "identity" and self.dtype != "int64":
            raise ValueError("an identity vocabulary needs dtype: int64")
        if (
            self.default is not None
            and self.share is None
            and isinstance(self.default, str) != (self.dtype == "string")
        ):
            raise ValueError(f"default must be of dtype {self.dtype}. Received: {self.default!r}")
        return self


class Numeric(_Strict):
    """A number, transformed and embedded by a linear layer (or, when bucketized, by a table)."""

    kind: Literal["numeric"]
    dtype: Literal["float32", "int64"] = "float32"
    transform: Literal["none", "log1p", "zscore", "bucketize"] = "zscore"
    buckets: int = Field(16, ge=2, description="number of quantile buckets of bucketize")
    default: float = Field(0.0, description="used when the value is missing")


class Frozen(_Strict):
    """A row of a table of given vectors (text, image ...), chosen by the key feature; never trained.

    `vectors` names an .npz with `ids` [n] and `vectors` [n, width], relative to the data directory. Rows are
    L2-normalised once; a key without a vector gets the zero row.
    """

    kind: Literal["frozen"]
    key: Name
    vectors: str = "item_vectors.npz"
    dtype: Literal["float32", "float16"] = "float32"


class EventTime(_Strict):
    """Event times of a sequence, unix seconds (UTC): become log-scaled ages relative to the newest event."""

    kind: Literal["event_time"]


Feature = Annotated[Categorical | Numeric | Frozen | EventTime, Field(discriminator="kind")]


def _with_default_kind(value: Any) -> Any:
    """A feature without `kind` is categorical, so that `{share: item_id}` is a whole definition."""
    if isinstance(value, dict):
        return {
            name: {"kind": "categorical", **entry} if isinstance(entry, dict) else entry
            for name, entry in value.items()
        }
    return value


class Sequence(_Strict):
    """A behaviour history: named columns of one length, newest event first."""

    max_length: int = Field(ge=1)
    fields: dict[Name, Feature] = Field(min_length=1)

    _default_kind = field_validator("fields", mode="before")(_with_default_kind)

    @property
    def time_field(self) -> str | None:
        """The column of event times, if the sequence has one."""
        return next((name for name, field in self.fields.items() if isinstance(field, EventTime)), None)


class FeatureFile(_Strict):
    """What the features of a ranking problem are. See docs/features.md for every key."""

    version: Literal[1] = 1
    labels: dict[Name, Name] = Field(min_length=1, max_length=1, description="task -> column; one task")
    weight: Name | None = None
    group: Name = Field(description="the column GAUC groups by")
    request: Name | None = None
    timestamp: Name | None = Field(None, description="request time, unix seconds (UTC)")
    meta: tuple[Name, ...] = Field((), description="slice columns (strings), never model input")
    embedding_dimension: int = Field(16, ge=1)
    negative_sampling_rate: float = Field(1.0, gt=0, le=1, description="share of the negatives that the log kept")
    seed: int = 1
    user: dict[Name, Feature] = Field(default_factory=dict)
    candidate: dict[Name, Feature] = Field(min_length=1)
    context: dict[Name, Feature] = Field(default_factory=dict)
    bias: dict[Name, Feature] = Field(default_factory=dict)
    sequences: dict[Name, Sequence] = Field(default_factory=dict)

    _default_kind = field_validator("user", "candidate", "context", "bias", mode="before")(_with_default_kind)

    @property
    def task(self) -> str:
        """The name of the one task."""
        return next(iter(self.labels))

    @property
    def label(self) -> str:
        """The column of the task's label."""
        return self.labels[self.task]

    def side(self, side: Side) -> dict[str, Feature]:
        """The features of one side by name."""
        found: dict[str, Feature] = getattr(self, side)
        return found

    def feature(self, name: str) -> Feature:
        """The feature or sequence field of that name."""
        for _, found, feature in self.walk():
            if found == name:
                return feature
        raise KeyError(name)

    def walk(self) -> list[tuple[str, str, Feature]]:
        """(path, name, feature) of every feature and sequence field."""
        found = [(f"{side}.{name}", name, feature) for side in SIDES for name, feature in self.side(side).items()]
        for sequence_name, sequence in self.sequences.items():
            found += [(f"sequences.{sequence_name}.fields.{n}", n, f) for n, f in sequence.fields.items()]
        return found

    def resolve(self, name: str) -> tuple[str, Categorical]:
        """The owner of a categorical feature's vocabulary and table: (name, feature) after sharing."""
        feature = self.feature(name)
        if isinstance(feature, Categorical) and feature.share is not None:
            return self.resolve(feature.share)
        if not isinstance(feature, Categorical):
            raise TypeError(f"'{name}' is {feature.kind}, not categorical")
        return name, feature

    def frozen_features(self) -> dict[str, Frozen]:
        """The frozen vector tables by name."""
        return {name: feature for name, feature in self.candidate.items() if isinstance(feature, Frozen)}

    def frozen_of_sequence(self, sequence: str) -> dict[str, str]:
        """Frozen tables whose key the sequence shares: table name -> sequence field that holds the key."""
        found = {}
        for table, frozen in self.frozen_features().items():
            for name, field in self.sequences[sequence].fields.items():
                if isinstance(field, Categorical) and field.share == frozen.key:
                    found[table] = name
        return found

    @model_validator(mode="after")
    def _cross_references(self) -> FeatureFile:
        walked = self.walk()
        by_name: dict[str, str] = {}
        for path, name, _ in walked:
            if name in by_name:
                raise ValueError(f"{path}: the name '{name}' is taken by {by_name[name]}")
            by_name[name] = path
        for path, name, feature in walked:
            self._check_feature(path, name, feature)
        reserved = {self.label: "labels", self.weight: "weight", self.timestamp: "timestamp", self.request: "request"}
        for column, key in reserved.items():
            if column in by_name:
                raise ValueError(f"{by_name[column]}: '{column}' is the {key} column and can't be a feature too")
        if self.group not in by_name and self.group not in self.meta:
            raise ValueError(f"group: '{self.group}' must be a feature or a meta column. Allowed: {sorted(by_name)}")
        for name, sequence in self.sequences.items():
            times = [n for n, f in sequence.fields.items() if isinstance(f, EventTime)]
            if len(times) > 1:
                raise ValueError(f"sequences.{name}.fields: only one event_time is possible. Received: {times}")
            if times and self.timestamp is None:
                raise ValueError(f"sequences.{name}.fields.{times[0]}: event times need the top-level key `timestamp`")
            if not self.shared_fields(name):
                raise ValueError(
                    f"sequences.{name}.fields: at least one must share a candidate's table (share: NAME). "
                    f"Allowed: {sorted(n for n, f in self.candidate.items() if isinstance(f, Categorical))}"
                )
        return self

    def shared_fields(self, sequence: str) -> dict[str, str]:
        """Sequence fields that live in a candidate feature's space: field -> candidate feature."""
        return {
            name: field.share
            for name, field in self.sequences[sequence].fields.items()
            if isinstance(field, Categorical) and field.share in self.candidate
        }

    def _check_feature(self, path: str, name: str, feature: Feature) -> None:
        in_sequence = path.startswith("sequences.")
        if isinstance(feature, Categorical) and feature.share is not None:
            owners = sorted(
                n for _, n, f in self.walk() if isinstance(f, Categorical) and f.share is None and n != name
            )
            if feature.share not in owners:
                raise ValueError(f"{path}.share: no categorical feature '{feature.share}'. Allowed: {owners}")
            _, owner = self.resolve(name)
            if feature.max_values is not None and owner.dtype != "string":
                raise ValueError(f"{path}.max_values: '{feature.share}' must have dtype: string")
        if isinstance(feature, Frozen):
            keys = sorted(n for n, f in self.candidate.items() if isinstance(f, Categorical) and f.max_values is None)
            if path.split(".")[0] != "candidate":
                raise ValueError(f"{path}: a frozen table belongs to the candidate side")
            if feature.key not in keys:
                raise ValueError(f"{path}.key: no single-valued candidate feature '{feature.key}'. Allowed: {keys}")
        if isinstance(feature, EventTime) and not in_sequence:
            raise ValueError(f"{path}: event_time belongs to a sequence; the request's own time is the key `timestamp`")
        if in_sequence and not isinstance(feature, Categorical | EventTime):
            raise ValueError(f"{path}: a sequence field is categorical or event_time. Received: {feature.kind}")
        if path.startswith("bias.") and not (
            isinstance(feature, Categorical)
            and feature.share is None
            and feature.vocabulary.type == "identity"
            and feature.default is not None
        ):
            raise ValueError(
                f"{path}: a bias feature is categorical with an identity vocabulary and a default (for serving)"
            )


def load_feature_file(path: str | Path) -> FeatureFile:
    """Reads and checks a feature file.

    Args:
        path: The YAML file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    content = load_yaml(path)
    try:
        return FeatureFile.model_validate(content)
    except ValidationError as error:
        raise UserError(describe_validation_error(path, error, FeatureFile)) from None
