from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tfctr.interests import LinearAttention


def features(x: Any) -> np.ndarray:
    return np.where(x > 0, x + 1.0, np.exp(np.minimum(x, 0.0)))


def test_by_hand() -> None:
    """One head, identities for all matrices: the weights are phi(q) phi(k)^T."""
    layer = LinearAttention(num_heads=1)
    layer.build({"sequence": {"events": (None, None, 2)}})
    for dense in (layer.query, layer.key, layer.value, layer.output_dense):
        dense.kernel.assign(np.eye(2))
    # phi(1, 0) = (2, 1), phi(0, 1) = (1, 2), and the target's phi(2, 0) = (3, 1): the weights are 7 and 5.
    inputs = {
        "sequence": {"events": ops.array([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]), "length": ops.array([2])},
        "candidate": {"target": ops.array([[[2.0, 0.0]]])},
    }
    np.testing.assert_allclose(layer(inputs), [[[7 / 12, 5 / 12]]], rtol=1e-6)
    state = layer.encode(inputs["sequence"])
    np.testing.assert_allclose(state["mass"], [[[1.5, 1.5]]])
    np.testing.assert_allclose(state["memory"], [[[[1.0, 0.5], [0.5, 1.0]]]])


@pytest.mark.any_backend
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_the_attention_that_weighs_each_event(heads: int) -> None:
    """Equation 4: sum_i phi(q) phi(k_i)^T v_i / sum_i phi(q) phi(k_i)^T, with a weight for every event."""
    layer = LinearAttention(num_heads=heads, attention_dim=12)
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    randomize(layer)
    inputs = make_inputs(lengths=[7, 4, 1])
    query, key, value = (
        np.stack(np.split(x @ ops.convert_to_numpy(dense.kernel), heads, axis=-1), axis=1)
        for x, dense in (
            (inputs["candidate"]["target"], layer.query),
            (inputs["sequence"]["events"], layer.key),
            (inputs["sequence"]["events"], layer.value),
        )
    )
    real = np.arange(7) < inputs["sequence"]["length"][:, None]
    weights = np.einsum("bhcd,bhld->bhcl", features(query), features(key)) * real[:, None, None]
    pooled = np.einsum("bhcl,bhld->bchd", weights / weights.sum(axis=-1, keepdims=True), value).reshape(3, 5, 12)
    expected = pooled @ ops.convert_to_numpy(layer.output_dense.kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(tensors(inputs))), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 50, 5_000])
def test_the_state_does_not_grow(length: int) -> None:
    """d (d_h + 1) numbers, small enough for half precision whatever the length: the sums are means."""
    layer = LinearAttention(num_heads=2)
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    state = layer.encode(tensors(make_inputs(batch=1, length=length)["sequence"]))
    assert sum(int(np.prod(tensor.shape[1:])) for tensor in state.values()) == WIDTH * (WIDTH // 2 + 1)
    assert max(float(np.max(np.abs(tensor))) for tensor in state.values()) < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "`num_heads` must be a positive whole number"),
        ({"attention_dim": 9}, "`attention_dim` must be a multiple of `num_heads`, 4"),
        ({"output_projection": "no"}, "`output_projection` must be true or false"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearAttention(**arguments)
