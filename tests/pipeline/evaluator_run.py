"""Runs TFX's Evaluator executor, which the pipeline uses, on a hand-made model and data without a pipeline."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, json_utils, proto_utils


@dataclass(frozen=True)
class Data:
    """Impressions as columns; in one of objects, None is a missing value."""

    columns: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


def make_data(rows: int = 600, seed: int = 0) -> Data:
    """Impressions with special cases for the metrics.

    Some users have labels of one class only. Slices by gender hold whole users, and slices by hour and item popularity
    hold some of a user's impressions. The model that `write_model` makes adds ties.
    """
    generator = np.random.default_rng(seed)
    users = generator.integers(0, 40, rows)
    x = generator.normal(size=rows).astype(np.float32)
    labels = (generator.random(rows) < 1 / (1 + np.exp(-1.5 * x))).astype(np.int64)
    labels[users % 5 == 0] = 0
    return Data(
        {
            "user_id": users,
            "label": labels,
            "x": x,
            "weight": generator.choice([0.0, 1.0, 2.0], rows).astype(np.float32),
            "gender": np.where(users % 2, "F", "M").astype("S"),
            "hour": generator.integers(0, 3, rows).astype("S"),
            "item_popularity": generator.choice(["head", "tail"], rows).astype("S"),
            "age": users % 3,
        }
    )


def write_examples(data: Data, directory: Path) -> None:
    """One gzipped file of tf.Examples. They also have a history of varying length, which no metric needs."""
    (directory / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(directory / "Split-eval" / "data-0.gz"), "GZIP") as writer:
        for row in range(len(data["label"])):
            features = {}
            for name, column in data.columns.items():
                value = column[row]
                if value is None:
                    continue
                if isinstance(value, bytes):
                    features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                elif isinstance(value, float | np.floating):
                    features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
                else:
                    features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            history = tf.train.Int64List(value=range(row % 4))
            features["history_item_id"] = tf.train.Feature(int64_list=history)
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def schema_for(data: Data) -> schema_pb2.Schema:
    """The schema that the pipeline curates for such columns."""
    schema = schema_pb2.Schema()
    for name, column in data.columns.items():
        known = column[np.not_equal(column, None)]
        kind = {"S": "BYTES", "f": "FLOAT", "i": "INT"}[np.array(known.tolist()).dtype.kind]
        # The pipeline's schema has no shapes, so that a value may be missing.
        shape = (
            "presence { min_count: 1 }"
            if known.size < column.size
            else "presence { min_fraction: 1 } shape { dim { size: 1 } }"
        )
        text_format.Parse(f"name: '{name}' type: {kind} {shape}", schema.feature.add())
    text_format.Parse("name: 'history_item_id' type: INT value_count { min: 0 }", schema.feature.add())
    return schema


class Scorer(tf.Module):
    """A model with the `serving_default` of our exports, from serialized examples [N] to probabilities [N]."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = tf.Variable(scale)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        return {"probabilities": tf.round(tf.sigmoid(self.scale * x) * 20.0) / 20.0}


def write_model(directory: Path, scale: float) -> None:
    """A SavedModel whose probabilities are the sigmoid of `scale * x`, rounded to make ties."""
    scorer = Scorer(scale)
    tf.saved_model.save(scorer, str(directory / "Format-Serving"), signatures={"serving_default": scorer.serve})


@dataclass(frozen=True)
class Outcome:
    evaluation: str
    blessed: bool


def evaluate(directory: Path, data: Data, config, scale: float, baseline: float | None = None) -> Outcome:
    """Evaluates a model with the given scale. `baseline` is the scale of the blessed model, if there is one."""
    write_examples(data, directory / "examples")
    write_model(directory / "model", scale)
    examples = standard_artifacts.Examples()
    examples.uri = str(directory / "examples")
    examples.split_names = artifact_utils.encode_split_names(["eval"])
    schema = standard_artifacts.Schema()
    schema.uri = str(directory / "schema")
    io_utils.write_pbtxt_file(os.path.join(schema.uri, "schema.pbtxt"), schema_for(data))
    model, blessed = standard_artifacts.Model(), standard_artifacts.Model()
    model.uri, blessed.uri = str(directory / "model"), str(directory / "blessed_model")
    inputs = {"examples": [examples], "schema": [schema], "model": [model]}
    if baseline is not None:
        write_model(directory / "blessed_model", baseline)
        inputs["baseline_model"] = [blessed]
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    evaluation.uri, blessing.uri = str(directory / "evaluation"), str(directory / "blessing")
    executor.Executor().Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"eval_config": proto_utils.proto_to_json(config), "example_splits": json_utils.dumps(["eval"])},
    )
    return Outcome(evaluation.uri, os.path.exists(os.path.join(blessing.uri, "BLESSED")))
