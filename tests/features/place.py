"""A feature kind of a test's own with two columns: a latitude and a longitude, each z-scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tfctr.features.columns import InputSpec
from tfctr.features.kinds.base import Feature, Kind, Lookups, Summary
from tfctr.features.kinds.fields import Linear
from tfctr.features.kinds.learned import MeanDeviation, Numbers


class Place(Kind):
    """A point on a map, embedded by a linear map of its two z-scored numbers; a missing one is (0, 0)."""

    kind: Literal["place"]

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        names = (f"{at.name}_{part}" for part in ("latitude", "longitude"))
        return tuple(InputSpec(name, at.side, "float32", at.shape) for name in names)

    def numbers(self, at: Feature) -> Mapping[str, Numbers]:
        return {spec.name: MeanDeviation() for spec in self.columns(at)}

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "float32", (*at.shape, 2)),)

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        parts = []
        for spec in self.columns(at):
            learned = {name: tf.cast(value, tf.float32) for name, value in lookups.statistics(spec.name).items()}
            parts.append((raw[spec.name] - learned["mean"]) / learned["deviation"])
        point = tf.stack(parts, axis=-1)
        return {at.name: tf.where(tf.math.is_nan(point), tf.zeros_like(point), point)}

    def fields(self, at: Feature) -> tuple[Linear, ...]:
        return (Linear(at.name, size=2),)

    def summary(self, at: Feature, assets: Any) -> Summary:
        return Summary("z-scored", self.kind, 3)
