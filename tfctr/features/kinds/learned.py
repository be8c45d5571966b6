"""What can be learned of a column in the training split, locally piece by piece or with Transform's analyzers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from tfctr.features.kinds.base import INT64_MISSING

_QUANTILE_SAMPLE = 1_000_000
_QUANTILE_ERROR = 1e-3


@dataclass(frozen=True)
class Tokens:
    """Which tokens of a column are counted for a learned vocabulary, and which of them are kept.

    Attributes:
        column: The column.
        owner: The feature that owns the vocabulary; several columns may feed one.
        min_count: Tokens seen less often are left out.
        max_size: Only that many tokens are kept; None keeps all.
        separator: Between the tokens of one value; None where a value is one token.
    """

    column: str
    owner: str
    min_count: int
    max_size: int | None
    separator: str | None

    def of(self, values: Any) -> Any:
        """The tokens of a flat column, an int64 or string tensor, as a string tensor [n] without missing ones."""
        import tensorflow as tf

        if values.dtype != tf.string:
            return tf.strings.as_string(tf.boolean_mask(values, values != INT64_MISSING))
        if self.separator is not None:
            values = tf.strings.split(values, self.separator).values
        return tf.boolean_mask(values, values != "")


class Accumulator(Protocol):
    """Gathers the numbers of a column piece by piece; pieces that were gathered apart can be merged."""

    def add(self, values: Any) -> None:
        """Add finite numbers, float64 [n]."""

    def merge(self, other: Any) -> None:
        """Add what another accumulator of the same class has gathered."""

    def result(self) -> Any:
        """The statistics as a float vector [size], or None where no number was added."""


class Numbers(Protocol):
    """Statistics of a numeric column: a vector of floats."""

    @property
    def size(self) -> int:
        """How many floats."""

    def start(self, seed: int) -> Accumulator:
        """An empty accumulator of the local pass."""

    def named(self, vector: Any) -> dict[str, Any]:
        """The statistics by name, from a list or a tensor [size]."""

    @staticmethod
    def analyze(asked: Sequence[Any], columns: Sequence[Any]) -> list[Any]:
        """Run Transform's analyzers: a float32 vector [size] for each column, whose statistics `asked` names.

        Columns are float64 tensors of one shape [n], with NaN where a value is missing.
        """


@dataclass(frozen=True)
class MeanDeviation(Numbers):
    """Mean and standard deviation."""

    size = 2

    @override
    def start(self, seed: int) -> Accumulator:
        return _Moments()

    @override
    def named(self, vector: Any) -> dict[str, Any]:
        return {"mean": vector[0], "deviation": vector[1]}

    @override
    @staticmethod
    def analyze(asked: Sequence[Any], columns: Sequence[Any]) -> list[Any]:
        import tensorflow as tf
        import tensorflow_transform as tft

        # All columns at once: an analyzer costs seconds of fixed time, and NaN counts for nothing in it.
        matrix = tf.stack(columns, axis=1)
        means = tft.mean(matrix, reduce_instance_dims=False)
        deviations = tf.sqrt(tft.var(matrix, reduce_instance_dims=False))
        pairs = tf.cast(tf.stack([means, deviations], axis=1), tf.float32)
        return [tf.ensure_shape(pairs[index], [2]) for index in range(len(columns))]


class _Moments(Accumulator):
    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    @override
    def add(self, values: Any) -> None:
        piece = _Moments()
        piece.count, piece.mean, piece.squares = len(values), values.mean(), values.var() * len(values)
        self.merge(piece)

    @override
    def merge(self, other: _Moments) -> None:
        count = self.count + other.count
        if count:
            delta = other.mean - self.mean
            self.squares += other.squares + delta**2 * self.count * other.count / count
            self.mean += delta * other.count / count
            self.count = count

    @override
    def result(self) -> Any:
        return np.array([self.mean, np.sqrt(self.squares / self.count)]) if self.count else None


@dataclass(frozen=True)
class Quantiles(Numbers):
    """The edges between `buckets` buckets of equal counts; on a column of few values some edges are equal."""

    buckets: int

    @property
    @override
    def size(self) -> int:
        return self.buckets - 1

    @override
    def start(self, seed: int) -> Accumulator:
        return _Sample(self.buckets, np.random.default_rng(seed))

    @override
    def named(self, vector: Any) -> dict[str, Any]:
        return {"boundaries": vector}

    @override
    @staticmethod
    def analyze(asked: Sequence[Any], columns: Sequence[Any]) -> list[Any]:
        import tensorflow as tf
        import tensorflow_transform as tft

        edges = []
        for one, column in zip(asked, columns, strict=True):
            values = tf.cast(tf.boolean_mask(column, tf.math.is_finite(column)), tf.float32)
            edges.append(tf.reshape(tft.quantiles(values, one.buckets, epsilon=_QUANTILE_ERROR), [one.size]))
        return edges


class _Sample(Accumulator):
    """A uniform sample of bounded size: the values with the smallest of random keys, so that samples merge evenly."""

    def __init__(self, buckets: int, generator: np.random.Generator) -> None:
        self._buckets, self._generator = buckets, generator
        self._pieces: list[tuple[Any, Any]] = []
        self._waiting = 0

    @override
    def add(self, values: Any) -> None:
        self._keep(values, self._generator.random(len(values)))

    @override
    def merge(self, other: _Sample) -> None:
        self._keep(*other.sample())

    def _keep(self, values: Any, keys: Any) -> None:
        self._pieces.append((values, keys))
        self._waiting += len(keys)
        if self._waiting > 2 * _QUANTILE_SAMPLE:
            self.sample()

    def sample(self) -> tuple[Any, Any]:
        """The sampled values and their random keys."""
        values, keys = (np.concatenate([np.zeros(0), *(piece[part] for piece in self._pieces)]) for part in (0, 1))
        if len(keys) > _QUANTILE_SAMPLE:
            kept = np.argpartition(keys, _QUANTILE_SAMPLE)[:_QUANTILE_SAMPLE]
            values, keys = values[kept], keys[kept]
        self._pieces, self._waiting = [(values, keys)], len(keys)
        return values, keys

    @override
    def result(self) -> Any:
        values, _ = self.sample()
        return np.quantile(values, np.linspace(0, 1, self._buckets + 1)[1:-1]) if len(values) else None
