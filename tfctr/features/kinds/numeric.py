"""The kind of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tfctr.features.kinds import base
from tfctr.features.kinds.base import (
    INT64_MISSING,
    Feature,
    InputSpec,
    Kind,
    Learned,
    Linear,
    Lookup,
    Lookups,
    Summary,
    Table,
    feature_kind,
)
from tfctr.features.kinds.learned import MeanDeviation, Numbers, Quantiles


@feature_kind
class Numeric(Kind):
    """A number, transformed and embedded by a linear layer (or, when bucketized, by a table)."""

    kind: Literal["numeric"]
    dtype: Literal["float32", "int64"] = "float32"
    transform: Literal["none", "log1p", "zscore", "bucketize"] = "zscore"
    buckets: int = Field(16, ge=2, description="number of quantile buckets of bucketize")
    default: float = Field(0.0, description="used when the value is missing")

    @property
    def bucketized(self) -> bool:
        """Whether it becomes the row of a table and not a number."""
        return self.transform == "bucketize"

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        """Its column, one number a row or event."""
        return (InputSpec(at.name, at.side, self.dtype, at.shape),)

    def slice_dtype(self, at: Feature) -> str | None:
        """The dtype of its column."""
        return self.dtype

    def numbers(self, at: Feature) -> Numbers | None:
        """What its transform needs to know of the training split."""
        return {"zscore": MeanDeviation(), "bucketize": Quantiles(self.buckets)}.get(self.transform)

    def learned_rows(self, at: Feature, learned: Learned) -> int:
        """The buckets, and index 0."""
        return len(learned.statistics[at.name]["boundaries"]) + 2

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        """The transformed number, or the index of its bucket."""
        return (InputSpec(at.name, at.side, "int32" if self.bucketized else "float32", at.shape),)

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        """The transformed number float32 [...], or the index of its bucket int32 [...] from 1 on."""
        import tensorflow as tf

        value = raw[at.name]
        if value.dtype == tf.int64:
            value = tf.where(value == INT64_MISSING, float(self.default), tf.cast(value, tf.float32))
        else:
            value = tf.where(tf.math.is_nan(value), float(self.default), value)
            # An infinite value is a bad one: NaN marks the row, and the client raises.
            value = tf.where(tf.math.is_inf(value), float("nan"), value)
        if self.bucketized:
            boundaries = tf.convert_to_tensor(lookups.statistics(at.name)["boundaries"], tf.float32)
            flat = tf.searchsorted(boundaries, tf.reshape(value, [-1]), side="right")
            return {at.name: tf.reshape(flat, tf.shape(value)) + 1}
        if self.transform == "log1p":
            value = tf.sign(value) * tf.math.log1p(tf.abs(value))
        if self.transform == "zscore":
            statistics = lookups.statistics(at.name)
            mean = tf.cast(statistics["mean"], tf.float32)
            value = (value - mean) / tf.maximum(tf.cast(statistics["deviation"], tf.float32), 1e-6)
        return {at.name: value}

    def fields(self, at: Feature) -> tuple[base.Field, ...]:
        """A linear map of the number, or a row of its own table."""
        return (Lookup(at.name, Table(at.name, None)) if self.bucketized else Linear(at.name),)

    def summary(self, at: Feature, learned: Learned | None) -> Summary:
        """Its line in `tfctr features show`."""
        rows = 2 if not self.bucketized else None if learned is None else self.learned_rows(at, learned)
        return Summary(self.transform, self.kind, rows)
