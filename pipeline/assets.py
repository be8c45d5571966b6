"""From Transform's output to a feature assets directory, the form that training and serving read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from tfctr.errors import UserError
from tfctr.features.assets import FeatureAssets, Statistics, given_vocabularies, learned_vocabularies, write_assets
from tfctr.features.spec import FeatureFile, Numeric
from tfctr.training.dataset import read_records

#: The column of the transformed examples that carries what was learned about numeric features.
STATISTICS = "tfctr_statistics"


def vocabulary_file(owner: str) -> str:
    """The name of a learned vocabulary among Transform's assets."""
    return f"vocabulary_{owner}"


def statistics_layout(file: FeatureFile) -> list[tuple[str, int]]:
    """(feature, count) of the numbers in the statistics column: mean and deviation, or quantiles."""
    counts = {"zscore": lambda feature: 2, "bucketize": lambda feature: feature.buckets - 1}
    numeric = [(name, feature) for _, name, feature in file.walk() if isinstance(feature, Numeric)]
    return [(name, counts[feature.transform](feature)) for name, feature in numeric if feature.transform in counts]


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
        UserError: the training split is empty.
    """
    output = tft.TFTransformOutput(transform_graph)
    vocabularies = given_vocabularies(file, data_directory)
    for owner in learned_vocabularies(file):
        path = Path(output.vocabulary_file_by_name(vocabulary_file(owner)))
        vocabularies[owner] = path.read_text(encoding="utf-8").split("\n")[:-1]
    return write_assets(directory, file, vocabularies, _statistics(examples, file), data_directory)


def _statistics(examples: Sequence[str], file: FeatureFile) -> Statistics:
    layout = statistics_layout(file)
    if not layout:
        return {}
    first = next(iter(read_records(examples).take(1)), None)
    if first is None:
        raise UserError("the training split holds no example; check the data directory")
    width = sum(count for _, count in layout)
    row = tf.io.parse_single_example(first, {STATISTICS: tf.io.FixedLenFeature([width], tf.float32)})[STATISTICS]
    found: Statistics = {}
    for (name, _), numbers in zip(layout, np.split(row.numpy(), np.cumsum([c for _, c in layout])[:-1]), strict=True):
        feature = file.feature(name)
        if isinstance(feature, Numeric) and feature.transform == "bucketize":
            found[name] = {"boundaries": np.unique(numbers).tolist()}
        else:
            found[name] = {"mean": float(numbers[0]), "deviation": float(numbers[1])}
    return found
