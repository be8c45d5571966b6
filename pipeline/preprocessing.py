"""Transform's preprocessing: analyzers learn vocabularies and statistics, then the one raw function is applied."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from typing_extensions import override

from pipeline.assets import STATISTICS, vocabulary_file
from tfctr.features.assets import given_tables, given_vocabularies, learned_numbers, learned_vocabularies
from tfctr.features.inputs import columns as log_columns
from tfctr.features.inputs import model_inputs
from tfctr.features.kinds.base import GROUP, INT64_MISSING, Lookups
from tfctr.features.kinds.learned import Tokens
from tfctr.features.parsing import densify, group_spec
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import RawFunction
from tfctr.features.vocabulary import escape_tensor, indices, lookup_table, write_tokens


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Maps the columns of the log to model inputs, label, weight and group.

    Args:
        inputs: Every column of the schema as a sparse tensor.
        custom_config: `features` (the feature file, JSON) and `data` (what relative paths in it are relative to).
    """
    file = FeatureFile.model_validate_json(custom_config["features"])
    raw = densify(dict(inputs), file)
    lookups = AnalyzerLookups(file, inputs, custom_config["data"])
    transformed = RawFunction(file, lookups).all_sides(raw)
    # tf.Example has int64 only; training reads the indices back as int32.
    outputs = {
        spec.name: transformed[spec.name] if spec.dtype == "float32" else tf.cast(transformed[spec.name], tf.int64)
        for spec in model_inputs(file)
    }
    outputs |= {column: _scalar(inputs[column], INT64_MISSING) for column in file.labels.columns}
    if file.weight is not None:
        outputs[file.weight] = _scalar(inputs[file.weight], 1.0)
    # The Trainer's validation groups by the raw value: a vocabulary makes one user of all that it does not know.
    for column, entry in group_spec(file).items():
        outputs[GROUP] = _scalar(inputs[column], entry.default_value)
    if lookups.numbers:
        # The open-source build of Transform has no other public way to hand on numbers, so they stand in every row.
        rows = tf.shape(outputs[file.labels.evaluated])[0]
        outputs[STATISTICS] = tf.tile(lookups.all_statistics()[None, :], [rows, 1])
    return outputs


def _scalar(column: Any, missing: Any) -> Any:
    first = tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1])
    return tf.sparse.to_dense(first, missing)[:, 0]


class AnalyzerLookups(Lookups):
    """Look-ups from Transform's analyzers; see `tfctr.features.kinds.base.Lookups`.

    A vocabulary is one analyzer over all columns that share it, and all z-scored numbers are one analyzer: an analyzer
    costs seconds of fixed time, whatever the data.

    Args:
        file: The feature file.
        columns: Every column of the log as a sparse tensor.
        data_directory: What relative paths in the feature file are relative to.
    """

    def __init__(self, file: FeatureFile, columns: Mapping[str, Any], data_directory: str) -> None:
        self._columns = columns
        self._histories = {spec.name for spec in log_columns(file) if spec.shape}
        self._given = given_vocabularies(file, data_directory)
        self._keys = {name: table.keys for name, table in given_tables(file, data_directory).items()}
        self._paths = {owner: self._learn(owner, feeds) for owner, feeds in learned_vocabularies(file).items()}
        self.numbers = learned_numbers(file)
        self._vectors = self._learn_numbers()

    @override
    def vocabulary(self, owner: str, tokens: Any) -> Any:
        if owner in self._given:
            return indices(_tracked_table(f"vocabulary_{owner}", self._given[owner]), tokens)
        return tft.apply_vocabulary(tokens, self._paths[owner], lookup_fn=_look_up)

    @override
    def rows(self, table: str, tokens: Any) -> Any:
        return _tracked_table(f"frozen_{table}", self._keys[table]).lookup(tokens) + 1

    @override
    def statistics(self, column: str) -> Mapping[str, Any]:
        return self.numbers[column].named(self._vectors[column])

    def all_statistics(self) -> Any:
        """Everything that was learned about numeric features, one float vector in the order of `numbers`."""
        return tf.concat([self._vectors[name] for name in self.numbers], axis=0)

    def _learn(self, owner: str, feeds: Sequence[Tokens]) -> Any:
        tokens = tf.concat([one.of(self._columns[one.column].values) for one in feeds], axis=0)
        return tft.vocabulary(
            escape_tensor(tokens),
            top_k=feeds[0].max_size,
            frequency_threshold=feeds[0].min_count,
            vocab_filename=vocabulary_file(owner),
        )

    def _learn_numbers(self) -> dict[str, Any]:
        """One float vector for each column. Columns with one value a row are analyzed together, by class."""
        groups: dict[Any, list[str]] = {}
        for name, asked in self.numbers.items():
            groups.setdefault((type(asked), name if name in self._histories else None), []).append(name)
        found: dict[str, Any] = {}
        for (kind, history), names in groups.items():
            columns = [_known_or_nan(self._columns[name], history is not None) for name in names]
            found |= zip(names, kind.analyze([self.numbers[name] for name in names], columns), strict=True)
        return found


def _look_up(tokens: Any, path: Any) -> tuple[Any, Any]:
    """Indices of tokens in a token file, and how many different indices there are, that of missing tokens included."""
    # While Transform analyzes, the path of a vocabulary that is not learned yet is a placeholder of the graph.
    with contextlib.nullcontext() if tf.is_symbolic_tensor(path) else tf.init_scope():
        table = lookup_table(path)
    return indices(table, tokens), table.size() + 1


def _known_or_nan(column: Any, flat: bool) -> Any:
    """A numeric column as float64 with NaN for what is missing: one value a row, or all values of a history."""
    values = column.values if flat else _scalar(column, INT64_MISSING if column.dtype == tf.int64 else float("nan"))
    known = values != INT64_MISSING if values.dtype == tf.int64 else tf.math.is_finite(values)
    return tf.where(known, tf.cast(values, tf.float64), tf.constant(float("nan"), tf.float64))


def _tracked_table(name: str, tokens: list[bytes]) -> Any:
    """A look-up of given tokens, which the graph of Transform takes along as a file."""

    def create() -> Any:
        handle, path = tempfile.mkstemp(dir=_token_files().name)
        os.close(handle)
        write_tokens(path, tokens)
        return lookup_table(path)

    return tft.make_and_track_object(create, name=name)


@functools.cache
def _token_files() -> tempfile.TemporaryDirectory[str]:
    # The files must be there until Transform has saved its graph, so they stay until the process ends.
    return tempfile.TemporaryDirectory(prefix="tfctr-")
