"""The local pass over a log that learns vocabularies and statistics; the pipeline learns the same with Transform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tfctr.features.assets import (
    FeatureAssets,
    learned_numbers,
    learned_vocabularies,
    named_statistics,
    write_assets,
)
from tfctr.features.checked_log import checked_rows
from tfctr.features.kinds.learned import known
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import ranked


def analyze(
    file: FeatureFile, records: Sequence[str | Path], directory: str | Path, data_directory: str | Path
) -> FeatureAssets:
    """Counts tokens and numbers in the training split and writes a feature assets directory.

    Args:
        file: The feature file.
        records: TFRecord files (plain or .gz) of the training split.
        directory: Where the assets go.
        data_directory: What relative paths in the feature file are relative to.

    Raises:
        UserError: a row or the whole split is not what `tfctr.features.row_checks` asks, or a feature has no value that
            something can be learned from.
    """
    learned, numbers = learned_vocabularies(file), learned_numbers(file)
    counters: dict[str, Counter[bytes]] = {owner: Counter() for owner in learned}
    gathered = {name: asked.start(file.seed) for name, asked in numbers.items()}
    for rows in checked_rows(file, records, "reading the training split", training=True):
        for owner, feeds in learned.items():
            for tokens in feeds:
                unique, _, counts = tf.unique_with_counts(tokens.of(rows.columns[tokens.column].flat))
                # A Counter adds what it is updated with.
                counters[owner].update(dict(zip(unique.numpy().tolist(), counts.numpy().tolist(), strict=True)))
        for name, accumulator in gathered.items():
            accumulator.add(known(rows.columns[name].values))
    vocabularies = {
        owner: ranked(counters[owner], feeds[0].min_count, feeds[0].max_size) for owner, feeds in learned.items()
    }
    vectors = {name: accumulator.result() for name, accumulator in gathered.items()}
    return write_assets(directory, file, vocabularies, named_statistics(file, vectors), data_directory)
