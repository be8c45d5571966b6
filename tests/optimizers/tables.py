"""Steps of an optimizer on a table of which batches read some rows, as they are made in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Floats = npt.NDArray[np.float32]
Batch = tuple[npt.NDArray[np.int32], Floats]

ROWS, WIDTH = 40, 3


def table(rows: int = ROWS, width: int = WIDTH, seed: int = 0) -> keras.Variable:
    return keras.Variable(np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32), name="table")


def batches(ids: Sequence[Sequence[int]], width: int = WIDTH, seed: int = 1) -> list[Batch]:
    """A gradient for each row that a batch reads."""
    random = np.random.default_rng(seed)
    return [(np.array(one, np.int32), random.normal(size=(len(one), width)).astype(np.float32)) for one in ids]


def random_batches(steps: int, size: int, rows: int = ROWS, seed: int = 2) -> list[Batch]:
    random = np.random.default_rng(seed)
    return batches([random.integers(0, rows, size).tolist() for _ in range(steps)])


def trained(
    optimizer: keras.optimizers.Optimizer,
    steps: Sequence[Batch],
    jit: bool = False,
    dense: bool = False,
    rows: int = ROWS,
) -> Floats:
    """The table after some steps, whose loss is the sum of its rows times the gradients.

    Args:
        dense: whether the gradient is that of the whole table, as other backends give it.
    """
    weights = table(rows)
    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build([weights])

    @tf.function(jit_compile=jit, autograph=False, reduce_retracing=False)
    def step(ids: Any, gradient: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(weights.value, ids) * gradient)
        found = tape.gradient(loss, weights.value)
        optimizer.apply([tf.convert_to_tensor(found) if dense else found], [weights])

    for ids, gradient in steps:
        step(tf.constant(ids), tf.constant(gradient))
    return np.asarray(weights.numpy())


def summed(ids: npt.NDArray[np.int32], gradient: Floats, rows: int = ROWS) -> npt.NDArray[np.float64]:
    total = np.zeros((rows, gradient.shape[1]))
    np.add.at(total, ids, gradient.astype(np.float64))
    return total
