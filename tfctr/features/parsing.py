"""From a serialized log to raw dense tensors, the form that the signatures take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfctr.features.columns import MISSING, Column, length_name
from tfctr.features.inputs import columns
from tfctr.features.spec import FeatureFile


@dataclass(frozen=True)
class Scalar:
    """A column with one value a row at most.

    Attributes:
        dtype: "int64", "string" or "float32".
        missing: The value of a row without one.
    """

    dtype: str
    missing: Any


def outcomes(file: FeatureFile) -> dict[str, Scalar]:
    """The columns that are read beside the inputs of the model, by name: labels, the weight, and the group."""
    found = dict.fromkeys(file.labels.columns, Scalar(file.labels.dtype, MISSING[file.labels.dtype]))
    if file.weight is not None:
        found[file.weight] = Scalar("float32", 1.0)
    if file.group is not None:
        # A meta column that is no feature is a string.
        dtype = next((spec.dtype for spec in columns(file) if spec.name == file.group), "string")
        found[file.group] = Scalar(dtype, MISSING[dtype])
    return found


def default_slices(file: FeatureFile) -> list[str]:
    """The columns that metrics are sliced by unless more are asked for: the meta columns, but not a slice a group."""
    return [column for column in file.meta if column != file.group]


def sliceable(file: FeatureFile) -> dict[str, Scalar]:
    """The columns that metrics can be sliced by, by name: meta columns, and features with one value a row."""
    strings = dict.fromkeys(file.meta, Scalar("string", MISSING["string"]))
    return strings | {spec.name: Scalar(spec.dtype, MISSING[spec.dtype]) for spec in columns(file) if not spec.shape}


def parse_examples(
    serialized: tf.Tensor, file: FeatureFile, beside: Mapping[str, Scalar] | None = None
) -> dict[str, Any]:
    """Parses serialized tf.Examples [N] into raw dense tensors, one impression a row.

    Scalars come as [N], sequence fields as [N, L] (newest first, cut to max_length, padded with the missing value),
    with `<sequence>_length` int64 [N]. An empty list is a missing value, and of several values of a scalar the first
    counts: one bad row leaves the others of its batch alone.

    Args:
        serialized: The examples.
        file: The feature file.
        beside: Further columns to read, by name, such as `outcomes`.
    """
    beside = beside or {}
    parsed = _parse_lists(
        serialized, file, {spec.name: spec.dtype for spec in columns(file)} | {n: c.dtype for n, c in beside.items()}
    )
    return densify(parsed, file) | {name: dense(parsed[name], column) for name, column in beside.items()}


def ragged(column: Column) -> Any:
    """A column of a log as a ragged tensor [N, ...]."""
    return tf.RaggedTensor.from_row_lengths(tf.convert_to_tensor(column.flat), column.lengths, validate=False)


def _parse_lists(serialized: tf.Tensor, file: FeatureFile, dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Ragged columns [N, ...]: TensorFlow's parser refuses a whole batch for an empty list where it expects a value."""
    lists = {
        file.column_of(name): tf.io.RaggedFeature(tf.as_dtype(dtype), row_splits_dtype=tf.int64)
        for name, dtype in dtypes.items()
    }
    parsed = tf.io.parse_example(serialized, lists)
    return {name: parsed[file.column_of(name)] for name in dtypes}


def densify(parsed: Mapping[str, Any], file: FeatureFile) -> dict[str, Any]:
    """Makes the ragged or sparse columns of the features dense: scalars [N], sequence fields [N, L], their length [N].

    Fields of one sequence must have one length; where they differ, the shortest counts.
    """
    out = {}
    lists = {spec.name: _ragged(parsed[spec.name]) for spec in columns(file)}
    for spec in columns(file):
        missing = MISSING[spec.dtype]
        if spec.shape:
            out[spec.name] = lists[spec.name].to_tensor(missing, shape=[None, *spec.shape])
        else:
            out[spec.name] = dense(lists[spec.name], Scalar(spec.dtype, missing))
    for name, sequence in file.sequences.items():
        lengths = tf.stack([lists[spec.name].row_lengths() for spec in columns(file, name)])
        out[length_name(name)] = tf.minimum(tf.reduce_min(lengths, axis=0), sequence.max_length)
    return out


def dense(column: Any, scalar: Scalar) -> Any:
    """The first value of every row [N] of a ragged or sparse column."""
    return _ragged(column).to_tensor(scalar.missing, shape=[None, 1])[:, 0]


def _ragged(value: Any) -> Any:
    """The rows of a sparse column, whose values Transform reads in order and without gaps.

    `RaggedTensor.from_sparse` would prove that in forty operations a column, which Transform traces several times.
    """
    if not isinstance(value, tf.SparseTensor):
        return value
    return tf.RaggedTensor.from_value_rowids(value.values, value.indices[:, 0], value.dense_shape[0], validate=False)
