"""The local pass over a log that learns vocabularies and statistics; the pipeline learns the same with Transform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfctr.data.log import checked_rows
from tfctr.features.assets import (
    FeatureAssets,
    learned_numbers,
    learned_vocabularies,
    named_statistics,
    write_assets,
)
from tfctr.features.columns import Column
from tfctr.features.kinds.learned import Tokens, known
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import ranked

_COUNTED_AT_ONCE = 1 << 17


def analyze(
    file: FeatureFile, records: Sequence[str | Path], directory: str | Path, data_directory: str | Path
) -> FeatureAssets:
    """Counts tokens and numbers in the training split and writes a feature assets directory.

    Args:
        file: The feature file.
        records: The files of the training split.
        directory: Where the assets go.
        data_directory: What relative paths in the feature file are relative to.

    Raises:
        UserError: a row or the whole split is not what `tfctr.features.row_checks` asks, or a feature has no value that
            something can be learned from.
    """
    learned, numbers = learned_vocabularies(file), learned_numbers(file)
    counts = {owner: [_Counts(tokens) for tokens in feeds] for owner, feeds in learned.items()}
    gathered = {name: asked.start(file.seed) for name, asked in numbers.items()}
    for rows in checked_rows(file, records, "reading the training split", training=True):
        for feed in chain(*counts.values()):
            feed.add(rows.columns)
        for name, accumulator in gathered.items():
            accumulator.add(known(rows.columns[name].values))
    vocabularies = {
        owner: ranked(_sum(counts[owner]), feeds[0].min_count, feeds[0].max_size) for owner, feeds in learned.items()
    }
    vectors = {name: accumulator.result() for name, accumulator in gathered.items()}
    return write_assets(directory, file, vocabularies, named_statistics(file, vectors), data_directory)


class _Counts:
    """How often each token of a column was seen. Many pieces are counted at once, which is several times faster."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._waiting: list[npt.NDArray[Any]] = []
        self._values = 0
        self._counter: Counter[bytes] = Counter()

    def add(self, columns: Mapping[str, Column]) -> None:
        values = columns[self._tokens.column].values
        self._waiting.append(values)
        self._values += len(values)
        if self._values >= _COUNTED_AT_ONCE:
            self._count()

    def counter(self) -> Counter[bytes]:
        self._count()
        return self._counter

    def _count(self) -> None:
        if self._waiting:
            unique, _, counts = tf.unique_with_counts(self._tokens.of(tf.constant(np.concatenate(self._waiting))))
            # A Counter adds what it is updated with.
            self._counter.update(dict(zip(unique.numpy().tolist(), counts.numpy().tolist(), strict=True)))
        self._waiting, self._values = [], 0


def _sum(counts: Iterable[_Counts]) -> Counter[bytes]:
    total: Counter[bytes] = Counter()
    for one in counts:
        total.update(one.counter())
    return total
