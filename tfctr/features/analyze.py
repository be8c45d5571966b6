"""The local pass over a log that learns vocabularies and statistics; the pipeline learns the same with Transform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.console import track
from tfctr.errors import UserError
from tfctr.features.assets import (
    FeatureAssets,
    Statistics,
    given_vocabularies,
    learned_vocabularies,
    write_assets,
)
from tfctr.features.inputs import INT64_MISSING
from tfctr.features.parsing import raw_parsing_spec, told_in_words
from tfctr.features.spec import Categorical, FeatureFile, Numeric

_BATCH = 4096
_QUANTILE_SAMPLE = 1_000_000


def analyze(
    file: FeatureFile, records: Iterable[str | Path], directory: str | Path, data_directory: str | Path
) -> FeatureAssets:
    """Counts tokens and numbers in the training split and writes a feature assets directory.

    Args:
        file: The feature file.
        records: TFRecord files (plain or .gz) of the training split.
        directory: Where the assets go.
        data_directory: What relative paths in the feature file are relative to.

    Raises:
        UserError: when there is no record, or a numeric feature has no value at all.
    """
    learned = learned_vocabularies(file)
    counters: dict[str, Counter[str]] = {owner: Counter() for owner in learned}
    moments = {n: _Moments(n, f, file.seed) for _, n, f in file.walk() if isinstance(f, Numeric)}
    rows = 0
    for batch in track(_batches(file, records), "reading the training split"):
        rows += len(batch[file.label])
        for owner, (_, columns) in learned.items():
            for column in columns:
                _count(counters[owner], batch[column], file.feature(column), file)
        for name, moment in moments.items():
            moment.add(batch[name])
    if rows == 0:
        raise UserError("the training split holds no example; check the data directory")
    vocabularies = given_vocabularies(file, data_directory)
    for owner, (vocabulary, _) in learned.items():
        ranked = sorted(counters[owner].items(), key=lambda item: (-item[1], item[0]))
        kept = [token for token, count in ranked if count >= vocabulary.min_count and token and "\n" not in token]
        vocabularies[owner] = kept[: vocabulary.max_size]
    statistics: Statistics = {name: moment.result() for name, moment in moments.items() if moment.needed}
    return write_assets(directory, file, vocabularies, statistics, data_directory)


def _batches(file: FeatureFile, records: Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Parsed batches; sequence columns come as their flat values."""
    paths = [str(path) for path in records]
    compression = {"GZIP" if path.endswith(".gz") else "" for path in paths}
    if len(compression) > 1:
        raise UserError("the training split mixes plain and .gz records; use one of the two")
    spec = raw_parsing_spec(file, labels=True)
    dataset = tf.data.TFRecordDataset(paths, compression_type=compression.pop() if compression else "")
    dataset = dataset.batch(_BATCH).map(
        lambda serialized: {
            name: value.flat_values if isinstance(value, tf.RaggedTensor) else value
            for name, value in tf.io.parse_example(serialized, spec).items()
        },
        num_parallel_calls=2,
    )
    with told_in_words("the training split"):
        yield from dataset.prefetch(2)


def _count(counter: Counter[str], values: Any, feature: Any, file: FeatureFile) -> None:
    unique, _, counts = tf.unique_with_counts(values)
    multi_valued = isinstance(feature, Categorical) and feature.max_values is not None
    for value, count in zip(unique.numpy().tolist(), counts.numpy().tolist(), strict=True):
        if isinstance(value, bytes):
            separator = feature.separator if feature.share is None else file.resolve(feature.share)[1].separator
            text = value.decode("utf-8", errors="surrogateescape")
            for token in text.split(separator) if multi_valued else [text]:
                counter[token] += count
        elif value != INT64_MISSING:
            counter[str(value)] += count


class _Moments:
    """Mean, deviation and a bounded sample for quantiles of one numeric column."""

    def __init__(self, name: str, feature: Numeric, seed: int) -> None:
        self.name, self.feature = name, feature
        self.needed = feature.transform in ("zscore", "bucketize")
        self._generator = np.random.default_rng(seed)
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._sample: list[Any] = []

    def add(self, column: Any) -> None:
        values = column.numpy()
        known = values != INT64_MISSING if values.dtype == np.int64 else np.isfinite(values)
        values = values[known].astype(np.float64)
        if not len(values) or not self.needed:
            return
        count = self._count + len(values)
        delta = values.mean() - self._mean
        self._squares += values.var() * len(values) + delta**2 * self._count * len(values) / count
        self._mean += delta * len(values) / count
        self._count = count
        self._sample.append(values)
        if sum(map(len, self._sample)) > 2 * _QUANTILE_SAMPLE:
            self._sample = [self._generator.choice(np.concatenate(self._sample), _QUANTILE_SAMPLE, replace=False)]

    def result(self) -> dict[str, Any]:
        if not self._count:
            raise UserError(
                f"feature '{self.name}' has no value in the training split; remove it from the feature file"
            )
        if self.feature.transform == "zscore":
            return {"mean": self._mean, "deviation": float(np.sqrt(self._squares / self._count))}
        quantiles = np.linspace(0, 1, self.feature.buckets + 1)[1:-1]
        return {"boundaries": np.unique(np.quantile(np.concatenate(self._sample), quantiles)).tolist()}
