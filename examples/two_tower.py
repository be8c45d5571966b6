"""Trains a two-tower model with TensorFlow Recommenders and exports its index: `two_tower.py CHOICES.npz DIR SEED`.

TensorFlow Recommenders needs Keras 2, so this runs in a process of its own, with `TF_USE_LEGACY_KERAS=1` in its
environment. `retrieve_and_rank.py` starts it and writes the file: `USER` and `item_id` of each choice, and the
`catalogue` of all items.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

WIDTH, BATCH, EPOCHS, RETRIEVED = 32, 256, 8, 500
USER = {
    "user_id": tf.TensorSpec([None], tf.int64),
    "history_item_id": tf.TensorSpec([None, None], tf.int64),
    "history_length": tf.TensorSpec([None], tf.int64),
}


class Items(tf.keras.Model):
    """The candidate tower: item ids of any shape to vectors; ids that it does not know share one."""

    def __init__(self, item_ids: np.ndarray) -> None:
        super().__init__()
        self.rows = tf.keras.layers.IntegerLookup(vocabulary=item_ids)
        self.table = tf.keras.layers.Embedding(len(item_ids) + 1, WIDTH)

    def call(self, item_id: tf.Tensor) -> tf.Tensor:
        """Vectors [..., WIDTH] of ids [...]."""
        return self.table(self.rows(item_id))


class Users(tf.keras.Model):
    """The query tower: the user's own vector, and the mean of the vectors of the history, as a vector for items."""

    def __init__(self, user_ids: np.ndarray, items: Items) -> None:
        super().__init__()
        self.rows = tf.keras.layers.IntegerLookup(vocabulary=user_ids)
        self.table = tf.keras.layers.Embedding(len(user_ids) + 1, WIDTH)
        self.items = items
        self.mix = tf.keras.Sequential([tf.keras.layers.Dense(64, "relu"), tf.keras.layers.Dense(WIDTH)])

    def call(self, user: dict[str, tf.Tensor]) -> tf.Tensor:
        """Vectors [B, WIDTH] of users and their histories, named as in `USER`."""
        events, length = user["history_item_id"], user["history_length"]
        real = tf.sequence_mask(length, tf.shape(events)[1], tf.float32)[:, :, None]
        history = tf.math.divide_no_nan(tf.reduce_sum(self.items(events) * real, 1), tf.reduce_sum(real, 1))
        return history + self.mix(tf.concat([self.table(self.rows(user["user_id"])), history], 1))


class TwoTower(tfrs.Model):
    """Softmax over the items of a batch, corrected for how often each item is there."""

    def __init__(self, users: Users, items: Items) -> None:
        super().__init__()
        self.users, self.items = users, items
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=True)

    def compute_loss(self, choices: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The loss of a batch of choices."""
        return self.task(
            self.users({name: choices[name] for name in USER}),
            self.items(choices["item_id"]),
            candidate_sampling_probability=choices["frequency"],
            candidate_ids=choices["item_id"],
            compute_metrics=False,
        )


def main(choices_file: str, directory: str, seed: int) -> None:
    """Trains, and writes version 1 of the index."""
    tf.keras.utils.set_random_seed(seed)
    choices = dict(np.load(choices_file))
    catalogue = choices.pop("catalogue")
    _, row, count = np.unique(choices["item_id"], return_inverse=True, return_counts=True)
    choices["frequency"] = (count[row] / len(row)).astype("float32")

    items = Items(catalogue)
    users = Users(np.unique(choices["user_id"]), items)
    model = TwoTower(users, items)
    model.compile(tf.keras.optimizers.Adam(0.003))
    data = tf.data.Dataset.from_tensor_slices(choices).shuffle(len(row), seed).batch(BATCH)
    model.fit(data, epochs=EPOCHS, verbose=0)

    index = tfrs.layers.factorized_top_k.BruteForce(users, k=min(RETRIEVED, len(catalogue)))
    index.index(items(catalogue), tf.constant(catalogue))

    @tf.function(input_signature=list(USER.values()))
    def retrieve(user_id: tf.Tensor, history_item_id: tf.Tensor, history_length: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, item_ids = index(dict(zip(USER, (user_id, history_item_id, history_length), strict=True)))
        return {"item_id": item_ids, "score": scores}

    tf.saved_model.save(index, str(Path(directory) / "1"), signatures={"serving_default": retrieve})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
