"""The feature file: one YAML that says what the features are; everything else follows from it."""

from __future__ import annotations

import keyword
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tfctr.errors import UserError
from tfctr.features.columns import RESERVED, SIDES, USER_STATE, Side, length_name
from tfctr.features.kinds.base import KINDS, Feature, Kind
from tfctr.features.kinds.request_time import RequestTime
from tfctr.features.labels import Labels
from tfctr.features.table_format import TableFormat
from tfctr.features.yaml_file import Name, OneOf, Strict, checked, describe_validation_error, load_yaml

# A feature without `kind` is categorical, so that `{share: item_id}` is a whole definition.
Definition = Annotated[Kind, OneOf(KINDS, "kind", "categorical")]


class Sequence(Strict):
    """A behaviour history: named columns of one length, newest event first."""

    max_length: int = Field(ge=1, le=2**20)
    fields: dict[Name, Definition] = Field(min_length=1)


class FeatureFile(Strict):
    """What the features of a ranking problem are. See docs/features.md for every key."""

    version: Literal[1] = 1
    labels: Labels
    weight: Name | None = None
    group: Name | None = Field(None, description="the column GAUC groups by; without it there is no GAUC")
    request: Name | None = None
    timestamp: Name | None = Field(None, description="request time, unix seconds (UTC)")
    meta: tuple[Name, ...] = Field((), description="slice columns (strings), never model input")
    embedding_dimension: int = Field(16, ge=1, le=2**16)
    negative_sampling_rate: float = Field(1.0, gt=0, le=1, description="share of the negatives that the log kept")
    seed: int = Field(1, ge=0, lt=2**32)
    csv: TableFormat = Field(TableFormat(), description="how the log is written where it is CSV")
    user: dict[Name, Definition] = Field(default_factory=dict)
    candidate: dict[Name, Definition] = Field(min_length=1)
    context: dict[Name, Definition] = Field(default_factory=dict)
    bias: dict[Name, Definition] = Field(default_factory=dict)
    sequences: dict[Name, Sequence] = Field(default_factory=dict)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """Every feature where it stands, also those that follow from others: the request's time, vectors of events."""
        placed = self._placed()
        by_name = {feature.name: feature for feature in placed}
        found = [replace(f, refers=by_name[f.kind.reference.name]) if f.kind.reference else f for f in placed]
        for sequence in self.sequences:
            fields = [feature for feature in found if feature.sequence == sequence]
            alongs = [f.kind.along(f, fields) for f in found if f.side == "candidate"]
            found += [along for along in alongs if along is not None]
        return tuple(found)

    def _placed(self) -> list[Feature]:
        """The features that stand in the file, without what they refer to, and the request's time."""
        sides: dict[Side, dict[str, Kind]] = {side: getattr(self, side) for side in SIDES}
        clock = self.timestamp
        placed = [
            Feature(name, f"{side}.{name}", side, kind, timestamp=clock)
            for side, kinds in sides.items()
            for name, kind in kinds.items()
        ]
        for sequence, entry in self.sequences.items():
            path = f"sequences.{sequence}.fields"
            placed += [
                Feature(name, f"{path}.{name}", "user", kind, sequence, entry.max_length, clock)
                for name, kind in entry.fields.items()
            ]
        if clock is not None:
            placed.append(Feature(clock, "timestamp", "context", RequestTime(), timestamp=clock))
        return placed

    def feature(self, name: str) -> Feature:
        """The feature of that name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    def column_of(self, name: str) -> str:
        """The column of the log that has that name in this file."""
        return self._columns.get(name, name)

    @cached_property
    def _columns(self) -> dict[str, str]:
        return {spec.name: spec.logged for feature in self.features for spec in feature.kind.columns(feature)}

    @cached_property
    def origin(self) -> str | None:
        """Where the file was read from, for messages, or None."""
        return None

    @property
    def table_optimizers(self) -> dict[str, str | dict[str, Any]]:
        """The optimizers that features name for their tables, by the names of the features."""
        return {
            feature.name: field.table.optimizer
            for feature in self.features
            for field in feature.kind.fields(feature)
            if field.table is not None and field.table.optimizer is not None and field.table.name == feature.name
        }

    def of_side(self, side: Side) -> list[Feature]:
        """The features of a side, without those of sequences."""
        return [feature for feature in self.features if feature.place == side]

    def of_sequence(self, sequence: str) -> list[Feature]:
        """The features of a sequence's events, also those that follow from candidates' features."""
        return [feature for feature in self.features if feature.sequence == sequence]

    def shared_fields(self, sequence: str) -> dict[str, str]:
        """The fields of a sequence that lie in the space of a candidate's feature: field -> that feature."""
        return {field.name: field.shares.name for field in self.of_sequence(sequence) if field.shares}

    def frozen_of_sequence(self, sequence: str) -> dict[str, str]:
        """The frozen tables whose rows the events of a sequence have: table -> model input with the rows."""
        return {field.along.name: field.name for field in self.of_sequence(sequence) if field.along}

    @classmethod
    def of_json(cls, text: str, where: str | Path) -> FeatureFile:
        """Reads the feature file of assets or of a model, which an earlier version may have written.

        Raises:
            UserError: it is none, or this version refuses it; with `where` it was.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UserError(describe_validation_error(where, error)) from None

    @model_validator(mode="after")
    def _consistent(self) -> FeatureFile:
        placed = self._placed()
        taken: dict[str, str] = {}
        for feature in placed:
            if feature.name in taken:
                raise ValueError(f"{feature.path}: the name '{feature.name}' is taken by {taken[feature.name]}")
            taken[feature.name] = feature.path
        for feature in placed:
            _check_place(feature, placed)
        for feature in self.features:
            feature.kind.check(feature)
        self._check_group()
        for name in self.sequences:
            self._check_sequence(name)
        self._check_names(taken)
        return self

    def _check_group(self) -> None:
        """Refuse a group that is no single value of a row."""
        singles = [s.name for f in self.features if not f.sequence for s in f.kind.columns(f) if s.separator is None]
        allowed = sorted({*singles, *self.meta} - {self.timestamp})
        if self.group is not None and self.group not in allowed:
            raise ValueError(
                f"group: must be a feature with one value a row or a meta column. Allowed: {allowed}. "
                f"Received: '{self.group}'"
            )

    def _check_sequence(self, name: str) -> None:
        fields = self.of_sequence(name)
        for kind in {type(field.kind) for field in fields if field.kind.single}:
            same = [field.name for field in fields if type(field.kind) is kind]
            if len(same) > 1:
                raise ValueError(f"sequences.{name}.fields: only one can be of that kind. Received: {same}")
        if not any(field.shares for field in fields):
            allowed = sorted(feature.name for feature in self.of_side("candidate") if feature.kind.shareable)
            raise ValueError(
                f"sequences.{name}.fields: at least one must share a candidate's table (share: NAME). "
                f"Allowed: {allowed}"
            )

    def _check_names(self, taken: dict[str, str]) -> None:
        """Refuse a name that two need: for a column, a model input or a table.

        Args:
            taken: The paths of the features in the file by their names.
        """
        roles = [(column, "labels") for column in self.labels.columns]
        roles += [(column, key) for key in ("weight", "request") if (column := getattr(self, key)) is not None]
        users: dict[str, str] = dict(RESERVED)
        for column, key in roles:
            if column in taken:
                raise ValueError(f"{taken[column]}: '{column}' is the {key} column and can't be a feature too")
            _take(users, column, key)
        for column in self.meta:
            if users.get(column) in ("labels", "weight"):
                raise ValueError(f"meta: '{column}' is the {users[column]} column and can't be a slice too")
        for name in self.sequences:
            _take(users, length_name(name), f"sequences.{name}")
        for feature in self.features:
            specs = (*feature.kind.columns(feature), *feature.kind.inputs(feature))
            tables = (elapsed.table.name for elapsed in feature.kind.request_fields(feature))
            for name in {*(spec.name for spec in specs), *tables}:
                _take(users, name, feature.path)
        columns = {spec.name: feature.path for feature in self.features for spec in feature.kind.columns(feature)}
        histories = {spec.name for f in self.features if f.sequence for spec in f.kind.columns(f)}
        for column in self.meta:
            if column in histories:
                raise ValueError(f"meta: '{column}' is a history, and a slice column has one value a row")
            if column not in columns and column in users and users[column] != "request":
                raise ValueError(f"meta: {users[column]} needs the name '{column}'; rename the slice column")
        self._check_signature_names(columns)
        self._check_logged()

    def _check_logged(self) -> None:
        """Refuse a column of the log that is read as a feature and as what is no feature, or as two types."""
        roles = dict.fromkeys(self.labels.columns, "labels")
        roles |= {column: key for key in ("weight", "request") if (column := getattr(self, key)) is not None}
        seen: dict[str, tuple[str, str]] = dict.fromkeys(self.meta, ("string", "meta"))
        for feature in self.features:
            for spec in feature.kind.columns(feature):
                if spec.logged in roles:
                    raise ValueError(
                        f"{feature.path}: '{spec.logged}' is the {roles[spec.logged]} column and can't be a feature too"
                    )
                dtype, path = seen.setdefault(spec.logged, (spec.dtype, feature.path))
                if dtype != spec.dtype and spec.logged != spec.name:
                    raise ValueError(
                        f"{feature.path}.column: '{spec.logged}' is read as {spec.dtype}, and by {path} as {dtype}"
                    )

    def _check_signature_names(self, columns: dict[str, str]) -> None:
        """Refuse a column that TensorFlow can't name an input of a signature, or that is named as a part of the state.

        Args:
            columns: Where the feature of each column stands.
        """
        if USER_STATE in self.sequences:
            raise ValueError(f"sequences.{USER_STATE}: the user's state needs this name; rename the sequence")
        states = tuple(f"state_{owner}_".lower() for owner in (USER_STATE, *self.sequences))
        spelled = {name.lower(): name for name in (*RESERVED, *map(length_name, self.sequences))}
        for column, path in columns.items():
            if column == "self" or keyword.iskeyword(column):
                raise ValueError(f"{path}: '{column}' is a word of Python, which no input of a model can be named")
            if column.lower().startswith(states):
                raise ValueError(
                    f"{path}: the user's state needs the names that start with 'state_'; rename '{column}'"
                )
            other = spelled.setdefault(column.lower(), column)
            if other != column:
                raise ValueError(f"{path}: '{column}' differs from '{other}' in case only; rename one")


def _take(users: dict[str, str], name: str, user: str) -> None:
    if users.setdefault(name, user) != user:
        raise ValueError(f"{user}: {users[name]} needs the name '{name}'; rename one")


def _check_place(feature: Feature, placed: list[Feature]) -> None:
    """Refuse a kind that can't stand there, or that refers to what is not there."""
    kind = feature.kind
    if feature.place not in kind.places:
        allowed = ", ".join(name for name, one in KINDS.items() if feature.place in one.places)
        raise ValueError(
            f"{feature.path}: the kind of a {feature.place} feature must be one of {allowed}. Received: {kind.kind}"
        )
    reference = kind.reference
    if reference is None:
        return
    others = [other.name for other in placed if other.name != feature.name and kind.may_refer_to(feature, other)]
    if reference.name not in others:
        raise ValueError(
            f"{feature.path}.{reference.key}: must name {reference.wanted}. Allowed: {sorted(others)}. "
            f"Received: '{reference.name}'"
        )


def load_feature_file(path: str | Path) -> FeatureFile:
    """Reads and checks a feature file.

    Args:
        path: The YAML file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    file = checked(FeatureFile, load_yaml(path), path)
    # As a cached property has it: it is no part of what files are compared by, or of what is written of them.
    file.__dict__["origin"] = str(path)
    return file
