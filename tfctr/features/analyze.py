"""The local pass over a log that learns vocabularies and statistics; the pipeline learns the same with Transform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.console import track
from tfctr.errors import UserError
from tfctr.features.assets import (
    FeatureAssets,
    learned_numbers,
    learned_vocabularies,
    named_statistics,
    write_assets,
)
from tfctr.features.kinds.learned import known
from tfctr.features.parsing import raw_parsing_spec, told_in_words
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import ranked

_BATCH = 4096


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
        UserError: when there is no record, or a feature has no value that something can be learned from.
    """
    learned, numbers = learned_vocabularies(file), learned_numbers(file)
    counters: dict[str, Counter[bytes]] = {owner: Counter() for owner in learned}
    gathered = {name: asked.start(file.seed) for name, asked in numbers.items()}
    rows = 0
    for count, batch in track(_batches(file, records), "reading the training split"):
        rows += count
        for owner, feeds in learned.items():
            for tokens in feeds:
                unique, _, counts = tf.unique_with_counts(tokens.of(batch[tokens.column]))
                # A Counter adds what it is updated with.
                counters[owner].update(dict(zip(unique.numpy().tolist(), counts.numpy().tolist(), strict=True)))
        for name, accumulator in gathered.items():
            accumulator.add(known(batch[name].numpy()))
    if rows == 0:
        raise UserError("the training split holds no example; check the data directory")
    vocabularies = {
        owner: ranked(counters[owner], feeds[0].min_count, feeds[0].max_size) for owner, feeds in learned.items()
    }
    vectors = {name: accumulator.result() for name, accumulator in gathered.items()}
    return write_assets(directory, file, vocabularies, named_statistics(file, vectors), data_directory)


def _batches(file: FeatureFile, records: Iterable[str | Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a batch, and its parsed columns; sequence columns come as their flat values."""
    paths = [str(path) for path in records]
    compression = {"GZIP" if path.endswith(".gz") else "" for path in paths}
    if len(compression) > 1:
        raise UserError("the training split mixes plain and .gz records; use one of the two")
    spec = raw_parsing_spec(file)
    dataset = tf.data.TFRecordDataset(paths, compression_type=compression.pop() if compression else "")
    dataset = dataset.batch(_BATCH).map(
        lambda serialized: (
            tf.shape(serialized)[0],
            {
                name: value.flat_values if isinstance(value, tf.RaggedTensor) else value
                for name, value in tf.io.parse_example(serialized, spec).items()
            },
        ),
        num_parallel_calls=2,
    )
    with told_in_words("the training split"):
        for count, batch in dataset.prefetch(2):
            yield int(count), batch
