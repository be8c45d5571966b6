from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tests.backends import gradients
from tfctr.layers.similarity import block_diagonal, bucket_lookup, bucket_sum, cosine_similarity, similarity_buckets


def buckets(values: list[float], bins: int) -> list[int]:
    return ops.convert_to_numpy(similarity_buckets(ops.array(values, dtype="float32"), bins)).tolist()


def test_edges() -> None:
    assert buckets([-1.0, -0.51, -0.5, -0.01, 0.0, 0.49, 0.5, 0.99, 1.0], 4) == [0, 0, 1, 1, 2, 2, 3, 3, 3]


def test_rounding_beyond_one_is_clipped() -> None:
    assert buckets([-1.0000001, 1.0000001, -3.0, 3.0, -np.inf, np.inf], 10) == [0, 9, 0, 9, 0, 9]


def test_nan_is_missing() -> None:
    assert buckets([np.nan, 0.0], 10) == [10, 5]


def test_missing_has_its_own_bucket() -> None:
    similarity = ops.array([[[0.0, 1.0], [-1.0, 0.3]]], dtype="float32")
    missing = ops.array([[[True, False], [False, True]]])
    np.testing.assert_array_equal(similarity_buckets(similarity, 8, missing), [[[8, 7], [0, 8]]])


def test_one_bucket() -> None:
    assert buckets([-1.0, 0.0, 1.0, np.nan], 1) == [0, 0, 0, 1]


@settings(max_examples=200, deadline=None)
@given(value=st.floats(-1.0, 1.0, width=32), bins=st.integers(1, 200))
def test_buckets_are_the_formula(value: float, bins: int) -> None:
    exact = min(int(np.floor((value + 1.0) / 2.0 * bins)), bins - 1)
    (found,) = buckets([value], bins)
    position = (value + 1.0) / 2.0 * bins
    assert found == exact or abs(position - round(position)) < 1e-5 * bins


def test_no_gradient_passes_the_buckets() -> None:
    def total(similarity: Any) -> Any:
        return ops.sum(ops.cast(similarity_buckets(similarity, 5), "float32"))

    _, (gradient,), _ = gradients(total, ops.array([0.1, 0.2], "float32"))
    assert gradient is None or not np.any(gradient)


def test_cosine_by_hand() -> None:
    candidate = ops.array([[[1.0, 0.0], [0.6, 0.8]]], dtype="float32")
    history = ops.array([[[0.0, 1.0], [-1.0, 0.0], [0.8, 0.6]]], dtype="float32")
    np.testing.assert_allclose(
        cosine_similarity(candidate, history), [[[0.0, -1.0, 0.8], [0.8, -0.6, 0.96]]], atol=1e-6
    )


@pytest.mark.parametrize("side", ["candidate", "history"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_vectors_are_refused(side: str, dtype: str) -> None:
    vectors = {
        name: ops.ones((1, 2, 3), dtype=dtype if name == side else "float32") for name in ("candidate", "history")
    }
    with pytest.raises(ValueError, match=f"Frozen {side} vectors must be float32.*{dtype}"):
        cosine_similarity(**vectors)


@st.composite
def weighted(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    batch, heads, candidates, steps, size = (draw(st.integers(1, 4)) for _ in range(5))
    index = draw(hnp.arrays("int32", (batch, candidates, steps), elements=st.integers(0, size - 1)))
    weights = draw(hnp.arrays("float32", (batch, heads, candidates, steps), elements=st.floats(-2, 2, width=16)))
    return weights, index, size


@settings(max_examples=50, deadline=None)
@given(case=weighted())
def test_sum_and_lookup_are_the_one_hot_products(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    weights, index, size = case
    one_hot = np.eye(size, dtype="float32")[index]
    sums = bucket_sum(ops.array(weights), ops.array(index), size)
    expected = np.einsum("bhcl,bcln->bchn", weights, one_hot)
    np.testing.assert_allclose(sums, expected, atol=1e-5)
    shape = (weights.shape[0], weights.shape[2], size, weights.shape[1])
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_array_equal(
        bucket_lookup(ops.array(values), ops.array(index)), np.einsum("bcnh,bcln->bhcl", values, one_hot)
    )


def test_sum_and_lookup_are_adjoint() -> None:
    """Each is the other's gradient."""
    generator = np.random.default_rng(0)
    weights = ops.array(generator.normal(size=(2, 3, 4, 5)).astype("float32"))
    index = ops.array(generator.integers(0, 6, (2, 4, 5)).astype("int32"))
    values = ops.array(generator.normal(size=(2, 4, 6, 3)).astype("float32"))
    summed, (by_weights,), _ = gradients(
        lambda one: ops.sum(bucket_sum(one, index, 6) * ops.einsum("bcnh->bchn", values)), weights
    )
    looked_up, (by_values,), _ = gradients(lambda one: ops.sum(bucket_lookup(one, index) * weights), values)
    np.testing.assert_allclose(summed, looked_up, rtol=1e-5)
    np.testing.assert_allclose(by_weights, bucket_lookup(values, index), rtol=1e-6)
    expected = ops.einsum("bchn->bcnh", bucket_sum(weights, index, 6))
    np.testing.assert_allclose(by_values, expected, rtol=1e-5, atol=1e-6)


def test_block_diagonal() -> None:
    blocks = ops.convert_to_numpy(block_diagonal(ops.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), 2))
    assert blocks.shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(blocks[0, :, :, 0], [[1.0, 5.0], [2.0, 6.0]])
    np.testing.assert_array_equal(blocks[1, :, :, 1], [[3.0, 7.0], [4.0, 8.0]])
    assert not blocks[0, :, :, 1].any()
    assert not blocks[1, :, :, 0].any()
