"""Transform's preprocessing: analyzers learn vocabularies and statistics, then the one raw function is applied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from pipeline.assets import STATISTICS, statistics_layout, vocabulary_file
from tfctr.features.assets import given_vocabularies, learned_vocabularies, read_frozen
from tfctr.features.inputs import INT64_MISSING, model_inputs
from tfctr.features.parsing import densify
from tfctr.features.spec import Categorical, FeatureFile, Numeric
from tfctr.features.transform import RawFunction

_QUANTILE_ERROR = 1e-3


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Maps the columns of the log to model inputs, label and weight.

    Args:
        inputs: Every column of the schema as a sparse tensor.
        custom_config: `features` (the feature file, JSON) and `data` (what relative paths in it are relative to).
    """
    file = FeatureFile.model_validate_json(custom_config["features"])
    raw = densify(dict(inputs), file)
    lookups = AnalyzerLookups(file, inputs, custom_config["data"])
    transformed = RawFunction(file, lookups).all_sides(raw)
    # tf.Example knows one kind of integer; training reads ids back as int32.
    outputs = {
        spec.name: transformed[spec.name] if spec.dtype == "float32" else tf.cast(transformed[spec.name], tf.int64)
        for spec in model_inputs(file)
    }
    outputs[file.label] = _scalar(inputs[file.label], INT64_MISSING)
    if file.weight is not None:
        outputs[file.weight] = _scalar(inputs[file.weight], 1.0)
    if statistics_layout(file):
        # Transform has no other public way out for numbers (schema annotations are not in its open-source build): the
        # same few numbers stand in every row.
        row = lookups.all_statistics()
        outputs[STATISTICS] = tf.tile(row[None, :], [tf.shape(outputs[file.label])[0], 1])
    return outputs


def _scalar(column: Any, missing: Any) -> Any:
    first = tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1])
    return tf.sparse.to_dense(first, missing)[:, 0]


class AnalyzerLookups:
    """Look-ups from Transform's analyzers; see `tfctr.features.transform.Lookups`.

    A vocabulary is one analyzer over all columns that share it, and all z-scored numbers are one analyzer: an analyzer
    costs seconds of fixed time, whatever the data.

    Args:
        file: The feature file.
        columns: Every column of the log as a sparse tensor.
        data_directory: What relative paths in the feature file are relative to.
    """

    def __init__(self, file: FeatureFile, columns: Mapping[str, Any], data_directory: str) -> None:
        self._file = file
        self._columns = columns
        self._learned = learned_vocabularies(file)
        self._given = given_vocabularies(file, data_directory)
        self._keys = {
            name: read_frozen(frozen, name, Path(data_directory))[0] for name, frozen in file.frozen_features().items()
        }
        self._paths = {owner: self._learn(owner) for owner in self._learned}
        self._statistics = self._learn_statistics()

    def vocabulary(self, owner: str, tokens: Any) -> Any:
        """See `Lookups`."""
        if owner in self._given:
            known = self._given[owner]
            found = _constant_table(f"vocabulary_{owner}", known).lookup(tokens)
            return tf.where(found < 0, tf.constant(len(known) + 1, tf.int64), found + 1)
        # The one OOV bucket comes after the last token: index n, and 0 is for padding.
        return tft.apply_vocabulary(tokens, self._paths[owner], num_oov_buckets=1) + 1

    def rows(self, table: str, tokens: Any) -> Any:
        """See `Lookups`."""
        return _constant_table(f"frozen_{table}", self._keys[table]).lookup(tokens) + 1

    def statistics(self, feature: str) -> Mapping[str, Any]:
        """See `Lookups`."""
        numbers = self._statistics[feature]
        if self._file.feature(feature).transform == "bucketize":
            return {"boundaries": tf.unique(numbers).y}
        return {"mean": numbers[0], "deviation": numbers[1]}

    def _learn(self, owner: str) -> Any:
        vocabulary, names = self._learned[owner]
        tokens = tf.concat([self._tokens(name) for name in names], axis=0)
        return tft.vocabulary(
            tokens,
            top_k=vocabulary.max_size,
            frequency_threshold=vocabulary.min_count,
            vocab_filename=vocabulary_file(owner),
        )

    def _tokens(self, name: str) -> Any:
        """All tokens of a column, flat; what is missing does not count."""
        values = self._columns[name].values
        feature = self._file.feature(name)
        if values.dtype != tf.string:
            return tf.strings.as_string(tf.boolean_mask(values, values != INT64_MISSING))
        if isinstance(feature, Categorical) and feature.max_values is not None:
            values = tf.strings.split(values, self._file.resolve(name)[1].separator).values
        return tf.boolean_mask(values, values != "")

    def _learn_statistics(self) -> dict[str, Any]:
        """One float vector a feature: mean and deviation, or quantiles."""
        numeric = {n: f for _, n, f in self._file.walk() if isinstance(f, Numeric)}
        found: dict[str, Any] = {}
        scaled = [name for name, feature in numeric.items() if feature.transform == "zscore"]
        if scaled:
            # NaN counts for nothing in mean and variance, so features that miss values can stand side by side.
            matrix = tf.stack([_known_or_nan(self._columns[name]) for name in scaled], axis=1)
            means = tft.mean(matrix, reduce_instance_dims=False)
            deviations = tf.sqrt(tft.var(matrix, reduce_instance_dims=False))
            pairs = tf.cast(tf.stack([means, deviations], axis=1), tf.float32)
            found = {name: tf.ensure_shape(pairs[index], [2]) for index, name in enumerate(scaled)}
        for name, feature in numeric.items():
            if feature.transform == "bucketize":
                values = _known_or_nan(self._columns[name])
                values = tf.cast(tf.boolean_mask(values, tf.math.is_finite(values)), tf.float32)
                edges = tft.quantiles(values, feature.buckets, epsilon=_QUANTILE_ERROR)
                found[name] = tf.reshape(edges, [feature.buckets - 1])
        return found

    def all_statistics(self) -> Any:
        """Everything that was learned about numeric features, one float vector in the order of `statistics_layout`."""
        return tf.concat([self._statistics[name] for name, _ in statistics_layout(self._file)], axis=0)


def _known_or_nan(column: Any) -> Any:
    dense = _scalar(column, INT64_MISSING if column.dtype == tf.int64 else float("nan"))
    if dense.dtype == tf.int64:
        return tf.where(dense == INT64_MISSING, tf.constant(float("nan"), tf.float64), tf.cast(dense, tf.float64))
    dense = tf.cast(dense, tf.float64)
    return tf.where(tf.math.is_finite(dense), dense, tf.constant(float("nan"), tf.float64))


def _constant_table(name: str, keys: list[str]) -> Any:
    def create() -> Any:
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(keys, tf.string), tf.range(len(keys), dtype=tf.int64)
        )
        return tf.lookup.StaticHashTable(initializer, -1)

    return tft.make_and_track_object(create, name=name)
