"""The time of the request: what the top-level key `timestamp` names. No feature file writes it as a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from tfctr.features.columns import INT64_MISSING, Column, Fault, InputSpec
from tfctr.features.kinds.base import Feature, Kind, Lookups, Summary
from tfctr.features.kinds.fields import FieldSpec, Lookup, Table

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86400
YEAR_2100 = 4_102_444_800

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets


def not_in_seconds(name: str, column: Column) -> Iterator[Fault]:
    """The fault of a time past the year 2100, as milliseconds are."""
    yield from column.first(
        column.values > YEAR_2100,
        f"{name} must be seconds since 1970, before the year 2100; divide milliseconds by 1000",
    )


class RequestTime(Kind):
    """Unix seconds (UTC) of a request: become its hour and its weekday."""

    kind: Literal["request_time"] = "request_time"

    places: ClassVar[tuple[str, ...]] = ("context",)
    is_time: ClassVar[bool] = True

    @override
    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "int64"),)

    @override
    def faults(self, at: Feature, columns: Mapping[str, Column]) -> Iterator[Fault]:
        yield from not_in_seconds(at.name, columns[at.name])

    @override
    def new_values_are_normal(self, at: Feature) -> bool:
        return True

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        parts = (InputSpec(f"{at.name}_{part}", at.side, "int32") for part in ("hour", "weekday"))
        return InputSpec(at.name, at.side, "int64"), *parts

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        seconds = raw[at.name]
        parts = {"hour": seconds // SECONDS_PER_HOUR % 24, "weekday": (seconds // SECONDS_PER_DAY + 3) % 7}
        known = seconds != INT64_MISSING
        found = {f"{at.name}_{part}": tf.cast(tf.where(known, value + 1, 0), tf.int32) for part, value in parts.items()}
        return {at.name: seconds, **found}

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        rows = {f"{at.name}_hour": 25, f"{at.name}_weekday": 8}
        return tuple(Lookup(name, Table(name, count)) for name, count in rows.items())

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        return Summary("hour and weekday, UTC", "timestamp", 25 + 8)
