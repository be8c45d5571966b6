import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import BACKEND
from tests.layer_checks import check_layer
from tfctr.layers.tokens import TokenMap, TokenProducts, as_tokens, as_vector, contract

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")


def test_map_by_hand() -> None:
    layer = TokenMap(3)
    layer.build((None, 2, 2))
    layer.kernel.assign([[1.0, 0.0, 2.0], [0.0, -1.0, 0.5]])
    x = np.array([[[1.0, 2.0], [4.0, -2.0]]], "float32")
    np.testing.assert_allclose(layer(x), [[[1.0, 2.0], [-4.0, 2.0], [4.0, 3.0]]])


def test_products_by_hand() -> None:
    layer = TokenProducts(rank=1)
    layer.build((None, 2, 2), (None, 3, 2))
    layer.projection.assign([[1.0], [-2.0]])
    x = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")
    base = np.array([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]], "float32")
    # X^T Y = [1 - 6, 2 + 2] = [-5, 4]
    np.testing.assert_allclose(layer(x, base), [[[-5.0], [4.0], [-2.0]]])
    np.testing.assert_allclose(layer(x), [[[3.0], [-19.0]]])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_products_are_linear_in_each_factor(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b, c = (generator.normal(size=(2, 4, 5)).astype("float32") for _ in range(3))
    layer = TokenProducts(rank=3)
    np.testing.assert_allclose(layer(a, b + 2 * c), layer(a, b) + 2 * layer(a, c), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer(b + 2 * c, a), layer(b, a) + 2 * layer(c, a), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer(3 * a), 9 * layer(a), rtol=1e-3, atol=1e-3)


def test_vectors_and_tokens_go_row_after_row() -> None:
    x = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(as_vector(x), np.arange(12.0).reshape(2, 6))
    np.testing.assert_array_equal(as_tokens(as_vector(x), 3, 2), x)


def test_start_values_of_the_token_matrices() -> None:
    # The values are drawn from U(-sqrt(6 / n), sqrt(6 / n)), where n is the size of the second axis.
    layer = TokenMap(24)
    layer.build((None, 100, 4))
    kernel = ops.convert_to_numpy(layer.kernel)
    assert 0.47 < np.abs(kernel).max() <= 0.5
    assert kernel.std() == pytest.approx(1.0 / np.sqrt(12), rel=0.05)


@pytest.mark.any_backend
def test_layers() -> None:
    check_layer(TokenMap(4), X, output_shape=(6, 4, 4, 5))
    check_layer(TokenProducts(7), X, output_shape=(6, 4, 3, 7))
    check_layer(TokenProducts(7), X, call_arguments={"base": X[..., :2, :]}, output_shape=(6, 4, 2, 7))


def test_the_axes_must_be_known() -> None:
    for layer in (TokenMap(2), TokenProducts(2)):
        with pytest.raises(ValueError, match="The axes of tokens and of their width must be known"):
            layer.build((None, None, 4))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("equation", "inputs", "kernel"), [("fd,fdw->fw", (7, 4), (7, 4, 3)), ("d,md->m", (4,), (2, 4))]
)
@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_contract_is_the_einsum_of_each_element(
    equation: str, inputs: tuple[int, ...], kernel: tuple[int, ...], leading: tuple[int, ...]
) -> None:
    x, weight = (np.random.default_rng(4).normal(size=size) for size in ((*leading, *inputs), kernel))
    ends, result = equation.split("->")
    expected = np.einsum(f"...{ends}->...{result}", x, weight)
    found = contract(equation, x.astype("float32"), ops.convert_to_tensor(weight, "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="reads the program that XLA makes for TensorFlow")
@pytest.mark.parametrize("contracted", [True, False])
def test_the_gradient_of_a_shared_weight_is_not_made_row_by_row(contracted: bool) -> None:
    import tensorflow as tf

    x, weight = tf.random.normal((11, 2, 7, 4)), tf.random.normal((7, 4, 3))

    @tf.function(jit_compile=True)
    def gradient(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(weight)
            product = contract("fd,fdw->fw", x, weight) if contracted else ops.einsum("...fd,fdw->...fw", x, weight)
            loss = ops.sum(ops.square(product))
        return tape.gradient(loss, weight)

    program = gradient.experimental_get_compiler_ir(x, weight)(stage="optimized_hlo")
    sizes = [np.prod([int(axis) for axis in shape.split(",")]) for shape in re.findall(r"f32\[([\d,]+)\]", program)]
    # One gradient of the weight is 84 numbers, and one for each row 1,848.
    assert (max(sizes) >= 11 * 2 * weight.shape.num_elements()) is not contracted
