import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import BACKEND
from tests.layer_checks import check_layer
from tfctr.layers.dropout import Dropout

N, M = 2000, 300


def _zeros(layer: Dropout, shape: tuple[int, ...] = (N, M)) -> np.ndarray:
    return ops.convert_to_numpy(layer(np.ones(shape, "float32"), training=True)) == 0


@pytest.mark.any_backend
def test_layer() -> None:
    check_layer(Dropout(0.3), np.ones((6, 3, 4), "float32"), output_shape=(6, 3, 4))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.001])
def test_share_of_zeros_and_scale_of_the_rest(rate: float) -> None:
    found = ops.convert_to_numpy(Dropout(rate, seed=1)(np.ones((N, M), "float32"), training=True))
    np.testing.assert_allclose(found[found != 0], 1 / (1 - rate), rtol=1e-6)
    # Five standard deviations of a share of 600,000 draws.
    assert (found == 0).mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / (N * M)) ** 0.5)


def test_nothing_is_dropped_outside_training_or_at_rate_zero() -> None:
    x = np.ones((4, 3), "float32")
    np.testing.assert_array_equal(Dropout(0.5)(x), x)
    np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)
    assert not Dropout(0.0).variables


def test_a_dropped_number_may_be_no_number() -> None:
    found = ops.convert_to_numpy(Dropout(0.5, seed=1)(np.full((8, 8), np.nan, "float32"), training=True))
    assert 0 < (found == 0).sum() < 64


def test_zeros_are_those_of_the_seed() -> None:
    first, again, other = Dropout(0.5, seed=1), Dropout(0.5, seed=1), Dropout(0.5, seed=2)
    for _ in range(2):
        zeros = _zeros(first)
        np.testing.assert_array_equal(zeros, _zeros(again))
        assert (zeros == _zeros(other)).mean() == pytest.approx(0.5, abs=0.004)


def test_zeros_are_independent_of_each_other() -> None:
    """Correlations of neighbours, rows, columns, draws and seeds are those of independent numbers."""
    layer = Dropout(0.2, seed=7)
    draws = [_zeros(layer).astype(float) - 0.2 for _ in range(4)] + [_zeros(Dropout(0.2, seed=8)).astype(float) - 0.2]
    one = draws[0]
    pairs = [(one, other) for other in draws[1:]]
    pairs += [(one[:-lag], one[lag:]) for lag in (1, 2, 3, 64, 512)]
    pairs += [(one[:, :-lag], one[:, lag:]) for lag in (1, 2, 4, 8, 16, 150)]
    # A draw is no rearrangement of the one before, either.
    both_ways = [draws[:2], draws[1::-1]]
    pairs += [(a.ravel()[:-lag], b.ravel()[lag:]) for a, b in both_ways for lag in (1, 2, M)]
    for first, second in pairs:
        correlation = (first * second).mean() / 0.16
        assert abs(correlation) < 5 / first.size**0.5
    for axis in (0, 1):
        shares = one.mean(axis)
        expected = 0.16 / one.shape[axis]
        # The variance of m shares has a relative standard deviation of sqrt(2 / m).
        assert shares.var() / expected == pytest.approx(1.0, abs=5 * (2 / len(shares)) ** 0.5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the forms of TensorFlow")
def test_every_form_draws_the_same_zeros() -> None:
    import tensorflow as tf

    x = np.ones((64, 32), "float32")
    expected = _zeros(Dropout(0.5, seed=3), x.shape)
    for jit in (False, True):
        layer = Dropout(0.5, seed=3)
        signature = [tf.TensorSpec((None, 32))]
        form = tf.function(lambda x, layer=layer: layer(x, training=True), signature, jit_compile=jit, autograph=False)
        np.testing.assert_array_equal(form(x) == 0, expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`rate` must be .* Received: 1"):
        Dropout(1.0)


def test_half_precision() -> None:
    y = Dropout(0.5, dtype="mixed_bfloat16")(keras.ops.ones((4, 4)), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
