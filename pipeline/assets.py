"""From Transform's output to a feature assets directory, the form that training and serving read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from tfctr.data.sources.tfrecord import read_records
from tfctr.errors import UserError
from tfctr.features.assets import (
    FeatureAssets,
    Statistics,
    learned_numbers,
    learned_vocabularies,
    named_statistics,
    write_assets,
)
from tfctr.features.columns import STATISTICS
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import read_tokens
from tfctr.storage import local_copy


def vocabulary_file(owner: str) -> str:
    """The name of a learned vocabulary among Transform's assets."""
    return f"vocabulary_{owner}"


def assets_from_transform(
    transform_graph: str, examples: Sequence[str], file: FeatureFile, directory: str | Path, data_directory: str | Path
) -> FeatureAssets:
    """Writes what Transform's analyzers learned as a feature assets directory.

    Args:
        transform_graph: URI of the TransformGraph artifact.
        examples: Files of transformed training examples.
        file: The feature file that Transform ran with.
        directory: Where the assets go.
        data_directory: What relative paths in the feature file are relative to.

    Raises:
        UserError: the training split is empty, or a feature has no value that something can be learned from.
    """
    with local_copy(transform_graph) as graph:
        output = tft.TFTransformOutput(str(graph))
        # Transform was given escaped tokens, so its files are in the format of all vocabulary files.
        vocabularies = {
            owner: read_tokens(output.vocabulary_file_by_name(vocabulary_file(owner)))
            for owner in learned_vocabularies(file)
        }
    return write_assets(directory, file, vocabularies, _statistics(examples, file), data_directory)


def _statistics(examples: Sequence[str], file: FeatureFile) -> Statistics:
    numbers = learned_numbers(file)
    if not numbers:
        return {}
    first = next(iter(read_records(examples).take(1)), None)
    if first is None:
        raise UserError("the training split holds no example; check the data directory")
    row = tf.io.parse_single_example(first, {STATISTICS: tf.io.FixedLenFeature([], tf.string)})
    whole = tf.io.parse_tensor(row[STATISTICS], tf.float64).numpy()
    parts = np.split(whole, np.cumsum([asked.size for asked in numbers.values()])[:-1])
    # An accumulator gives finite numbers or none.
    vectors = {name: part if np.isfinite(part).all() else None for name, part in zip(numbers, parts, strict=True)}
    return named_statistics(file, vectors)
