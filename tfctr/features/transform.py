"""The raw function: raw dense tensors to ids and floats. Transform, training and all signatures apply this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from tfctr.features.assets import FeatureAssets
from tfctr.features.inputs import (
    AGE_BUCKETS,
    INT64_MISSING,
    hour_name,
    length_name,
    newest_name,
    rows_name,
    weekday_name,
)
from tfctr.features.spec import Categorical, EventTime, FeatureFile, Frozen, Numeric, Sequence, Side

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86400
_AGE_BOUNDARIES = [float(2**power) for power in range(1, AGE_BUCKETS - 1)]


class Lookups(Protocol):
    """Where vocabularies and statistics come from: files (`FileLookups`) or the analyzers of a Transform graph."""

    def vocabulary(self, owner: str, tokens: Any) -> Any:
        """Indices int64 of string tokens: 1 .. n in the vocabulary, n + 1 outside."""

    def rows(self, table: str, tokens: Any) -> Any:
        """Rows int64 of string keys in a frozen table: 1 .. n, 0 for a key without a vector."""

    def statistics(self, feature: str) -> Mapping[str, Any]:
        """mean and deviation, or boundaries, of a numeric feature."""


class FileLookups(tf.Module):
    """Look-ups from a feature assets directory; tracks its tables, so that an export takes them along.

    Args:
        assets: The directory.
    """

    def __init__(self, assets: FeatureAssets) -> None:
        super().__init__()
        self._assets = assets
        self._tables: dict[str, Any] = {}

    def vocabulary(self, owner: str, tokens: Any) -> Any:
        """See `Lookups`."""
        found = self._table(f"vocabulary/{owner}", str(self._assets.vocabulary_path(owner))).lookup(tokens)
        return tf.where(found < 0, tf.constant(self._assets.table_rows(owner) - 1, tf.int64), found + 1)

    def rows(self, table: str, tokens: Any) -> Any:
        """See `Lookups`."""
        return self._table(f"frozen/{table}", str(self._assets.frozen_keys_path(table))).lookup(tokens) + 1

    def statistics(self, feature: str) -> Mapping[str, Any]:
        """See `Lookups`."""
        return self._assets.statistics[feature]

    def _table(self, key: str, path: str) -> Any:
        if key not in self._tables:
            with tf.init_scope():
                self._tables[key] = tf.lookup.StaticHashTable(line_number_initializer(path), -1)
        return self._tables[key]


def line_number_initializer(path: Any) -> Any:
    """Reads a text file as a table from line to line number (from 0)."""
    return tf.lookup.TextFileInitializer(
        path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )


class RawFunction:
    """Maps raw dense tensors to model inputs, one side at a time, so that user and candidate never mix.

    Args:
        file: The feature file.
        lookups: Where vocabularies and statistics come from.
    """

    def __init__(self, file: FeatureFile, lookups: Lookups) -> None:
        self.file = file
        self.lookups = lookups

    def user(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """User features [B] and sequences [B, L] to ids and floats."""
        out = self._side("user", raw)
        for name, sequence in self.file.sequences.items():
            out |= self._sequence(name, sequence, raw)
        return out

    def candidate(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Candidate features [B, C] (or any leading axes) to ids, floats and rows of frozen tables."""
        out = self._side("candidate", raw)
        for name, frozen in self.file.frozen_features().items():
            out[name] = self._frozen_rows(name, frozen, raw[frozen.key])
        return out

    def context(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Context features [B] to ids and floats; the timestamp also gives hour and weekday (UTC)."""
        out = self._side("context", raw)
        name = self.file.timestamp
        if name is not None:
            seconds = raw[name]
            known = seconds != INT64_MISSING
            hour = seconds // SECONDS_PER_HOUR % 24
            weekday = (seconds // SECONDS_PER_DAY + 3) % 7
            out[name] = seconds
            out[hour_name(name)] = _int32(tf.where(known, hour + 1, 0))
            out[weekday_name(name)] = _int32(tf.where(known, weekday + 1, 0))
        return out

    def bias(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Bias features (position ...) to ids; only training feeds them."""
        return self._side("bias", raw)

    def all_sides(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Every side of a log's rows, one impression each."""
        return {**self.user(raw), **self.candidate(raw), **self.context(raw), **self.bias(raw)}

    def _side(self, side: Side, raw: Mapping[str, Any]) -> dict[str, Any]:
        features = self.file.side(side)
        return {name: self._feature(name, raw[name]) for name, f in features.items() if not isinstance(f, Frozen)}

    def _feature(self, name: str, value: Any) -> Any:
        feature = self.file.feature(name)
        if isinstance(feature, Numeric):
            return self._numeric(name, feature, value)
        assert isinstance(feature, Categorical)
        if feature.default is not None:
            missing = value == ("" if value.dtype == tf.string else INT64_MISSING)
            value = tf.where(missing, tf.constant(feature.default, value.dtype), value)
        if feature.max_values is not None:
            return self._multi_valued(name, feature, value)
        return self._ids(name, value)

    def _ids(self, name: str, value: Any) -> Any:
        """int32 index of every value: 0 missing, 1 .. n known, n + 1 out of vocabulary."""
        owner, feature = self.file.resolve(name)
        vocabulary = feature.vocabulary
        missing = value == ("" if value.dtype == tf.string else INT64_MISSING)
        if vocabulary.type == "identity":
            known = (value >= 0) & (value < vocabulary.size)
            ids = tf.where(known, value, vocabulary.size) + 1
        else:
            tokens = value if value.dtype == tf.string else tf.strings.as_string(value)
            if vocabulary.type == "hash":
                ids = tf.strings.to_hash_bucket_fast(tokens, vocabulary.buckets) + 1
            else:
                ids = self.lookups.vocabulary(owner, tokens)
        return _int32(tf.where(missing, tf.zeros_like(ids), ids))

    def _multi_valued(self, name: str, feature: Categorical, value: Any) -> Any:
        """[..., M] ids of the first M tokens, padded with 0."""
        separator = self.file.resolve(name)[1].separator
        tokens = tf.strings.split(tf.reshape(value, [-1]), separator)
        ids = tf.RaggedTensor.from_row_splits(self._ids(name, tokens.values), tokens.row_splits, validate=False)
        dense = ids.to_tensor(0, shape=[None, feature.max_values])
        static = value.shape.as_list()
        out = tf.reshape(dense, tf.concat([tf.shape(value), [feature.max_values]], axis=0))
        return tf.ensure_shape(out, [*static, feature.max_values])

    def _numeric(self, name: str, feature: Numeric, value: Any) -> Any:
        if value.dtype == tf.int64:
            value = tf.where(value == INT64_MISSING, float(feature.default), tf.cast(value, tf.float32))
        else:
            value = tf.where(tf.math.is_nan(value), float(feature.default), value)
            # An infinite value is a bad one: NaN marks the row, and the client raises.
            value = tf.where(tf.math.is_inf(value), float("nan"), value)
        if feature.transform == "bucketize":
            boundaries = tf.convert_to_tensor(self.lookups.statistics(name)["boundaries"], tf.float32)
            flat = tf.searchsorted(boundaries, tf.reshape(value, [-1]), side="right")
            return tf.reshape(flat, tf.shape(value)) + 1
        if feature.transform == "log1p":
            return tf.sign(value) * tf.math.log1p(tf.abs(value))
        if feature.transform == "zscore":
            statistics = self.lookups.statistics(name)
            mean = tf.cast(statistics["mean"], tf.float32)
            return (value - mean) / tf.maximum(tf.cast(statistics["deviation"], tf.float32), 1e-6)
        return value

    def _sequence(self, name: str, sequence: Sequence, raw: Mapping[str, Any]) -> dict[str, Any]:
        out = {}
        length = _int32(tf.clip_by_value(raw[length_name(name)], 0, sequence.max_length))
        out[length_name(name)] = length
        real = tf.sequence_mask(length, sequence.max_length)
        for field, feature in sequence.fields.items():
            if isinstance(feature, EventTime):
                times = raw[field]
                newest = times[:, 0]
                known = real & (times != INT64_MISSING)
                age = tf.where(known, tf.maximum(newest[:, None] - times, 0), 0)
                bucket = tf.raw_ops.Bucketize(input=age + 1, boundaries=_AGE_BOUNDARIES) + 1
                out[field] = tf.where(known, bucket, 0)
                out[newest_name(name)] = tf.where(length > 0, newest, tf.constant(INT64_MISSING, tf.int64))
            else:
                # Whatever stands in the padding must not reach a table: padded ids are 0.
                ids = self._feature(field, raw[field])
                mask = real if ids.shape.rank == 2 else real[:, :, None]
                out[field] = tf.where(mask, ids, 0)
        for table, key in self.file.frozen_of_sequence(name).items():
            rows = self._frozen_rows(table, self.file.frozen_features()[table], raw[key])
            out[rows_name(name, table)] = tf.where(real, rows, 0)
        return out

    def _frozen_rows(self, table: str, frozen: Frozen, key: Any) -> Any:
        tokens = key if key.dtype == tf.string else tf.strings.as_string(key)
        return _int32(self.lookups.rows(table, tokens))


def _int32(value: Any) -> Any:
    return tf.cast(value, tf.int32)
