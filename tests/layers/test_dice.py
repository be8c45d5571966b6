import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import randomize
from tests.layer_checks import check_layer
from tfctr.layers.dice import Dice


@pytest.mark.any_backend
def test_layer_checks() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32")
    mask = np.array([[True, True, False]] * 4)
    check_layer(Dice(), x, call_arguments={"mask": mask}, output_shape=[4, 3, 5])


def test_by_hand() -> None:
    """At the mean, p is one half; three standard deviations above the mean, p is sigmoid(3)."""
    layer = Dice(epsilon=1e-9)
    layer.build((None, 2))
    layer.alpha.assign([0.0, 0.5])
    layer.normalization.moving_mean.assign([1.0, -2.0])
    layer.normalization.moving_variance.assign([4.0, 1.0])
    high = 1.0 / (1.0 + np.exp(-3.0))
    expected = [[0.5 * 1.0, 0.5 * -2.0 + 0.5 * 0.5 * -2.0], [high * 7.0, (high + (1 - high) * 0.5) * 1.0]]
    np.testing.assert_allclose(layer(ops.array([[1.0, -2.0], [7.0, 1.0]])), expected, rtol=1e-6)


def test_statistics_of_real_rows_only() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    masked, alone = randomize(Dice()), randomize(Dice())
    for layer in (masked, alone):
        layer.build((None, 3))
    output = ops.convert_to_numpy(masked(x, mask=mask, training=True))
    np.testing.assert_allclose(output[mask], alone(x[mask], training=True), rtol=1e-5, atol=1e-6)
    for one, other in zip(masked.weights, alone.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_output_dtype(dtype: str) -> None:
    layer = Dice(dtype=dtype)
    assert layer(np.ones((2, 3), "float32")).dtype == layer.compute_dtype
