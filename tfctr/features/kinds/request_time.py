"""The time of the request: what the top-level key `timestamp` names. No feature file writes it as a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tfctr.features.kinds import base
from tfctr.features.kinds.base import INT64_MISSING, Feature, InputSpec, Kind, Learned, Lookup, Lookups, Summary, Table

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86400


class RequestTime(Kind):
    """Unix seconds (UTC) of a request: become its hour and its weekday."""

    kind: Literal["request_time"] = "request_time"

    places: ClassVar[tuple[str, ...]] = ("context",)

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        """Its column."""
        return (InputSpec(at.name, at.side, "int64"),)

    def new_values_are_normal(self, at: Feature) -> bool:
        """Every request has a time of its own."""
        return True

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        """The seconds, the hour and the weekday."""
        parts = (InputSpec(f"{at.name}_{part}", at.side, "int32") for part in ("hour", "weekday"))
        return InputSpec(at.name, at.side, "int64"), *parts

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        """The seconds int64; hour 1 .. 24 and weekday 1 .. 7 (Monday first) int32, 0 for a missing time; all [B]."""
        import tensorflow as tf

        seconds = raw[at.name]
        parts = {"hour": seconds // SECONDS_PER_HOUR % 24, "weekday": (seconds // SECONDS_PER_DAY + 3) % 7}
        known = seconds != INT64_MISSING
        found = {f"{at.name}_{part}": tf.cast(tf.where(known, value + 1, 0), tf.int32) for part, value in parts.items()}
        return {at.name: seconds, **found}

    def fields(self, at: Feature) -> tuple[base.Field, ...]:
        """A row for the hour and one for the weekday."""
        rows = {f"{at.name}_hour": 25, f"{at.name}_weekday": 8}
        return tuple(Lookup(name, Table(name, count)) for name, count in rows.items())

    def summary(self, at: Feature, learned: Learned | None) -> Summary:
        """Its line in `tfctr features show`."""
        return Summary("hour and weekday, UTC", "timestamp", 25 + 8)
