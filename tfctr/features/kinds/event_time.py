"""The kind of the times of a sequence's events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tfctr.errors import UserError
from tfctr.features.kinds import base
from tfctr.features.kinds.base import (
    INT64_MISSING,
    Elapsed,
    Feature,
    InputSpec,
    Kind,
    Learned,
    Lookup,
    Lookups,
    Summary,
    Table,
    feature_kind,
    length_name,
)

AGE_BUCKETS = 34
"""Rows of an age table: 0 for padding and unknown, 1 + floor(log2(1 + seconds)) up to 2^32 seconds."""

AGE_BOUNDARIES = tuple(2**power for power in range(1, AGE_BUCKETS - 1))


@feature_kind
class EventTime(Kind):
    """Event times of a sequence, unix seconds (UTC): become log-scaled ages relative to the newest event."""

    kind: Literal["event_time"]

    places: ClassVar[tuple[str, ...]] = ("sequence",)
    single: ClassVar[bool] = True

    def check(self, at: Feature) -> None:
        """Raise a ValueError where the request has no time."""
        if at.timestamp is None:
            raise ValueError(f"{at.path}: event times need the top-level key `timestamp`")

    def columns(self, at: Feature) -> tuple[InputSpec, ...]:
        """Its column, one time an event."""
        return (InputSpec(at.name, at.side, "int64", at.shape),)

    def check_record(self, at: Feature, where: str, record: Mapping[str, list[Any]]) -> None:
        """Events are newest first, and all before the second of the impression."""
        times, now = record.get(at.name, []), record.get(at.timestamp or "", [])
        if times != sorted(times, reverse=True):
            raise UserError(f"{where}: {at.name} must be newest first")
        if times and now and times[0] >= now[0]:
            raise UserError(
                f"{where}: {at.name} {times[0]} is not before {at.timestamp} {now[0]}; a history may only hold what"
                " came before the second of its impression"
            )

    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        """The ages, and the time of the newest event."""
        return InputSpec(at.name, at.side, "int32", at.shape), InputSpec(_newest(at), at.side, "int64")

    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        """Age buckets int32 [B, L], 0 for unknown, and the newest time int64 [B]."""
        import tensorflow as tf

        times = raw[at.name]
        newest = times[:, 0]
        known = times != INT64_MISSING
        age = tf.where(known, tf.maximum(newest[:, None] - times, 0), 0)
        bucket = tf.raw_ops.Bucketize(input=age + 1, boundaries=[float(edge) for edge in AGE_BOUNDARIES]) + 1
        empty = raw[length_name(at.sequence or "")] <= 0
        return {
            at.name: tf.where(known, bucket, 0),
            _newest(at): tf.where(empty, tf.constant(INT64_MISSING, tf.int64), newest),
        }

    def fields(self, at: Feature) -> tuple[base.Field, ...]:
        """A row of its table."""
        return (Lookup(at.name, Table(at.name, AGE_BUCKETS)),)

    def request_fields(self, at: Feature) -> tuple[Elapsed, ...]:
        """The time since the newest event."""
        assert at.timestamp is not None
        table = Table(f"{at.sequence}_recency", AGE_BUCKETS)
        return (Elapsed(at.timestamp, f"{at.sequence}/newest_time", table, AGE_BOUNDARIES),)

    def state(self, at: Feature) -> dict[str, str]:
        """The time of the newest event."""
        return {f"{at.sequence}/newest_time": _newest(at)}

    def events(self, at: Feature) -> dict[str, str]:
        """The ages."""
        return {"ages": at.name}

    def summary(self, at: Feature, learned: Learned | None) -> Summary:
        """Its line in `tfctr features show`."""
        return Summary("log-scaled age", self.kind, AGE_BUCKETS)


def _newest(at: Feature) -> str:
    return f"{at.sequence}_newest_time"
