"""The kind of the times of a sequence's events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from tfctr.features.columns import INT64_MISSING, Column, Fault, InputSpec, length_name
from tfctr.features.kinds.base import Feature, Lookups, OneColumn, Summary, feature_kind
from tfctr.features.kinds.fields import Elapsed, FieldSpec, Lookup, Table
from tfctr.features.kinds.request_time import YEAR_2100, not_in_seconds
from tfctr.features.kinds.suggestion import Found, Suggestion

AGE_BUCKETS = 34
"""Rows of an age table: 0 for padding and unknown, 1 + floor(log2(1 + seconds)) up to 2^32 seconds."""

AGE_BOUNDARIES = tuple(2**power for power in range(1, AGE_BUCKETS - 1))

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets


@feature_kind
class EventTime(OneColumn):
    """Event times of a sequence, unix seconds (UTC): become log-scaled ages relative to the newest event."""

    kind: Literal["event_time"]

    places: ClassVar[tuple[str, ...]] = ("sequence",)
    single: ClassVar[bool] = True
    is_time: ClassVar[bool] = True

    @classmethod
    @override
    def suggest(cls, found: Found) -> Suggestion | None:
        if not found.is_time or found.place not in cls.places:
            return None
        if found.dtype != "int64" or found.quantiles is None or found.quantiles[-1] > YEAR_2100:
            return Suggestion(1.0, None, "event times must be whole seconds since 1970; divide milliseconds by 1000")
        if not found.has_clock:
            return Suggestion(1.0, None, "event times, whose ages need the time of the request (--timestamp)")
        return Suggestion(1.0, {"kind": "event_time"}, "becomes the age of the event")

    @override
    def check(self, at: Feature) -> None:
        if at.timestamp is None:
            raise ValueError(f"{at.path}: event times need the top-level key `timestamp`")

    @override
    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "int64", at.shape, column=self.column),)

    @override
    def faults(self, at: Feature, columns: Mapping[str, Column]) -> Iterator[Fault]:
        column, now = columns[at.name], columns[at.timestamp or ""]
        yield from not_in_seconds(at.name, column)
        known = column.values != INT64_MISSING
        times, rows = column.values[known], column.rows[known]
        newer = (times[1:] > times[:-1]) & (rows[1:] == rows[:-1])
        if newer.any():
            event = int(newer.argmax())
            yield Fault(
                int(rows[event]),
                f"{at.name} must be newest first: reverse every column of the history. "
                f"Received: {times[event]} before {times[event + 1]}",
            )
        # A row without a time of its own has no present that its events could be after.
        present = np.full(len(now.lengths), np.iinfo(np.int64).max)
        present[now.rows] = np.where(now.values == INT64_MISSING, present[now.rows], now.values)
        late = times >= present[rows]
        if late.any():
            event = int(late.argmax())
            yield Fault(
                int(rows[event]),
                f"{at.name} {times[event]} is not before {at.timestamp} {present[rows[event]]}; a history may only hold"
                " what came before the second of its impression",
            )

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return InputSpec(at.name, at.side, "int32", at.shape), InputSpec(_newest(at), at.side, "int64")

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        times = raw[at.name]
        newest = times[:, 0]
        # An age is relative to the newest event, so without the newest time every age is unknown.
        known = (times != INT64_MISSING) & (newest[:, None] != INT64_MISSING)
        age = tf.where(known, tf.maximum(newest[:, None] - times, 0), 0)
        bucket = tf.raw_ops.Bucketize(input=age + 1, boundaries=[float(edge) for edge in AGE_BOUNDARIES]) + 1
        empty = raw[length_name(at.sequence or "")] <= 0
        return {
            at.name: tf.where(known, bucket, 0),
            _newest(at): tf.where(empty, tf.constant(INT64_MISSING, tf.int64), newest),
        }

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        return (Lookup(at.name, Table(at.name, AGE_BUCKETS)),)

    @override
    def request_fields(self, at: Feature) -> tuple[Elapsed, ...]:
        assert at.timestamp is not None
        table = Table(f"{at.sequence}_recency", AGE_BUCKETS)
        return (Elapsed(at.timestamp, f"{at.sequence}/newest_time", table, AGE_BOUNDARIES),)

    @override
    def state(self, at: Feature) -> dict[str, str]:
        return {f"{at.sequence}/newest_time": _newest(at)}

    @override
    def events(self, at: Feature) -> dict[str, str]:
        return {"ages": at.name}

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        return Summary("log-scaled age", self.kind, AGE_BUCKETS)


def _newest(at: Feature) -> str:
    return f"{at.sequence}_newest_time"
