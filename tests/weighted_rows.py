"""Seven impressions whose weighted metrics are easy to work out, as a log and as models that score them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tests.records import write_records
from tfctr.data.analyze import analyze
from tfctr.features import FeatureFile
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.training.dataset import RankingData

#: (user, score, label, weight). Of the rows that count, user 1 has 10 < 20 right and user 2 has 25 < 30 right, so GAUC
#: is 1; the pair of 20 and 25 is wrong, so AUC is 3 / 4. Without the weights they are 0.25 and 0.405.
ROWS = ((1, 10, 0, 1), (1, 20, 1, 1), (2, 30, 1, 1), (2, 25, 0, 1), (1, 1, 1, 0), (1, 2, 1, 0), (2, 40, 0, 0))
#: The same, with a weight that is missing where it is 1.
MISSING_WEIGHTS = tuple((*row[:3], None if row[3] == 1 and row[0] == 2 else row[3]) for row in ROWS)
#: Two more rows, without a group. All together as one user they would be an AUC of 0.
MISSING_GROUPS = (*ROWS, (None, 5, 1, 1), (None, 35, 0, 1))


def feature_file(group: str | None = "user_id") -> FeatureFile:
    """A feature file of the rows. `session` is the user as a meta column, a string."""
    content: dict[str, Any] = {
        "labels": {"click": "label"},
        "weight": "weight",
        "meta": ["session"],
        "user": {"user_id": {"dtype": "int64"}},
        "candidate": {"score": {"kind": "numeric", "transform": "none"}},
    }
    return FeatureFile.model_validate(content if group is None else {**content, "group": group})


def write(path: Path, rows: Any) -> str:
    """Writes the impressions. The scores are a tenth, so that their sigmoids differ in float32."""
    records = (
        {
            "user_id": user,
            "session": None if user is None else f"s{user}",
            "score": score / 10,
            "label": label,
            "weight": None if weight is None else float(weight),
        }
        for user, score, label, weight in rows
    )
    return str(write_records(path, records))


def ranking_data(directory: Path, rows: Any, file: FeatureFile) -> RankingData:
    """The rows as a split. Training saw only another user, so all of these are out of vocabulary."""
    train = write(directory / "train.tfrecord", [(9, -99, 1, 1), (9, 99, 0, 1)])
    assets = analyze(file, [train], directory / "assets", directory)
    path = write(directory / "rows.tfrecord", rows)
    return RankingData.of_log(file, [path], RawFunction(file, FileLookups(assets)), directory / "rows")


class Scorer(keras.Model):
    """A trained model that has learned to give back the score."""

    def call(self, inputs: Any) -> Any:
        return inputs["score"]


def saved_model(directory: Path) -> Path:
    """The same as a SavedModel."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: Any) -> dict[str, Any]:
        x = tf.io.parse_example(examples, {"score": tf.io.FixedLenFeature([], tf.float32)})["score"]
        return {"probabilities": tf.sigmoid(x)}

    module.serve = serve
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})
    return directory
