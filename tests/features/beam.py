"""Transform on Beam, as the pipeline runs it, over the records of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.preprocessing import preprocessing_fn
from tests.records import write_records
from tfctr.features import FeatureFile
from tfctr.features.row_checks import column_rules


def run_transform(file: FeatureFile, data: Path, splits: dict[str, Path]) -> dict[str, list[str]]:
    """Analyzes the split `train` and transforms every split; the graph goes to `data / "graph"`.

    Args:
        file: The feature file.
        data: The data directory.
        splits: A file of records by split.

    Returns:
        A file of transformed records by split, as a list of one.
    """
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    config = {"features": file.model_dump_json(exclude_unset=True), "data": str(data)}
    types = {rule.column: tf.as_dtype(rule.dtype) for rule in column_rules(file).values()}
    columns = {name: tf.io.VarLenFeature(dtype) for name, dtype in types.items()}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(columns))
    transformed: dict[str, list[str]] = {}
    with tft_beam.Context(temp_dir=str(data / "temporary")):
        rows = {split: (_rows(path, list(columns)), metadata) for split, path in splits.items()}
        outputs, transform = rows["train"] | tft_beam.AnalyzeAndTransformDataset(lambda x: preprocessing_fn(x, config))
        _ = transform | tft_beam.WriteTransformFn(str(data / "graph"))
        for split in splits:
            found, metadata_of = outputs if split == "train" else (rows[split], transform) | tft_beam.TransformDataset()
            names = schema_utils.schema_as_feature_spec(metadata_of.schema).feature_spec
            rows_of = ({name: np.ravel(row[name]).tolist() for name in names} for row in found)
            transformed[split] = [str(write_records(data / f"transformed-{split}.tfrecord", rows_of))]
    return transformed


def _rows(path: Path, columns: list[str]) -> list[dict[str, list[Any]]]:
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    parsed = [tf.train.Example.FromString(record).features.feature for record in records]
    return [{name: _values(one[name]) if name in one else [] for name in columns} for one in parsed]


def _values(feature: Any) -> list[Any]:
    return list(getattr(feature, feature.WhichOneof("kind")).value)
