"""One layer alone, forward and backward: of tfctr, of keras-rs, or of TensorFlow Recommenders (Keras 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.peers.turns import PRODUCT, Side, serve

Layer = tuple[Callable[[Any], Any], Callable[[], list[Any]]]
"""What is called with the fields, and its weights once it is built."""


def _tfctr(kind: str, fields: int, width: int) -> Layer:
    if kind == "cross":
        from tfctr.interactions.cross_net import CrossV2

        cross = CrossV2()
        cross.build((None, fields * width))
        return lambda x: cross(x, x), lambda: [one.value for one in cross.trainable_weights]
    from tfctr.interactions.dlrm import Dlrm

    dlrm = Dlrm()
    dlrm.build((None, fields, width))
    return dlrm.products, list


def _keras_rs(kind: str, fields: int, width: int) -> Layer:
    import keras_rs

    if kind == "dot":
        return keras_rs.layers.DotInteraction(), list
    cross = keras_rs.layers.FeatureCross()
    return lambda x: cross(x, x), lambda: [one.value for one in cross.trainable_weights]


def _tfrs(kind: str, fields: int, width: int) -> Layer:
    import tensorflow_recommenders as tfrs

    if kind == "dot":
        return tfrs.layers.feature_interaction.DotInteraction(), list
    cross = tfrs.layers.dcn.Cross()
    return lambda x: cross(x, x), lambda: cross.trainable_weights


LIBRARIES = {"tfctr": _tfctr, "keras-rs": _keras_rs, "TFRS": _tfrs}


def prepare(task: dict[str, Any]) -> Side:
    tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
    batch, fields, width, kind = task["batch"], task["fields"], task["width"], task["layer"]
    call, weights = LIBRARIES[task["library"]](kind, fields, width)
    drawn = np.random.default_rng(1).normal(size=(batch, fields, width)).astype("float32")
    x = tf.constant(drawn.reshape(batch, -1) if kind == "cross" else drawn)
    # Each gets fields as its model has them: ours one tensor, theirs one a field.
    given = tf.unstack(x, axis=1) if kind == "dot" and task["library"] != "tfctr" else x
    call(given)

    @tf.function(autograph=False, jit_compile=task["jit"])
    def both(inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(inputs)
        return tape.gradient(outputs, [*tf.nest.flatten(inputs), *weights()], output_gradients=outputs)

    left, right = tf.random.normal([PRODUCT, PRODUCT]), tf.random.normal([PRODUCT, PRODUCT])
    return Side(lambda: both(given)[0][0].numpy(), lambda: tf.linalg.matmul(left, right).numpy(), {})


if __name__ == "__main__":
    serve(prepare)
