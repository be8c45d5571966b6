"""Whether gradients are kept, and are those that they were."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import BACKEND, gradients
from tfctr.interactions.dlf import Dlf
from tfctr.layers.fused import keep_gradient


def _elementwise(model: Dlf) -> int:
    """The numbers that XLA's program for the gradients of a model adds, subtracts and multiplies."""
    import tensorflow as tf

    model.build((8, 5, 4))

    @tf.function(jit_compile=True)
    def step(fields: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = ops.sum(ops.square(model(fields)))
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])  # type: ignore[no-any-return]

    program = step.experimental_get_compiler_ir(tf.zeros((8, 5, 4)))(stage="optimized_hlo")
    sizes = re.findall(r" = f32\[([\d,]+)\]\S* (?:add|subtract|multiply)\(", program)
    return sum(int(np.prod([int(axis) for axis in size.split(",")])) for size in sizes)


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kept_gradient_is_the_gradient(dtype: str) -> None:
    x, scale = (ops.cast(keras.random.normal((2, 3, 5), seed=seed), dtype) for seed in (1, 2))
    kept, (gradient, _), _ = gradients(
        lambda both: (ops.sum(keep_gradient(both[0]) * both[1]), keep_gradient(both[0])), [x, scale]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), ops.convert_to_numpy(scale))
    np.testing.assert_array_equal(ops.convert_to_numpy(kept[1]), ops.convert_to_numpy(x))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="reads the program that XLA makes for TensorFlow")
def test_the_gradient_of_a_deep_model_is_computed_once() -> None:
    shallow, deep = (_elementwise(Dlf(layers=layers)) for layers in (3, 12))
    # Four times the layers have about four times the work, and had eleven times before gradients were kept.
    assert deep < 5 * shallow
