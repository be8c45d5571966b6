"""The cross network and the pairwise products against the layers of TensorFlow Recommenders and keras-rs."""

from __future__ import annotations

from typing import Any

import keras_rs
import numpy as np
import pytest
from keras import ops

from tests.backends import arrays, gradients, tensors
from tests.golden_cases import assert_close
from tests.tfrs_layers import answers
from tfctr.interactions import CrossNet
from tfctr.layers.pairwise import pairwise_products

RTOL = 1e-5
LAYERS, BATCH, FIELDS, WIDTH = 3, 6, 4, 5
DRAW = np.random.default_rng(11)


def _draw(*shape: int) -> np.ndarray[Any, Any]:
    return DRAW.normal(size=shape).astype("float32")


X = _draw(BATCH, FIELDS, WIDTH)
KERNELS, BIASES = _draw(LAYERS, FIELDS * WIDTH, FIELDS * WIDTH) / 4, _draw(LAYERS, FIELDS * WIDTH)
CROSSED_BY, DOTS_BY = _draw(BATCH, FIELDS * WIDTH), _draw(BATCH, FIELDS * (FIELDS - 1) // 2)
# The layers of both libraries list the dot products by rows of the lower triangle; ours go by rows of the upper one.
LOWER = list(zip(*np.tril_indices(FIELDS, -1), strict=True))
UPPER_OF_LOWER = [LOWER.index((j, i)) for i, j in zip(*np.triu_indices(FIELDS, 1), strict=True)]


@pytest.fixture(scope="module")
def tfrs() -> dict[str, Any]:
    return answers(x=X, kernels=KERNELS, biases=BIASES, crossed_by=CROSSED_BY, dots_by=DOTS_BY)


@pytest.mark.slow
def test_the_cross_network_is_a_stack_of_their_cross_layers(tfrs: dict[str, Any]) -> None:
    layer = CrossNet(layers=LAYERS)
    layer.build((None, FIELDS * WIDTH))
    for cross, kernel, bias in zip(layer.crosses, KERNELS, BIASES, strict=True):
        cross.kernel.assign(kernel)
        cross.bias.assign(bias)

    def total(x: Any) -> tuple[Any, Any]:
        crossed = layer.hidden(x)
        return ops.sum(crossed * CROSSED_BY), crossed

    variables = [weight for cross in layer.crosses for weight in (cross.kernel, cross.bias)]
    (_, crossed), (by_x,), by_weights = gradients(total, tensors(X.reshape(BATCH, -1)), variables)
    assert_close(crossed, tfrs["crossed"], RTOL)
    assert_close(by_x, tfrs["crossed_by_x"], RTOL)
    assert_close(np.stack(arrays(by_weights[::2])), tfrs["crossed_by_kernels"], RTOL)
    assert_close(np.stack(arrays(by_weights[1::2])), tfrs["crossed_by_biases"], RTOL)


@pytest.mark.slow
def test_sums_of_pairwise_products_are_their_dot_products(tfrs: dict[str, Any]) -> None:
    def total(x: Any) -> tuple[Any, Any]:
        dots = ops.sum(pairwise_products(x), axis=-1)
        return ops.sum(dots * DOTS_BY[:, UPPER_OF_LOWER]), dots

    (_, dots), (by_x,), _ = gradients(total, tensors(X))
    assert_close(dots, tfrs["dots"][:, UPPER_OF_LOWER], RTOL)
    assert_close(by_x, tfrs["dots_by_x"], RTOL)


def test_sums_of_pairwise_products_are_the_dot_products_of_keras_rs() -> None:
    reference = keras_rs.layers.DotInteraction()(list(X.transpose(1, 0, 2)))
    dots = ops.sum(pairwise_products(X), axis=-1)
    assert_close(dots, ops.convert_to_numpy(reference)[:, UPPER_OF_LOWER], RTOL)
