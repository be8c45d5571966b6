"""Training input: TFRecords to (model inputs, labels, weights), with a candidate axis of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from tfctr.features.checked_log import raw_records
from tfctr.features.inputs import model_inputs
from tfctr.features.kinds.base import GROUP
from tfctr.features.parsing import outcomes, parse_examples
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import RawFunction

_READERS = 4


def read_records(paths: Sequence[str]) -> Any:
    """Serialized examples of plain or gzipped TFRecords, files interleaved in a fixed order."""
    files = tf.data.Dataset.from_tensor_slices(list(paths))
    return files.interleave(
        raw_records,
        cycle_length=min(_READERS, len(paths)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


class RankingData:
    """One split as batches for training or evaluation, from raw or transformed examples.

    Args:
        paths: TFRecord files.
        raw_function: Applied to raw examples; None when the examples are transformed already (the pipeline's).
    """

    def __init__(self, paths: Sequence[str], file: FeatureFile, raw_function: RawFunction | None) -> None:
        self.paths = list(paths)
        self.file = file
        self.raw_function = raw_function

    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | None = None,
        shuffle_buffer: int = 1,
        skip: int = 0,
        full: bool = False,
        groups: bool = False,
    ) -> Any:
        """(inputs, labels [B, 1], weights [B, 1]) batches; with a seed shuffled, the same seed giving the same order.

        Args:
            shuffle_seed: None keeps the order of the files.
            shuffle_buffer: Rows in the shuffle buffer.
            skip: Batches to leave out at the start (a resumed epoch).
            full: Leave out the last batch when it is short, so that a compiled step sees one shape.
            groups: Whether a batch has the raw groups [B] too, as its fourth; the feature file must name a group.
        """
        records = read_records(self.paths)
        if shuffle_seed is not None:
            records = records.shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
        batches = records.batch(batch_size, drop_remainder=full).skip(skip)
        parse = partial(self._parse, groups=groups)
        return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(4)

    def count(self) -> int:
        """Rows in the split (reads it once)."""
        return int(read_records(self.paths).batch(8192).reduce(0, lambda n, batch: n + tf.shape(batch)[0]).numpy())

    def _parse(self, serialized: Any, groups: bool = False) -> tuple[Any, ...]:
        file = self.file
        if self.raw_function is None:
            columns = tf.io.parse_example(serialized, transformed_parsing_spec(file, groups))
            inputs = {spec.name: tf.cast(columns[spec.name], spec.dtype) for spec in model_inputs(file)}
        else:
            columns = parse_examples(serialized, file, outcomes(file, groups))
            inputs = self.raw_function.all_sides(columns)
        for spec in model_inputs(file):
            if spec.side in ("candidate", "bias"):
                inputs[spec.name] = tf.expand_dims(inputs[spec.name], 1)
        label = file.labels.read(columns)[:, None]
        weight = tf.cast(columns[file.weight], tf.float32)[:, None] if file.weight else tf.ones_like(label)
        if not groups:
            return inputs, label, weight
        return inputs, label, weight, columns[GROUP if self.raw_function is None else file.group]


def transformed_parsing_spec(file: FeatureFile, group: bool = False) -> dict[str, Any]:
    """The parsing spec of transformed examples: model inputs of fixed shape, label and weight.

    Args:
        file: The feature file.
        group: Whether to read the raw group too, as `GROUP`.
    """
    spec = {
        entry.name: tf.io.FixedLenFeature(entry.shape, tf.float32 if entry.dtype == "float32" else tf.int64)
        for entry in model_inputs(file)
    }
    for name, column in outcomes(file, group).items():
        spec[GROUP if name == file.group else name] = tf.io.FixedLenFeature([], tf.as_dtype(column.dtype))
    return spec
