"""A small SavedModel with the three signatures of tfctr, and a few more for tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

USERS, ITEMS, WIDTH, HISTORY = 50, 200, 8, 6
EXAMPLE_SPEC = {"user_id": tf.io.FixedLenFeature([], tf.int64), "item_id": tf.io.FixedLenFeature([], tf.int64)}


class SmallModel(tf.Module):
    """Two embedding tables and a dot product. Versions differ by `tag`."""

    def __init__(self, tag: int) -> None:
        super().__init__()
        random = np.random.default_rng(tag)
        self.users = tf.Variable(random.normal(size=(USERS, WIDTH)).astype("float32"))
        self.items = tf.Variable(random.normal(size=(ITEMS, WIDTH)).astype("float32"))
        self.tag = tag

    def _user(self, user_id: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        events = tf.gather(self.items, tf.clip_by_value(history, 0, ITEMS - 1))
        return tf.gather(self.users, tf.clip_by_value(user_id, 0, USERS - 1)) + tf.reduce_mean(events, axis=1)

    def _score(self, user_vector: tf.Tensor, item_id: tf.Tensor) -> tf.Tensor:
        items = tf.gather(self.items, tf.clip_by_value(item_id, 0, ITEMS - 1))
        return tf.sigmoid(tf.einsum("bd,bcd->bc", user_vector, items))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def serving_default(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, EXAMPLE_SPEC)
        user = self._user(parsed["user_id"], parsed["item_id"][:, None])
        return {"probabilities": self._score(user, parsed["item_id"][:, None])[:, 0]}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "user_id"),
            tf.TensorSpec([None, HISTORY], tf.int64, "history"),
        ]
    )
    def user_tower(self, user_id: tf.Tensor, history: tf.Tensor) -> dict[str, tf.Tensor]:
        tag = tf.fill(tf.shape(user_id), tf.constant(self.tag, tf.int64))
        return {"user_vector": self._user(user_id, history), "model_tag": tag}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, WIDTH], tf.float32, "user_vector"),
            tf.TensorSpec([None], tf.int64, "model_tag"),
            tf.TensorSpec([None, None], tf.int64, "item_id"),
        ]
    )
    def score(self, user_vector: tf.Tensor, model_tag: tf.Tensor, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        right = tf.equal(model_tag, self.tag)[:, None]
        probabilities = self._score(user_vector, item_id)
        return {"probabilities": tf.where(right, probabilities, tf.fill(tf.shape(probabilities), np.float32("nan")))}

    @tf.function(
        input_signature=[
            tf.TensorSpec(None, tf.int32, "int32"),
            tf.TensorSpec(None, tf.float16, "half"),
            tf.TensorSpec(None, tf.bfloat16, "bfloat16"),
            tf.TensorSpec(None, tf.string, "text"),
            tf.TensorSpec(None, tf.bool, "flag"),
        ]
    )
    def echo(
        self, int32: tf.Tensor, half: tf.Tensor, bfloat16: tf.Tensor, text: tf.Tensor, flag: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = {"int32": int32, "half": half, "bfloat16": bfloat16, "text": text, "flag": flag}
        return {name: tf.identity(value) for name, value in outputs.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "row")])
    def lookup(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
        """Looks up a row without checking its range. The signatures that tfctr exports never do this."""
        return {"vector": tf.gather(self.items, row)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        score = self.serving_default(inputs)["probabilities"][:, None]
        classes = tf.tile([["no", "click"]], [tf.shape(score)[0], 1])
        return {"classes": classes, "scores": tf.concat([1 - score, score], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify_wrong(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives numbers where labels are expected."""
        score = self.serving_default(inputs)["probabilities"][:, None]
        return {"classes": tf.zeros_like(score, tf.int64), "scores": score}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self.serving_default(inputs)["probabilities"]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "steps")])
    def slow(self, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs many small ops one after the other, so that a deadline can stop the run between two of them."""
        count = tf.constant(0, tf.int64)
        total = tf.while_loop(
            lambda i, _: i < steps[0], lambda i, x: (i + 1, tf.sin(x + 1.0)), [count, tf.constant(0.0)]
        )[1]
        return {"total": total + tf.zeros([1])}

    @tf.function(input_signature=[tf.TensorSpec([2], tf.string, "files")])
    def held(self, files: tf.Tensor) -> dict[str, tf.Tensor]:
        """Creates the first file and runs until the second one exists."""
        with tf.control_dependencies([tf.io.write_file(files[0], "")]):
            looks = tf.while_loop(
                lambda _: tf.equal(tf.size(tf.io.matching_files(files[1])), 0), lambda i: i + 1, [tf.constant(0)]
            )[0]
        return {"looks": looks + tf.zeros([1], tf.int32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "length")])
    def fail(self, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fails with a message of the given length."""
        text = tf.strings.reduce_join(tf.fill(length, "x"))
        with tf.control_dependencies([tf.debugging.Assert(length[0] < 0, [text], summarize=1)]):
            return {"length": tf.identity(length)}


def publish(base: Path) -> None:
    """Writes what another server needs to be tested by `--target`: version 7 of `small` and a metrics configuration."""
    save_model(base / "small" / "7", 1)
    monitoring = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }'
    (base / "small" / "monitoring.config").write_text(monitoring)


def save_model(directory: Path, tag: int) -> Path:
    """Writes the model as a SavedModel. `tag` is the seed of its weights and the tag in the state of `user_tower`."""
    model = SmallModel(tag)
    names = (
        "serving_default",
        "user_tower",
        "score",
        "echo",
        "slow",
        "held",
        "fail",
        "lookup",
        "classify",
        "classify_wrong",
        "regress",
    )
    tf.saved_model.save(model, str(directory), signatures={name: getattr(model, name) for name in names})
    return directory


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
