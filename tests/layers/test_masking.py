import numpy as np
import pytest
from keras import ops

from tfctr.layers.masking import length_mask, masked_softmax, merge_heads, split_heads, zero_padding


def test_length_mask() -> None:
    expected = [[False, False, False], [True, False, False], [True, True, True], [True, True, True]]
    np.testing.assert_array_equal(length_mask(ops.array([0, 1, 3, 9]), 3), expected)


def test_zero_padding_drops_nan() -> None:
    x = ops.array([[[1.0, 2.0], [np.nan, np.inf]]])
    np.testing.assert_array_equal(zero_padding(x, ops.array([[True, False]])), [[[1.0, 2.0], [0.0, 0.0]]])
    rows = zero_padding(ops.array([[4, 5]], dtype="int32"), ops.array([[True, False]]))
    np.testing.assert_array_equal(rows, [[4, 0]])


def test_masked_softmax() -> None:
    scores = ops.array([[0.0, np.log(3.0), 50.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    mask = ops.array([[True, True, False], [False, False, False], [True, False, False]])
    np.testing.assert_allclose(masked_softmax(scores, mask), [[0.25, 0.75, 0.0], [0, 0, 0], [1, 0, 0]], atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_masked_softmax_of_one_step() -> None:
    np.testing.assert_array_equal(
        masked_softmax(ops.array([[3.0], [np.nan]]), ops.array([[True], [False]])), [[1], [0]]
    )


def test_masked_softmax_is_float32() -> None:
    weights = masked_softmax(ops.ones((1, 3), dtype="bfloat16"), ops.ones((1, 3), dtype="bool"))
    assert weights.dtype == "float32"


def test_heads() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    heads = ops.convert_to_numpy(split_heads(ops.array(x), 2))
    assert heads.shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(heads[1, 1, 2], x[1, 2, 2:])
    np.testing.assert_array_equal(merge_heads(ops.array(heads)), x)
