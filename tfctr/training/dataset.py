"""Training input: rows of a columnar copy as (model inputs, labels, weights), with a candidate axis of one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfctr.console import track
from tfctr.data.columnar import LABEL, WEIGHT, Arrays, RowCopy, write_copy
from tfctr.data.log import checked_rows
from tfctr.data.sources.tfrecord import read_records
from tfctr.features.columns import GROUP, Column
from tfctr.features.inputs import model_inputs
from tfctr.features.parsing import dense, densify, outcomes, ragged
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import RawFunction
from tfctr.storage import parent

_READ_ROWS = 4096
_TAKEN_BYTES = 1 << 21


@dataclass(frozen=True)
class Parts:
    """Which parts of every batch a process reads; each is a batch by itself, and may hold no row.

    Attributes:
        first: The first part.
        count: How many.
        of: How many parts a batch has.
    """

    first: int = 0
    count: int = 1
    of: int = 1

    def of_rows(self, rows: int) -> list[slice]:
        """Where the parts of that many rows are."""
        size = -(-rows // self.of)
        return [slice(part * size, (part + 1) * size) for part in range(self.first, self.first + self.count)]


WHOLE = Parts()


class RankingData:
    """One split as batches for training or evaluation, read from a columnar copy of its transformed rows.

    Args:
        copy: The directory of the copy.
        file: The feature file.
    """

    def __init__(self, copy: Path, file: FeatureFile) -> None:
        self.copy = copy
        self.file = file
        self._rows = RowCopy(copy, file)

    @classmethod
    def of_log(
        cls, file: FeatureFile, paths: Sequence[str], function: RawFunction, copy: Path, training: bool = False
    ) -> RankingData:
        """A split of a log, whose rows are checked and transformed when the copy is made.

        Args:
            file: The feature file.
            paths: The files of the split.
            function: Makes model inputs of raw ones.
            copy: The directory of the copy; one that is there is taken as it is, so its name must be theirs alone.
            training: Whether it is the training split.

        Raises:
            UserError: a row or the whole split is not what `tfctr.features.row_checks` asks.
        """

        transform = _graph(file, function)

        def pieces() -> Iterator[Arrays]:
            for rows in checked_rows(file, paths, f"transforming {parent(paths[0]).rpartition('/')[2]}", training):
                yield _piece(file, *transform({name: (one.flat, one.lengths) for name, one in rows.columns.items()}))

        if not copy.is_dir():
            write_copy(copy, file, pieces())
        return cls(copy, file)

    @classmethod
    def of_transformed(cls, file: FeatureFile, paths: Sequence[str], copy: Path) -> RankingData:
        """A split of the pipeline's transformed examples.

        Args:
            file: The feature file.
            paths: TFRecord files.
            copy: The directory of the copy; one that is there is taken as it is.
        """
        spec = transformed_parsing_spec(file)
        label = file.labels.evaluated

        def pieces() -> Iterator[Arrays]:
            batches = read_records(paths).batch(_READ_ROWS).map(lambda batch: tf.io.parse_example(batch, spec))
            for parsed in track(batches.prefetch(2), "copying transformed rows", size=lambda batch: len(batch[label])):
                beside = {name: parsed[GROUP if name == file.group else name] for name in outcomes(file)}
                yield _piece(file, parsed, beside)

        if not copy.is_dir():
            write_copy(copy, file, pieces())
        return cls(copy, file)

    def __len__(self) -> int:
        return len(self._rows)

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return math.ceil(len(self) / batch_size)

    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | None = None,
        skip: int = 0,
        groups: bool = False,
        parts: Parts = WHOLE,
    ) -> tf.data.Dataset:
        """(inputs, labels [B, 1], weights [B, 1]) batches; with a seed shuffled, the same seed giving the same order.

        Args:
            batch_size: Rows in a batch; the last one may have fewer.
            shuffle_seed: None keeps the order of the log. Otherwise every order of all rows is equally likely.
            skip: Batches to leave out at the start (a resumed epoch).
            groups: Whether a batch has the raw groups [B] too, as its fourth; the feature file must name a group.
            parts: Which parts of every batch to read.
        """
        count = len(self._rows)
        order = np.arange(count) if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(count)
        width = sum(np.dtype(spec.dtype).itemsize * math.prod(spec.shape) for spec in model_inputs(self.file))
        # Many batches at once: what comes out of Python costs two milliseconds, however small it is.
        size = batch_size * max(1, _TAKEN_BYTES // (width * batch_size))

        def generate() -> Iterator[tuple[Any, ...]]:
            for start in range(skip * batch_size, count, size):
                many = order[start : start + size]
                batches = (many[first : first + batch_size] for first in range(0, len(many), batch_size))
                own = [batch[part] for batch in batches for part in parts.of_rows(len(batch))]
                yield self._taken(np.concatenate(own), groups), np.cumsum([0, *map(len, own)])

        signature = (self._signature(groups), tf.TensorSpec([None], tf.int64))
        taken = tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(1)
        return taken.flat_map(_apart).prefetch(4)

    def sharing(self, batch_size: int) -> str | None:
        """What rows of a batch share, in a line for people; None for nothing."""
        return None

    def _taken(self, rows: npt.NDArray[np.int64], groups: bool) -> tuple[Any, ...]:
        taken = self._rows.take(rows, groups)
        inputs = {
            spec.name: taken[spec.name][:, None] if spec.side in ("candidate", "bias") else taken[spec.name]
            for spec in model_inputs(self.file)
        }
        batch = (inputs, taken[LABEL][:, None], taken[WEIGHT][:, None])
        return (*batch, taken[GROUP]) if groups else batch

    def _signature(self, groups: bool) -> tuple[Any, ...]:
        inputs = {}
        for spec in model_inputs(self.file):
            axes = [1] if spec.side in ("candidate", "bias") else []
            inputs[spec.name] = tf.TensorSpec([None, *axes, *spec.shape], spec.dtype)
        column = tf.TensorSpec([None, 1], tf.float32)
        signature = (inputs, column, column)
        if not groups:
            return signature
        return (*signature, tf.TensorSpec([None], outcomes(self.file)[self.file.group or ""].dtype))


def _apart(rows: Any, ends: Any) -> tf.data.Dataset:
    """The rows between one end and the next, as one element each."""
    bounds = tf.data.Dataset.from_tensor_slices((ends[:-1], ends[1:]))
    return bounds.map(lambda first, end: tf.nest.map_structure(lambda column: column[first:end], rows))


def _graph(file: FeatureFile, function: RawFunction) -> Any:
    """The raw function on columns of a log, values and lengths, as a graph: model inputs, and what is beside them."""
    signature = {
        name: (tf.TensorSpec([None], rule.dtype), tf.TensorSpec([None], tf.int64))
        for name, rule in column_rules(file).items()
    }

    def transform(columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        found = {name: ragged(Column(flat, lengths)) for name, (flat, lengths) in columns.items()}
        inputs = function.all_sides(densify(found, file))
        return inputs, {name: dense(found[name], scalar) for name, scalar in outcomes(file).items()}

    return tf.function(transform, input_signature=[signature], autograph=False)


def _piece(file: FeatureFile, inputs: dict[str, Any], beside: dict[str, Any]) -> Arrays:
    piece = {spec.name: np.asarray(inputs[spec.name]).astype(spec.dtype, copy=False) for spec in model_inputs(file)}
    piece[LABEL] = np.asarray(file.labels.read(beside))
    ones = np.ones_like(piece[LABEL])
    piece[WEIGHT] = ones if file.weight is None else np.asarray(beside[file.weight]).astype(np.float32)
    if file.group is not None:
        piece[GROUP] = np.asarray(beside[file.group])
    return piece


def transformed_parsing_spec(file: FeatureFile) -> dict[str, Any]:
    """The parsing spec of transformed examples: model inputs of fixed shape, label, weight and the raw group."""
    spec = {
        entry.name: tf.io.FixedLenFeature(entry.shape, tf.float32 if entry.dtype == "float32" else tf.int64)
        for entry in model_inputs(file)
    }
    for name, column in outcomes(file).items():
        spec[GROUP if name == file.group else name] = tf.io.FixedLenFeature([], tf.as_dtype(column.dtype))
    return spec
