from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tests.backends import gradients
from tfctr.layers.similarity import (
    block_diagonal,
    bucket_lookup,
    bucket_sum,
    cosine_similarity,
    embed_buckets,
    pool_buckets,
    score_buckets,
    similarity_buckets,
    soft_similarity_buckets,
)


def positions(values: Any, bins: int, missing: Any = None) -> np.ndarray:
    return ops.convert_to_numpy(soft_similarity_buckets(ops.array(values, dtype="float32"), bins, missing))


def shares(position: np.ndarray, size: int) -> np.ndarray:
    """The share of each bucket at a soft position: 1 at a distance of 0, falling linearly to 0 at a distance of 1."""
    return np.maximum(1.0 - np.abs(position[..., None] - np.arange(size)), 0.0)


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


def test_soft_positions_by_hand() -> None:
    """Four buckets have their centres at -0.75, -0.25, 0.25 and 0.75; beyond the outermost the position is constant."""
    found = positions([-1.0, -0.75, -0.5, 0.0, 0.125, 0.25, 0.75, 1.0, 3.0, -np.inf, np.nan], 4)
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.5, 1.75, 2.0, 3.0, 3.0, 3.0, 0.0, 4.0], atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(positions([0.1, 0.9], 4, ops.array([True, False]))[0], 4.0)
    np.testing.assert_array_equal(positions([-1.0, 0.3, np.nan], 1), [0.0, 0.0, 1.0])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    values=hnp.arrays("float32", (1, 2, 3), elements=st.floats(-1.0, 1.0, width=32)),
    missing=hnp.arrays(bool, (1, 2, 3)),
    bins=st.integers(1, 60),
)
def test_shares_sum_to_one_and_missing_keeps_its_own(values: np.ndarray, missing: np.ndarray, bins: int) -> None:
    found = ops.array(positions(values, bins, ops.array(missing)))
    ones = ops.ones((1, 1, 2, 3))
    np.testing.assert_allclose(ops.sum(bucket_sum(ones, found, bins + 1), axis=-1), [[[3.0], [3.0]]], rtol=1e-6)
    # The same holds for each event alone.
    for i in range(3):
        one = ops.convert_to_numpy(bucket_sum(ones[..., i : i + 1], found[..., i : i + 1], bins + 1))[0, :, 0]
        assert (one >= 0.0).all()
        np.testing.assert_allclose(one.sum(axis=-1), 1.0, rtol=1e-6)
        assert ((one > 0.0).sum(axis=-1) <= 2).all(), "only neighbours share"
        np.testing.assert_array_equal(one[:, -1], missing[0, :, i].astype("float32"))


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-1.0, 1.0, width=32), step=st.floats(0.0, 0.125, width=32), bins=st.integers(1, 40))
def test_soft_look_up_is_continuous(low: float, step: float, bins: int) -> None:
    """The slope is at most the largest difference of neighbouring rows over the width of a bucket."""
    values = np.random.default_rng(bins).normal(size=bins + 1).astype("float32")
    table = ops.reshape(ops.array(values), (1, 1, bins + 1, 1))
    found = ops.array(positions([[[low, min(low + step, 1.0)]]], bins))
    first, second = ops.convert_to_numpy(bucket_lookup(table, found)).ravel()
    steepest = np.abs(np.diff(values[:-1])).max(initial=0.0) * bins / 2.0
    assert abs(second - first) <= steepest * step + 1e-4


@pytest.mark.parametrize("bins", [1, 2, 7, 40])
def test_soft_is_hard_at_the_centres(bins: int) -> None:
    centres = (np.arange(bins) + 0.5) * 2.0 / bins - 1.0
    np.testing.assert_allclose(positions(centres, bins), buckets(centres.tolist(), bins), atol=1e-4)


def test_soft_sum_look_up_and_embedding_are_products_with_the_shares() -> None:
    generator = np.random.default_rng(0)
    similarity = generator.uniform(-1.1, 1.1, (2, 4, 5)).astype("float32")
    missing = generator.random((2, 4, 5)) < 0.3
    position = positions(similarity, 6, ops.array(missing))
    hats, found = shares(position, 7), ops.array(position)
    weights = generator.normal(size=(2, 3, 4, 5)).astype("float32")
    np.testing.assert_allclose(
        bucket_sum(ops.array(weights), found, 7), np.einsum("bhcl,bcln->bchn", weights, hats), atol=1e-5
    )
    values = generator.normal(size=(2, 4, 7, 3)).astype("float32")
    np.testing.assert_allclose(
        bucket_lookup(ops.array(values), found), np.einsum("bcnh,bcln->bhcl", values, hats), atol=1e-5
    )
    table = generator.normal(size=(7, 2)).astype("float32")
    np.testing.assert_allclose(embed_buckets(ops.array(table), found), hats @ table, atol=1e-5)
    hard = ops.array(similarity_buckets(ops.array(similarity), 6, ops.array(missing)))
    np.testing.assert_array_equal(embed_buckets(ops.array(table), hard), table[ops.convert_to_numpy(hard)])


def test_no_gradient_passes_soft_buckets() -> None:
    table = ops.reshape(ops.array([1.0, 5.0, 2.0]), (1, 1, 3, 1))

    def total(similarity: Any) -> Any:
        return ops.sum(bucket_lookup(table, soft_similarity_buckets(similarity, 2)))

    _, (gradient,), _ = gradients(total, ops.array([[[0.1, 0.2]]], "float32"))
    assert gradient is None or not np.any(gradient)


def test_unused_rows_may_hold_anything_but_the_missing_one_is_not_mixed_in() -> None:
    """A similarity of 1 belongs to the last bucket alone; the next row, for missing vectors, must not be mixed in."""
    table = ops.array([[1.0], [2.0], [np.nan]])
    np.testing.assert_array_equal(embed_buckets(table, ops.array(positions([[[1.0, -1.0]]], 2))), [[[[2.0], [1.0]]]])


def test_scores_and_sums_of_heads() -> None:
    generator = np.random.default_rng(0)
    query, table = generator.normal(size=(2, 3, 6)).astype("float32"), generator.normal(size=(5, 6)).astype("float32")
    by_head = table.reshape(5, 2, 3)
    np.testing.assert_allclose(
        score_buckets(ops.array(query), ops.array(table), 2),
        np.einsum("bche,nhe->bcnh", query.reshape(2, 3, 2, 3), by_head),
        atol=1e-5,
    )
    histogram = generator.normal(size=(2, 3, 2, 5)).astype("float32")
    np.testing.assert_allclose(
        pool_buckets(ops.array(histogram), ops.array(table)),
        np.einsum("bchn,nhe->bche", histogram, by_head).reshape(2, 3, 6),
        atol=1e-5,
    )
