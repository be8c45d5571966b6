"""From a serialized log to raw dense tensors, the form that the signatures take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tfctr.errors import UserError
from tfctr.features.inputs import columns, length_name
from tfctr.features.kinds.base import MISSING
from tfctr.features.spec import FeatureFile


def raw_parsing_spec(file: FeatureFile, labels: bool = False, group: bool = False) -> dict[str, Any]:
    """The tf.io parsing spec of a raw example: scalars with their missing value, sequences ragged.

    Args:
        file: The feature file.
        labels: Whether to read the label (and weight) columns too.
        group: Whether to read the group column, if the file names one, even when it is no feature.
    """
    spec: dict[str, Any] = {}
    for entry in columns(file):
        dtype = tf.as_dtype(entry.dtype)
        if entry.shape:
            spec[entry.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            spec[entry.name] = tf.io.FixedLenFeature([], dtype, MISSING[entry.dtype])
    if labels:
        spec |= file.labels.parsing_spec()
        if file.weight is not None:
            spec[file.weight] = tf.io.FixedLenFeature([], tf.float32, 1.0)
    if group:
        spec |= group_spec(file)
    return spec


def group_spec(file: FeatureFile, name: str | None = None) -> dict[str, Any]:
    """The tf.io parsing spec of the group, with its missing value; empty where the feature file names none.

    Args:
        file: The feature file.
        name: The column it stands in, if it has another name there than in the log.
    """
    if file.group is None:
        return {}
    # A meta column that is no feature is a string.
    dtype = next((spec.dtype for spec in columns(file) if spec.name == file.group), "string")
    return {name or file.group: tf.io.FixedLenFeature([], tf.as_dtype(dtype), MISSING[dtype])}


def parse_examples(
    serialized: tf.Tensor, file: FeatureFile, labels: bool = False, group: bool = False
) -> dict[str, Any]:
    """Parses serialized tf.Examples [N] into raw dense tensors, one impression a row.

    Scalars come as [N], sequence fields as [N, L] (newest first, cut to max_length, padded with the missing value),
    with `<sequence>_length` int64 [N].
    """
    return densify(tf.io.parse_example(serialized, raw_parsing_spec(file, labels, group)), file)


def densify(parsed: dict[str, Any], file: FeatureFile) -> dict[str, Any]:
    """Makes ragged or sparse columns dense: scalars [N], sequence fields [N, L] with their length [N].

    Takes what tf.io.parse_example gives for `raw_parsing_spec`, or sparse tensors for every column (Transform).
    Fields of one sequence must have one length; where they differ, the shortest counts.
    """
    dense = dict(parsed)
    for entry in columns(file):
        value = parsed[entry.name]
        if entry.shape:
            dense[entry.name] = _ragged(value).to_tensor(MISSING[entry.dtype], shape=[None, *entry.shape])
        elif isinstance(value, tf.SparseTensor):
            shape = [value.dense_shape[0], 1]
            column = tf.sparse.SparseTensor(value.indices, value.values, shape)
            dense[entry.name] = tf.sparse.to_dense(column, MISSING[entry.dtype])[:, 0]
    for name, sequence in file.sequences.items():
        lengths = tf.stack([_ragged(parsed[spec.name]).row_lengths() for spec in columns(file, name)])
        dense[length_name(name)] = tf.minimum(tf.reduce_min(lengths, axis=0), sequence.max_length)
    return dense


def _ragged(value: Any) -> Any:
    return tf.RaggedTensor.from_sparse(value) if isinstance(value, tf.SparseTensor) else value


@contextmanager
def told_in_words(where: str) -> Iterator[None]:
    """Turns TensorFlow's reading errors (a damaged file, a column of another type) into a `UserError`.

    Args:
        where: What is being read, for the message.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(
            r"Key: (\w+)[.,].*?(Data types don't match[^\[]*|Can't parse[^\[]*|[^\[]*)", error.message, re.S
        )
        if found is None:
            raise
        problem = " ".join(found.group(2).split())
        raise UserError(
            f"{where}: column '{found.group(1)}': {problem} The feature file says what it must be."
        ) from None
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise UserError(
            f"{where}: can't be read, it is damaged or cut off ({error.message.split(chr(10))[0]})"
        ) from None
