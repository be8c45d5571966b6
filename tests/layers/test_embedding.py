"""The look-up that reads rows, not tables."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import BACKEND
from tests.layer_checks import check_layer
from tfctr.layers.embedding import Embedding

IDS = np.array([[0, 3, 3], [2, 1, 0]], np.int32)


@pytest.mark.any_backend
def test_is_a_layer_like_any_other() -> None:
    check_layer(Embedding(5, 4), IDS, output_shape=(2, 3, 4))


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_equals_that_of_keras(dtype: str) -> None:
    layers = [made(5, 4, dtype=dtype) for made in (Embedding, keras.layers.Embedding)]
    for layer in layers:
        layer.build()
    layers[0].set_weights(layers[1].get_weights())
    own, wanted = (layer(IDS) for layer in layers)
    assert own.dtype == wanted.dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(own, "float32")), ops.cast(wanted, "float32"))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has gradients of rows")
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_neither_reads_nor_differentiates_the_table(dtype: str) -> None:
    import tensorflow as tf

    layer = Embedding(5, 4, dtype=dtype)
    layer.build()

    @tf.function
    def step(ids: tf.Tensor) -> tf.IndexedSlices:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids))
        return tape.gradient(loss, layer.trainable_weights[0].value)

    assert isinstance(step(tf.constant(IDS)), tf.IndexedSlices)
    operations = {one.type for one in step.get_concrete_function(tf.constant(IDS)).graph.get_operations()}
    assert "ResourceGather" in operations
    assert "ReadVariableOp" not in operations
