"""What can be learned of a column in the training split, piece by piece: by the local pass, or by Transform in Beam."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from tfctr.features.columns import INT64_MISSING

_QUANTILE_SAMPLE = 250_000


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


def known(values: Any) -> Any:
    """The numbers float64 [n] of a flat NumPy column that are neither missing nor infinite."""
    numbers = values.astype(np.float64)
    return numbers[values != INT64_MISSING if values.dtype == np.int64 else np.isfinite(numbers)]


class Accumulator(Protocol):
    """Gathers the numbers of a column piece by piece; pieces that were gathered apart can be merged."""

    def add(self, values: Any) -> None:
        """Add finite numbers, float64 [n]."""

    def merge(self, other: Any) -> None:
        """Add what another accumulator of the same class has gathered."""

    def result(self) -> Any:
        """The statistics as a float64 vector [size], or None where no number was added."""


class Numbers(Protocol):
    """Statistics of a numeric column: a vector of floats."""

    @property
    def size(self) -> int:
        """How many floats."""

    def start(self, seed: int) -> Accumulator:
        """An empty accumulator."""

    def named(self, vector: Any) -> dict[str, Any]:
        """The statistics by name, from a list or a tensor [size]."""


@dataclass(frozen=True)
class MeanDeviation(Numbers):
    """Mean and standard deviation, and the range that the numbers lie in."""

    size = 4

    @override
    def start(self, seed: int) -> Accumulator:
        return _Moments()

    @override
    def named(self, vector: Any) -> dict[str, Any]:
        return {name: vector[index] for index, name in enumerate(("mean", "deviation", "minimum", "maximum"))}


class _Moments(Accumulator):
    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.minimum, self.maximum = np.inf, -np.inf

    @override
    def add(self, values: Any) -> None:
        if len(values):
            piece = _Moments()
            piece.count, piece.mean, piece.squares = len(values), values.mean(), values.var() * len(values)
            piece.minimum, piece.maximum = values.min(), values.max()
            self.merge(piece)

    @override
    def merge(self, other: _Moments) -> None:
        count = self.count + other.count
        if count:
            delta = other.mean - self.mean
            self.squares += other.squares + delta**2 * self.count * other.count / count
            self.mean += delta * other.count / count
            self.count = count
            self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)

    @override
    def result(self) -> Any:
        if not self.count:
            return None
        if self.minimum == self.maximum:  # The rounded mean of equal numbers may be another number.
            return np.array([self.minimum, 0.0, self.minimum, self.maximum])
        return np.array([self.mean, np.sqrt(self.squares / self.count), self.minimum, self.maximum])


@dataclass(frozen=True)
class Quantiles(Numbers):
    """The edges between `buckets` buckets of equal counts; on a column of few values some edges are equal.

    Up to 250,000 numbers they are exact. Beyond, they come from a uniform sample of that size: the share of the numbers
    below an edge is off by 0.1 % in standard deviation.
    """

    buckets: int

    @property
    @override
    def size(self) -> int:
        return self.buckets - 1

    @override
    def start(self, seed: int) -> Accumulator:
        return _Sample(self.buckets, seed)

    @override
    def named(self, vector: Any) -> dict[str, Any]:
        return {"boundaries": vector}


class _Sample(Accumulator):
    """A uniform sample of bounded size: the values with the smallest of random keys, so that samples merge evenly."""

    def __init__(self, buckets: int, seed: int) -> None:
        self._buckets, self._seed = buckets, seed
        self._pieces: list[tuple[Any, Any]] = []
        self._count = self._waiting = 0

    @override
    def add(self, values: Any) -> None:
        # The seed depends on the values, so that accumulators that gather apart draw different keys.
        generator = np.random.default_rng([self._seed, self._count, zlib.crc32(values.tobytes())])
        self._count += len(values)
        self._keep(values, generator.random(len(values)))

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
