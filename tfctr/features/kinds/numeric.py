"""The kind of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from typing_extensions import override

from tfctr.features.columns import INT64_MISSING, InputSpec
from tfctr.features.kinds.base import Feature, Lookups, OneColumn, Summary, feature_kind
from tfctr.features.kinds.fields import FieldSpec, Linear, Lookup, Table
from tfctr.features.kinds.learned import MeanDeviation, Numbers, Quantiles, Tokens
from tfctr.features.kinds.log_squared import LogSquaredTokens, log_squared
from tfctr.features.kinds.suggestion import FEW_VALUES, Found, Suggestion

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets

_CODES = 20
"""So few different whole numbers may be codes, of which some, as 999, mean something else."""


@feature_kind
class Numeric(OneColumn):
    """A number, transformed and embedded by a linear layer (or, where it becomes a bucket or a token, by a table)."""

    kind: Literal["numeric"]
    dtype: Literal["float32", "int64"] = "float32"
    transform: Literal["none", "log1p", "zscore", "bucketize", "log_squared"] = "zscore"
    buckets: int = Field(16, ge=2, description="number of quantile buckets of bucketize")
    min_count: int = Field(1, ge=1, description="tokens of log_squared seen less often are out of vocabulary")
    clip: bool = Field(True, description="clip values to the range of the training split before the transform")
    default: float | None = Field(
        None, gt=-3e38, lt=3e38, description="used when the value is missing; left out: 0 after the transform"
    )

    @classmethod
    @override
    def suggest(cls, found: Found) -> Suggestion | None:
        if found.quantiles is None or found.joined is not None or found.place not in cls.places:
            return None
        whole = found.dtype == "int64"
        if whole and (found.is_id or found.is_key):
            return None
        low, middle, most, high = found.quantiles
        # A long tail would leave nearly all values at one point of a linear scale.
        tail = max(abs(low), abs(high)) > max(10 * abs(middle), 3 * abs(most), 10)
        keys: dict[str, Any] = {"kind": "numeric"} | ({"dtype": "int64"} if whole else {})
        keys["transform"] = "log1p" if tail else "zscore"
        first, half, last = map(_short, (low, middle, high))
        why = f"{first} to {last}, half of them up to {half}" + (": a long tail" if tail else "")
        # Amounts have tails, or are negative; -1 alone often is an id that is unknown.
        amount = not whole or (tail and found.distinct > _CODES) or (low < -1 and found.distinct > FEW_VALUES)
        return Suggestion(0.95 if amount else 0.3, keys, why)

    @property
    def in_table(self) -> bool:
        """Whether it becomes the row of a table and not a number."""
        return self.transform in ("bucketize", "log_squared")

    @override
    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, self.dtype, at.shape, column=self.column),)

    @override
    def made_values(self, at: Feature, assets: FeatureAssets) -> Mapping[str, int | float | bytes]:
        default = self.default or 0.0
        return {at.name: round(default) if self.dtype == "int64" else default}

    @override
    def tokens(self, at: Feature) -> tuple[Tokens, ...]:
        if self.transform != "log_squared":
            return ()
        return (LogSquaredTokens(at.name, at.name, self.min_count, max_size=None, separator=None),)

    @override
    def numbers(self, at: Feature) -> Mapping[str, Numbers]:
        if self.in_table:
            return {at.name: Quantiles(self.buckets)} if self.transform == "bucketize" else {}
        return {at.name: MeanDeviation()} if self.clip or self.transform == "zscore" else {}

    @override
    def learned_rows(self, at: Feature, assets: FeatureAssets) -> int:
        if self.transform == "log_squared":
            return assets.token_count(at.name) + 2
        return len(set(assets.statistics[at.name]["boundaries"])) + 2

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "int32" if self.in_table else "float32", at.shape),)

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        value = raw[at.name]
        missing = value == INT64_MISSING if value.dtype == tf.int64 else tf.math.is_nan(value)
        # float32 holds whole numbers up to 2^24, float64 up to 2^53: times in microseconds keep all their digits.
        number = tf.cast(value, tf.float64)
        # An infinite value is a bad one: NaN, or row -1 of a table, marks its row, and the client raises.
        bad = tf.math.is_inf(number)
        statistics = lookups.statistics(at.name) if self.numbers(at) else {}
        learned = {name: tf.convert_to_tensor(found, tf.float64) for name, found in statistics.items()}
        if self.clip and not self.in_table:
            number = tf.clip_by_value(number, learned["minimum"], learned["maximum"])
        if self.default is not None:
            number = tf.where(missing, tf.constant(self.default, tf.float64), number)
        if self.in_table:
            if self.transform == "log_squared":
                row = tf.cast(lookups.vocabulary(at.name, log_squared(number)), tf.int32)
            else:
                # Equal edges are one: they hold no bucket between them.
                boundaries = tf.unique(learned["boundaries"]).y
                flat = tf.searchsorted(boundaries, tf.reshape(number, [-1]), side="right")
                row = tf.reshape(flat, tf.shape(number)) + 1
            row = tf.where(bad, -1, row)
            return {at.name: row if self.default is not None else tf.where(missing, 0, row)}
        if self.transform == "log1p":
            number = tf.sign(number) * tf.math.log1p(tf.abs(number))
        if self.transform == "zscore":
            deviation = learned["deviation"]
            number = (number - learned["mean"]) / tf.where(deviation > 0, deviation, 1.0)
        if self.default is None:
            number = tf.where(missing, tf.zeros_like(number), number)
        return {at.name: tf.where(bad, float("nan"), tf.cast(number, tf.float32))}

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        return (Lookup(at.name, Table(at.name, None)) if self.in_table else Linear(at.name),)

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        if self.in_table:
            return Summary(self.transform, self.kind, None if assets is None else self.learned_rows(at, assets))
        about = self.transform + (", clipped" if self.clip else "")
        if self.clip and assets is not None:
            learned = assets.statistics[at.name]
            about += f" to {learned['minimum']:.10g} .. {learned['maximum']:.10g}"
        return Summary(about, self.kind, 2)


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
