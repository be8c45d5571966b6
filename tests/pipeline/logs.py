"""Small logs for the pipeline tests, and the files that go with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tests.tables import table_of, write_csv, write_parquet
from tfctr.data.sources import split_files
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.features.spec import load_feature_file

ROOT = Path(__file__).parents[2]

FEATURES = """
labels: {click: label}
group: user_id
request: request_id
timestamp: timestamp
meta: [user_activity, item_popularity, hour]
embedding_dimension: 4
user:
  user_id: {dtype: int64, vocabulary: {type: hash, buckets: 200}}
  gender: {dtype: string, vocabulary: {type: hash, buckets: 4}}
  age: {kind: numeric, dtype: int64, transform: bucketize, buckets: 4}
candidate:
  item_id: {dtype: int64, vocabulary: {type: learned, min_count: 2}}
  genres: {dtype: string, max_values: 4}
  year: {kind: numeric, dtype: int64, transform: zscore, default: 1995}
  item_vector: {kind: frozen, key: item_id}
bias:
  position: {dtype: int64, vocabulary: {type: identity, size: 32}, default: 0}
sequences:
  history:
    max_length: 8
    fields:
      history_item_id: {share: item_id}
      history_genres: {share: genres, max_values: 2}
      history_time: {kind: event_time}
"""

EXPERIMENT = """
preset: mlp
model: {{interaction: {{type: mlp, hidden: [16]}}}}
training:
  {{epochs: {epochs}, batch_size: 128, batch_of: {batch_of}, learning_rate: {learning_rate}, patience: {patience},
    checkpoint_steps: 2}}
evaluation: {{min_auc: 0.5, min_gauc: 0.45, max_auc_fall: {fall}, max_gauc_fall: 1.0}}
export: {{warmup_candidates: [1]}}
"""


def write_log(directory: Path, rows: int = 2000) -> Path:
    """A synthetic data set."""
    synthesize(directory, Settings(rows=rows, users=60, items=80, history_length=8, vector_width=4, seed=3))
    return directory


def write_features(path: Path) -> Path:
    path.write_text(FEATURES, encoding="utf-8")
    return path


def write_experiment(
    path: Path,
    epochs: int = 3,
    learning_rate: float = 0.01,
    patience: int = 3,
    fall: float = 0.01,
    batch_of: str = "rows",
) -> Path:
    text = EXPERIMENT.format(
        epochs=epochs, learning_rate=learning_rate, patience=patience, fall=fall, batch_of=batch_of
    )
    path.write_text(text, encoding="utf-8")
    return path


def read_log(paths: list[Path]) -> list[tf.train.Example]:
    compression = "GZIP" if paths[0].suffix == ".gz" else ""
    records = tf.data.TFRecordDataset([str(path) for path in paths], compression_type=compression)
    return [tf.train.Example.FromString(record) for record in records.as_numpy_iterator()]


def rewrite_log(source: Path, target: Path, change: Callable[[str, list[tf.train.Example]], None]) -> Path:
    """Copies a data set and applies `change` to the examples of each split."""
    shutil.copytree(source, target)
    for split in ("train", "valid", "test"):
        paths = sorted((target / split).glob("*.tfrecord.gz"))
        examples = read_log(paths)
        for path in paths:
            path.unlink()
        change(split, examples)
        with tf.io.TFRecordWriter(str(target / split / "part-0.tfrecord.gz"), "GZIP") as writer:
            for example in examples:
                writer.write(example.SerializeToString())
    return target


def in_another_format(data: Path, features: Path, name: str) -> Path:
    """A data set whose splits are Parquet or CSV instead of TFRecord, by the name of their files."""
    for split in ("train", "valid", "test"):
        table = table_of(split_files(data, split), load_feature_file(features))
        shutil.rmtree(data / split)
        (write_parquet if name.endswith(".parquet") else write_csv)(data / split / name, table)
    return data


def turn_training_labels(split: str, examples: list[tf.train.Example]) -> None:
    """Makes clicks of what was not clicked in train and valid, and the other way round. The labels of test stay."""
    if split == "test":
        return
    for example in examples:
        values = example.features.feature["label"].int64_list.value
        values[0] = 1 - values[0]


def run_pipeline(data: Path, features: Path, experiment: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        pipeline_command(data, features, experiment, out), capture_output=True, text=True, cwd=ROOT, check=False
    )


def pipeline_command(data: Path, features: Path, experiment: Path, out: Path) -> list[str]:
    options = {"--data": data, "--features": features, "--experiment": experiment, "--out": out}
    arguments = [str(part) for pair in options.items() for part in pair]
    return [sys.executable, "-m", "pipeline.local_runner", *arguments]
