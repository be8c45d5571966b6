"""A small model with the signatures of a real one, whose results can be computed in NumPy."""

from pathlib import Path

import numpy as np
import tensorflow as tf

HISTORY = 4
INT64_MISSING = -(2**63)


class ToyModel(tf.Module):
    """The logit is 0.1 * (scale * interest + hour) + price - item_id / 50 + tokens / 20.

    `interest` is the sum of the state, which consists of the sum of the history's item ids / 100, the sum of the
    lengths of its genres / 100, and the fields of the user. `hour` is a fraction that follows from the timestamp.
    `tokens` is the length of the candidate's genres. A negative price is rejected.
    """

    def __init__(self, tag: int, scale: float = 1.0, extra_features: bool = False):
        super().__init__()
        self.tag = tf.Variable(tag, dtype=tf.int64, trainable=False)
        self.scale = tf.Variable(scale)
        user = {
            "user_id": tf.TensorSpec([None], tf.int64, name="user_id"),
            "gender": tf.TensorSpec([None], tf.string, name="gender"),
            "age": tf.TensorSpec([None], tf.float32, name="age"),
            "history_item_id": tf.TensorSpec([None, HISTORY], tf.int64, name="history_item_id"),
            "history_genres": tf.TensorSpec([None, HISTORY], tf.string, name="history_genres"),
            "history_length": tf.TensorSpec([None], tf.int64, name="history_length"),
        }
        candidate = {
            "item_id": tf.TensorSpec([None, None], tf.int64, name="item_id"),
            "genres": tf.TensorSpec([None, None], tf.string, name="genres"),
            "price": tf.TensorSpec([None, None], tf.float32, name="price"),
        }
        context = {"timestamp": tf.TensorSpec([None], tf.int64, name="timestamp")}
        if extra_features:
            user["country"] = tf.TensorSpec([None], tf.string, name="country")
            candidate["brand"] = tf.TensorSpec([None, None], tf.string, name="brand")
        state = {
            "history/interest": tf.TensorSpec([None, 2], tf.float32, name="history/interest"),
            "user/fields": tf.TensorSpec([None, 3], tf.float32, name="user/fields"),
            "model_tag": tf.TensorSpec([None], tf.int64, name="model_tag"),
        }
        self.user_tower = tf.function(self._user_tower, input_signature=[user])
        self.score = tf.function(self._score, input_signature=[{**state, **candidate, **context}])
        self.serving_default = tf.function(
            self._serving_default, input_signature=[tf.TensorSpec([None], tf.string, name="examples")]
        )

    def _user_tower(self, user):
        mask = tf.sequence_mask(user["history_length"], HISTORY)
        ids = tf.where(mask, tf.cast(user["history_item_id"], tf.float32), 0.0)
        tokens = tf.where(mask, tf.cast(tf.strings.length(user["history_genres"]), tf.float32), 0.0)
        gender = tf.cast(tf.strings.length(user["gender"]), tf.float32)
        age = tf.where(tf.math.is_nan(user["age"]), 30.0, user["age"])
        user_id = tf.where(user["user_id"] == INT64_MISSING, 0.0, tf.cast(user["user_id"], tf.float32))
        return {
            "history/interest": tf.stack([tf.reduce_sum(ids, 1) / 100, tf.reduce_sum(tokens, 1) / 100], 1),
            "user/fields": tf.stack([user_id / 10, gender, age / 100], 1),
            "model_tag": tf.fill(tf.shape(user["user_id"]), self.tag),
        }

    def _score(self, inputs):
        # TensorFlow replaces the "/" of an input's name by "_" in the signature, but not in the dictionary here.
        interest = tf.reduce_sum(inputs["history/interest"], 1) + tf.reduce_sum(inputs["user/fields"], 1)
        hour = tf.where(inputs["timestamp"] == INT64_MISSING, 0.5, tf.cast(inputs["timestamp"] % 24, tf.float32) / 24)
        price = tf.where(tf.math.is_nan(inputs["price"]), 0.25, inputs["price"])
        price = tf.where(inputs["price"] < 0, float("nan"), price)
        item = tf.where(inputs["item_id"] == INT64_MISSING, 0.0, tf.cast(inputs["item_id"], tf.float32))
        tokens = tf.cast(tf.strings.length(inputs["genres"]), tf.float32)
        logits = (self.scale * interest + hour)[:, None] * 0.1 + price - item / 50 + tokens / 20
        known = (inputs["model_tag"] == self.tag)[:, None]
        return {"probabilities": tf.where(known, tf.sigmoid(logits), float("nan"))}

    def _serving_default(self, examples):
        return {"probabilities": tf.zeros(tf.shape(examples))}


def export_toy_model(directory: Path, tag: int = 11, scale: float = 1.0, extra_features: bool = False) -> None:
    """Writes the model as a SavedModel with the three signatures."""
    model = ToyModel(tag, scale, extra_features)
    signatures = {"user_tower": model.user_tower, "score": model.score, "serving_default": model.serving_default}
    tf.saved_model.save(model, str(directory), signatures=signatures)


def toy_probabilities(
    interest: float,
    user_fields: float,
    hour: float,
    items: list[int],
    prices: list[float],
    tokens: list[int],
    scale=1.0,
) -> np.ndarray:
    """The probabilities of the toy model, computed in NumPy."""
    items_, prices_, tokens_ = (np.array(column, np.float32) for column in (items, prices, tokens))
    logits = (scale * (interest + user_fields) + hour) * 0.1 + prices_ - items_ / 50 + tokens_ / 20
    return 1 / (1 + np.exp(-logits))


class UserlessToyModel(tf.Module):
    """The logit is item_id / 50 + `hour` / 10 as above; there is no user and no state."""

    def __init__(self) -> None:
        super().__init__()
        candidate = {"item_id": tf.TensorSpec([None, None], tf.int64, name="item_id")}
        context = {"timestamp": tf.TensorSpec([None], tf.int64, name="timestamp")}
        self.score = tf.function(self._score, input_signature=[{**candidate, **context}])

    def _score(self, inputs):
        hour = tf.cast(inputs["timestamp"] % 24, tf.float32) / 24
        logits = tf.cast(inputs["item_id"], tf.float32) / 50 + hour[:, None] / 10
        return {"probabilities": tf.where(inputs["item_id"] < 0, float("nan"), tf.sigmoid(logits))}
