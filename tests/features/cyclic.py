"""A feature kind of a test's own: a number on a circle, such as an hour or a wind direction, as sine and cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tfctr.features.columns import InputSpec
from tfctr.features.kinds.base import Feature, Kind, Lookups, Summary
from tfctr.features.kinds.fields import Linear


class Cyclic(Kind):
    """A number of a given period, embedded by a linear map of its sine and cosine; a missing one is (0, 0)."""

    kind: Literal["cyclic"]
    period: float = Field(gt=0)

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "float32", at.shape),)

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "float32", (*at.shape, 2)),)

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        angle = raw[at.name] * (2 * math.pi / self.period)
        point = tf.stack([tf.sin(angle), tf.cos(angle)], axis=-1)
        return {at.name: tf.where(tf.math.is_nan(point), tf.zeros_like(point), point)}

    def fields(self, at: Feature) -> tuple[Linear, ...]:
        return (Linear(at.name, size=2),)

    def summary(self, at: Feature, assets: Any) -> Summary:
        return Summary(f"period {self.period:g}", self.kind, 3)
