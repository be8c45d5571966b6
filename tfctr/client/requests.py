"""Conversion of feature mappings to the inputs of a served version."""

import difflib
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfctr.client import codec
from tfctr.client.codec import Array
from tfctr.client.declared import Declared
from tfctr.client.errors import BadRequestError
from tfctr.client.metadata import LENGTH_SUFFIX, ServedModel, TensorSpec
from tfctr.client.times import check_newest_first
from tfctr.client.values import SEPARATOR, column, missing, shown

Features = Mapping[str, Any]
"""The values of one user, candidate or context by the name of the feature."""
Candidates = Sequence[Features] | Mapping[str, Any]
"""The features of each candidate, or one mapping of equally long columns."""

logger = logging.getLogger("tfctr.client")


class RequestBuilder:
    """Builds the inputs of one served version.

    If `strict`, a feature that the version does not have is an error; otherwise it is dropped. `declared` is what a
    feature file declares, if there is one.
    """

    def __init__(self, model: ServedModel, strict: bool = False, declared: Declared | None = None):
        self.model = model
        self._strict = strict
        self._declared = declared
        self._fields = {field: name for name, fields in model.sequences.items() for field in fields}
        self._lengths = {f"{name}{LENGTH_SUFFIX}": name for name in model.sequences}
        self._lock = threading.Lock()
        self._dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> dict[str, int]:
        """How often a feature was left out because this version does not have it, by `side.name`."""
        with self._lock:
            return dict(self._dropped)

    def user(self, user: Features | None) -> dict[str, Array]:
        """Inputs of `user_tower` for one user, `[1]` and `[1, L]`; `None` for a model that reads nothing of a user."""
        specs = self.model.user_inputs
        if user is None and not specs:
            return {}
        if user is None:
            raise BadRequestError(
                f"{self.model.where} reads features of the user. Give rank() the user, or score() a state of "
                f"user_state(). Allowed: {sorted(specs)}. Received: no feature"
            )
        _mapping(user, "user")
        self._check_names("user", user, specs)
        inputs = {}
        for name, spec in specs.items():
            if spec.rank == 1 and name not in self._lengths:
                inputs[name] = self._scalar(spec, user.get(name), "user")
            elif spec.rank == 2 and name not in self._fields:
                inputs[name] = self._vector(spec, user.get(name))
        for sequence, fields in self.model.sequences.items():
            inputs |= self._sequence(sequence, fields, user)
        if self._declared is not None:
            lengths = {name: int(inputs[f"{self._fields[name]}{LENGTH_SUFFIX}"][0]) for name in self._fields}
            self._declared.check_times("user", {name: inputs[name][0, :size] for name, size in lengths.items()})
        else:
            check_newest_first(self.model, inputs)
        return inputs

    def context(self, context: Features) -> dict[str, Array]:
        """Context inputs of `score` for one request, `[1]`."""
        _mapping(context, "context")
        specs = self.model.context_inputs
        self._check_names("context", context, specs)
        inputs = {name: self._scalar(spec, context.get(name), "context") for name, spec in specs.items()}
        if self._declared is not None:
            self._declared.check_times("context", inputs)
        return inputs

    def candidates(self, candidates: Candidates) -> dict[str, Array]:
        """Candidate inputs of `score`, `[1, N]`."""
        specs = self.model.candidate_inputs
        count = count_candidates(candidates)
        names = candidates if isinstance(candidates, Mapping) else set[str]().union(*candidates)
        self._check_names("candidates", names, specs)
        if not isinstance(candidates, Mapping):
            candidates = {name: [row.get(name) for row in candidates] for name in specs if name in names}
        inputs = {}
        for name, spec in specs.items():
            values = candidates.get(name)
            full = _full(spec, count) if values is None else self._column(spec, values, f"candidates[#].{name}")
            inputs[name] = full[None]
        return inputs

    def _sequence(self, sequence: str, fields: tuple[str, ...], user: Features) -> dict[str, Array]:
        specs = self.model.user_inputs
        given = {name: user[name] for name in fields if user.get(name) is not None}
        for name, values in given.items():
            if not _is_list(values):
                raise BadRequestError(
                    f"user.{name} must be a list of events, newest first. Received: {type(values).__name__}"
                )
        length_name = f"{sequence}{LENGTH_SUFFIX}"
        sizes = {name: len(values) for name, values in given.items()}
        length = self._length(length_name, user.get(length_name), sizes)
        widths = [shape[1] for name in fields if (shape := specs[name].shape) and shape[1] >= 0]
        width = min(widths, default=max(length, 1))
        length = min(length, width)
        inputs = {length_name: column(specs[length_name], [length], f"user.{length_name}")}
        for name in fields:
            row = _full(specs[name], width)
            if name in given:
                row[:length] = self._column(specs[name], given[name][:length], f"user.{name}[#]")
            inputs[name] = row[None]
        return inputs

    def _length(self, name: str, given: Any, sizes: dict[str, int]) -> int:
        if given is None:
            if len(set(sizes.values())) > 1:
                raise BadRequestError(
                    "user: the fields of a history must have the same length. Cut them to the same events, or give the "
                    f"number of events as '{name}'. Received: {sizes}"
                )
            return max(sizes.values(), default=0)
        length = int(column(self.model.user_inputs[name], [given], f"user.{name}")[0])
        shortest = min(sizes.values(), default=0)
        if not 0 <= length <= shortest:
            raise BadRequestError(
                f"user.{name} must be between 0 and the length of the shortest field ({shortest}). Received: {length}"
            )
        return length

    def _column(self, spec: TensorSpec, values: Any, where: str) -> Array:
        separators = self._declared.separators if self._declared is not None else {}
        return column(spec, values, where, separators.get(spec.name, SEPARATOR))

    def _scalar(self, spec: TensorSpec, value: Any, where: str) -> Array:
        return self._column(spec, [value], f"{where}.{spec.name}")

    def _vector(self, spec: TensorSpec, value: Any) -> Array:
        """A user input `[B, W]` that belongs to no sequence. The caller gives all W values or none."""
        assert spec.shape is not None
        width = spec.shape[1]
        if value is None:
            return _full(spec, max(width, 0))[None]
        if not isinstance(value, list | tuple | np.ndarray) or (width >= 0 and len(value) != width):
            raise BadRequestError(f"user.{spec.name} must be a list of {width} values. Received: {shown(value)}")
        return self._column(spec, value, f"user.{spec.name}[#]")[None]

    def _check_names(self, where: str, given: Any, known: Mapping[str, TensorSpec]) -> None:
        unknown = [name for name in given if name not in known]
        for name in unknown:
            if not isinstance(name, str):
                raise BadRequestError(f"{where}: the name of a feature must be text. Received: {shown(name)}")
            if self._strict or (self._declared is not None and name not in self._declared.names):
                near = difflib.get_close_matches(str(name), known, 1)
                raise BadRequestError(
                    f"{where}: {self.model.where} has no feature of this name here. "
                    + (f"Did you mean '{near[0]}'? " if near else "")
                    + f"Allowed: {sorted(known)}. Received: {name!r}"
                )
        if not unknown:
            return
        with self._lock:
            fresh = [name for name in unknown if f"{where}.{name}" not in self._dropped]
            self._dropped.update(f"{where}.{name}" for name in unknown)
        if fresh:
            logger.warning(
                "%s does not have these features of %s, which are left out: %s", self.model.where, where, sorted(fresh)
            )


