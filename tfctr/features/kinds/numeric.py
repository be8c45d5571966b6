"""The kind of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from typing_extensions import override

from tfctr.features.kinds.base import INT64_MISSING, Feature, InputSpec, Kind, Lookups, Summary, feature_kind
from tfctr.features.kinds.fields import FieldSpec, Linear, Lookup, Table
from tfctr.features.kinds.learned import MeanDeviation, Numbers, Quantiles

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets


@feature_kind
class Numeric(Kind):
    """A number, transformed and embedded by a linear layer (or, when bucketized, by a table)."""

    kind: Literal["numeric"]
    dtype: Literal["float32", "int64"] = "float32"
    transform: Literal["none", "log1p", "zscore", "bucketize"] = "zscore"
    buckets: int = Field(16, ge=2, description="number of quantile buckets of bucketize")
    default: float = Field(0.0, gt=-3e38, lt=3e38, description="used when the value is missing")

    @property
    def bucketized(self) -> bool:
        """Whether it becomes the row of a table and not a number."""
        return self.transform == "bucketize"

    @override
    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, self.dtype, at.shape),)

    @override
    def numbers(self, at: Feature) -> Mapping[str, Numbers]:
        learned: dict[str, Numbers] = {"zscore": MeanDeviation(), "bucketize": Quantiles(self.buckets)}
        return {at.name: learned[self.transform]} if self.transform in learned else {}

    @override
    def learned_rows(self, at: Feature, assets: FeatureAssets) -> int:
        return len(set(assets.statistics[at.name]["boundaries"])) + 2

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "int32" if self.bucketized else "float32", at.shape),)

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        value = raw[at.name]
        if value.dtype == tf.int64:
            value = tf.where(value == INT64_MISSING, float(self.default), tf.cast(value, tf.float32))
        else:
            value = tf.where(tf.math.is_nan(value), float(self.default), value)
            # An infinite value is a bad one: NaN marks the row, and the client raises.
            value = tf.where(tf.math.is_inf(value), float("nan"), value)
        if self.bucketized:
            # Equal edges are one: they hold no bucket between them.
            boundaries = tf.unique(tf.convert_to_tensor(lookups.statistics(at.name)["boundaries"], tf.float32)).y
            flat = tf.searchsorted(boundaries, tf.reshape(value, [-1]), side="right")
            return {at.name: tf.reshape(flat, tf.shape(value)) + 1}
        if self.transform == "log1p":
            value = tf.sign(value) * tf.math.log1p(tf.abs(value))
        if self.transform == "zscore":
            statistics = lookups.statistics(at.name)
            mean = tf.cast(statistics["mean"], tf.float32)
            value = (value - mean) / tf.maximum(tf.cast(statistics["deviation"], tf.float32), 1e-6)
        return {at.name: value}

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        return (Lookup(at.name, Table(at.name, None)) if self.bucketized else Linear(at.name),)

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        rows = 2 if not self.bucketized else None if assets is None else self.learned_rows(at, assets)
        return Summary(self.transform, self.kind, rows)
