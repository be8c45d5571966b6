"""What goes in: the raw tensors of the signatures and the tensors the model eats, both from the feature file."""

from __future__ import annotations

from dataclasses import dataclass

from tfctr.features.spec import Categorical, EventTime, FeatureFile, Frozen, Numeric, Side

INT64_MISSING = -(2**63)
"""Stands for "missing" in an int64 raw feature; "" does in a string, NaN in a float. The graph fills the defaults."""

AGE_BUCKETS = 34
"""Rows of an age table: 0 for padding, 1 + floor(log2(1 + seconds)) up to 2^32 seconds."""

SIDE_SHAPES: dict[Side, str] = {"user": "[B]", "candidate": "[B, C]", "context": "[B]", "bias": "[B, C]"}


@dataclass(frozen=True)
class InputSpec:
    """One input tensor.

    Attributes:
        name: Its name, the same in the log, the signatures and the model.
        side: user tensors are [B, ...], candidate and bias [B, C, ...], context [B, ...].
        dtype: "string", "int64", "int32" or "float32".
        shape: What follows the side's own axes: (), (M,), (L,) or (L, M).
    """

    name: str
    side: Side
    dtype: str
    shape: tuple[int, ...] = ()


def length_name(sequence: str) -> str:
    """The input that holds the number of events of a sequence."""
    return f"{sequence}_length"


def newest_name(sequence: str) -> str:
    """The model input that holds the time of the newest event of a sequence."""
    return f"{sequence}_newest_time"


def rows_name(sequence: str, table: str) -> str:
    """The model input that holds the rows of a frozen table along a sequence."""
    return f"{sequence}_{table}"


def hour_name(timestamp: str) -> str:
    """The model input with the hour of the request, UTC."""
    return f"{timestamp}_hour"


def weekday_name(timestamp: str) -> str:
    """The model input with the weekday of the request, UTC, Monday first."""
    return f"{timestamp}_weekday"


def _raw_dtype(file: FeatureFile, name: str) -> str:
    feature = file.feature(name)
    if isinstance(feature, Categorical):
        return file.resolve(name)[1].dtype
    return feature.dtype if isinstance(feature, Numeric) else "int64"


def raw_inputs(file: FeatureFile) -> list[InputSpec]:
    """The raw dense tensors, as the signatures take them and as `parse_examples` makes them from a log."""
    found = []
    for side in ("user", "candidate", "context", "bias"):
        for name, feature in file.side(side).items():
            if not isinstance(feature, Frozen):
                found.append(InputSpec(name, side, _raw_dtype(file, name)))
    if file.timestamp is not None:
        found.append(InputSpec(file.timestamp, "context", "int64"))
    for name, sequence in file.sequences.items():
        found += [InputSpec(n, "user", _raw_dtype(file, n), (sequence.max_length,)) for n in sequence.fields]
        found.append(InputSpec(length_name(name), "user", "int64"))
    return found


def model_inputs(file: FeatureFile) -> list[InputSpec]:
    """The tensors that the raw function makes and the model eats."""
    found = []
    for side in ("user", "candidate", "context", "bias"):
        for name in file.side(side):
            found.append(_model_input(file, name, side, ()))
    if file.timestamp is not None:
        found += [
            InputSpec(file.timestamp, "context", "int64"),
            InputSpec(hour_name(file.timestamp), "context", "int32"),
            InputSpec(weekday_name(file.timestamp), "context", "int32"),
        ]
    for name, sequence in file.sequences.items():
        length = sequence.max_length
        found += [_model_input(file, n, "user", (length,)) for n in sequence.fields]
        found += [
            InputSpec(rows_name(name, table), "user", "int32", (length,)) for table in file.frozen_of_sequence(name)
        ]
        found.append(InputSpec(length_name(name), "user", "int32"))
        if sequence.time_field is not None:
            found.append(InputSpec(newest_name(name), "user", "int64"))
    return found


def _model_input(file: FeatureFile, name: str, side: Side, shape: tuple[int, ...]) -> InputSpec:
    feature = file.feature(name)
    if isinstance(feature, Categorical) and feature.max_values is not None:
        return InputSpec(name, side, "int32", (*shape, feature.max_values))
    if isinstance(feature, Numeric) and feature.transform != "bucketize":
        return InputSpec(name, side, "float32", shape)
    assert isinstance(feature, Categorical | Numeric | Frozen | EventTime)
    return InputSpec(name, side, "int32", shape)
