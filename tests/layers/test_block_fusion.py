from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.layer_checks import check_layer
from tfctr.layers.block_fusion import AttentionFusion, GatePooling, MlpFusion

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")


def test_attention_by_hand() -> None:
    # With one token in each block every softmax is over one number, so a block gets the values of the others unchanged.
    layer = AttentionFusion()
    blocks = [np.array([[[value]]], "float32") for value in (1.0, 2.0, 4.0)]
    layer(blocks)
    layer.projections[0].kernel.assign([[7.0, -7.0, 3.0]])  # values 3, 6, 12
    for cross in layer.crosses:
        cross.kernel.assign([[1.0], [-0.5]])
        cross.bias.assign([1.0])
    # relu(6 - 6 + 1) + 3 = 4;  relu(3 - 6 + 1) + 6 = 6;  relu(3 - 3 + 1) + 12 = 13
    layer.fuse.kernel.assign([[1.0], [2.0], [-1.0]])
    layer.fuse.bias.assign([0.5])
    np.testing.assert_allclose(layer(blocks), [[[3.5]]])
    pooling = AttentionFusion(self_attention=False)
    pooling(blocks)
    pooling.set_weights(layer.get_weights())
    # Without a block's own values the results are 1, 0 and 1.
    np.testing.assert_allclose(pooling(blocks), [[[0.5]]])


def test_gate_pooling_starts_as_half_the_sum() -> None:
    blocks = [X, 2 * X, -X]
    layer = GatePooling()
    np.testing.assert_allclose(layer(blocks), X, rtol=1e-5, atol=1e-6)
    layer.gates.assign(np.stack([np.full((3, 5), gate) for gate in (-100.0, 100.0, -100.0)]))
    np.testing.assert_allclose(layer(blocks), 2 * X, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100.0), st.integers(0, 2**32 - 1))
def test_attention_weights_sum_to_one_in_every_block(scale: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    layer = AttentionFusion()
    layer.build([(2, 4, 5)] * 3)
    query, keys = (generator.normal(0.0, scale, (2, 12, 5)).astype("float32") for _ in range(2))
    weights = ops.convert_to_numpy(layer.attention(query, keys))
    assert weights.shape == (2, 12, 3, 4)
    assert weights.min() >= 0.0
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.booleans(), st.integers(0, 2**32 - 1))
def test_attention_follows_the_order_of_tokens(self_attention: bool, seed: int) -> None:
    # The tokens at the same place of all blocks are fused with each other, so all blocks are reordered alike.
    generator = np.random.default_rng(seed)
    blocks = [generator.normal(size=(2, 4, 5)).astype("float32") for _ in range(3)]
    order = generator.permutation(4)
    layer = AttentionFusion(layers=2, self_attention=self_attention)
    plain = ops.convert_to_numpy(layer(blocks))
    np.testing.assert_allclose(layer([block[:, order] for block in blocks]), plain[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("layer", "count"),
    [(AttentionFusion(layers=2), 3), (AttentionFusion(self_attention=False), 2), (MlpFusion(), 3), (GatePooling(), 2)],
    ids=lambda one: getattr(one, "name", one),
)
def test_fusion(layer: Any, count: int) -> None:
    check_layer(layer, [X, 0.5 - X, 2 * X][:count], output_shape=X.shape)


def test_float32_under_half_precision_where_it_matters() -> None:
    layer = AttentionFusion(dtype="mixed_bfloat16")
    layer.build([(2, 4, 5)] * 2)
    scores = ops.cast(np.full((2, 8, 5), 3.0, "float32"), "bfloat16")
    weights = layer.attention(scores, scores)
    assert keras.backend.standardize_dtype(weights.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(weights, "float32")), np.full((2, 8, 2, 4), 0.25))


def test_mlp_fusion_by_hand() -> None:
    layer = MlpFusion()
    blocks = [np.array([[[value]]], "float32") for value in (1.0, 2.0, 4.0)]
    layer(blocks)
    first, second = layer.block.dense
    first.kernel.assign([[1.0], [3.0], [-1.0]])
    first.bias.assign([0.5])
    second.kernel.assign([[2.0]])
    second.bias.assign([-1.0])
    # relu(1 + 6 - 4 + .5) = 3.5;  relu(7 - 1) = 6
    np.testing.assert_allclose(layer(blocks), [[[6.0]]])
    second.bias.assign([-8.0])
    np.testing.assert_allclose(layer(blocks), [[[0.0]]])


@pytest.mark.parametrize("kind", [AttentionFusion, GatePooling, MlpFusion])
def test_blocks_must_be_several_and_alike(kind: Any) -> None:
    for blocks in ([X], [X, X[..., :2, :]]):
        with pytest.raises(ValueError, match="at least two blocks of one shape"):
            kind()(blocks)