def count_candidates(candidates: Candidates) -> int:
    """The number of candidates.

    Raises:
        BadRequestError: the candidates are neither a list of mappings nor a mapping of equally long columns.
    """
    if isinstance(candidates, Mapping):
        sizes = {}
        for name, values in candidates.items():
            if values is None:
                continue
            if not _is_list(values):
                raise BadRequestError(
                    f"candidates.{name} must be a list or a one-dimensional array with one value for each candidate. "
                    f"Received: {type(values).__name__}"
                )
            sizes[name] = len(values)
        if len(set(sizes.values())) > 1:
            raise BadRequestError(f"candidates: the columns must have the same length. Received: {sizes}")
        return max(sizes.values(), default=0)
    if not isinstance(candidates, Sequence) or isinstance(candidates, str | bytes):
        raise BadRequestError(
            f"candidates must be a list of mappings, or a mapping of columns. Received: {type(candidates).__name__}"
        )
    for row, candidate in enumerate(candidates):
        if not isinstance(candidate, Mapping):
            raise BadRequestError(
                f"candidates[{row}] must be a mapping of features. Received: {type(candidate).__name__}"
            )
    return len(candidates)


def _mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise BadRequestError(f"{where} must be a mapping of features. Received: {type(value).__name__}")


def _is_list(values: Any) -> bool:
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim == 1)


def _full(spec: TensorSpec, count: int) -> Array:
    return np.full(count, missing(spec), codec.DTYPES[spec.dtype][0])
