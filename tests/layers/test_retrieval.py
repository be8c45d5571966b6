from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import compiled, gradients
from tfctr.layers.retrieval import CODE_BITS, code_signs, gather_steps, sign_codes, top_steps


def test_top_steps_by_hand() -> None:
    scores = ops.array([[[3.0, -1.0, 9.0, 3.0, -5.0]]])
    mask = ops.array([[[True, True, False, True, True]]])
    best, indices, found = top_steps(scores, mask, 3)
    np.testing.assert_array_equal(best, [[[3.0, 3.0, -1.0]]])
    np.testing.assert_array_equal(indices, [[[0, 3, 1]]], "of equal scores the first step comes first")
    np.testing.assert_array_equal(found, [[[True, True, True]]])
    best, indices, found = top_steps(scores, mask, 6)
    np.testing.assert_array_equal(best, [[[3.0, 3.0, -1.0, -5.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(indices, [[[0, 3, 1, 4, 0, 0]]])
    np.testing.assert_array_equal(found, [[[True, True, True, True, False, False]]])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_top_steps_is_a_stable_sort(data: st.DataObject) -> None:
    steps, count = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    scores = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=steps, max_size=steps)), "float32")
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=steps, max_size=steps)))
    best, indices, found = (ops.convert_to_numpy(one) for one in top_steps(ops.array(scores), ops.array(mask), count))
    expected = sorted((i for i in range(steps) if mask[i]), key=lambda i: -scores[i])[:count]
    assert best.shape == indices.shape == found.shape == (count,)
    assert indices[found].tolist() == expected
    assert found.tolist() == [True] * len(expected) + [False] * (count - len(expected))
    np.testing.assert_array_equal(best[found], scores[expected])


def test_the_gradient_of_the_scores() -> None:
    mask = ops.array([True, False, True])

    def loss(scores: Any) -> Any:
        return ops.sum(top_steps(scores[0], mask, 4)[0] * ops.array([10.0, 20.0, 30.0, 40.0]))

    _, (gradient,), _ = gradients(loss, [ops.array([1.0, 5.0, 2.0])])
    np.testing.assert_array_equal(gradient, [20.0, 0.0, 10.0])


def test_gather_steps() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    indices = np.random.default_rng(1).integers(0, 5, (3, 4, 6)).astype("int32")
    expected = np.stack([rows[b][indices[b]] for b in range(3)])
    np.testing.assert_array_equal(gather_steps(ops.array(rows), ops.array(indices)), expected)
    np.testing.assert_array_equal(gather_steps(ops.array(rows), ops.array(indices[:, 0])), expected[:, 0])


def test_codes_by_hand() -> None:
    rotation = ops.array([[[1.0, -1.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]]])  # axes d, groups, bits
    # x = (2, 1): group 0 has 2 and -1, group 1 has 1 and 3.
    np.testing.assert_array_equal(sign_codes(ops.array([[2.0, 1.0], [0.0, 0.0]]), rotation), [[1, 3], [0, 0]])


@pytest.mark.parametrize("jit", [False, True])
def test_signs_undo_codes(jit: bool) -> None:
    """With unit vectors as directions, the bits of the codes are the signs of x, including the highest bit."""
    x = np.random.default_rng(0).normal(size=(3, 4, 2 * CODE_BITS)).astype("float32")
    rotation = ops.array(np.eye(2 * CODE_BITS, dtype="float32").reshape(-1, 2, CODE_BITS))
    signs = compiled(lambda x: code_signs(sign_codes(x, rotation)), jit)(ops.array(x))
    np.testing.assert_array_equal(signs, np.sign(x))
