import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.golden_cases import check, load
from tests.layer_checks import check_layer
from tfctr.layers.normalization import BatchNormalization, LayerNormalization


def _weights(layer: BatchNormalization) -> dict[str, keras.Variable]:
    return {f"bn/{name}": getattr(layer, name) for name in ("gamma", "beta", "moving_mean", "moving_variance")}


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "axis"),
    [("trap_batchnorm_train", -1), ("trap_batchnorm_eval_small_variance", -1), ("trap_batchnorm_axis1_train", 1)],
)
def test_golden(name: str, axis: int) -> None:
    case = load(name)
    training = case.entry["mode"] == "train"
    layer = BatchNormalization(axis=axis)
    layer.build(case["in/x"].shape)
    after = {"moving_mean_after": layer.moving_mean, "moving_variance_after": layer.moving_variance}
    check(case, lambda inputs: {"y": layer(inputs["x"], training=training)}, _weights(layer), after=after)


def test_by_hand() -> None:
    layer = BatchNormalization(epsilon=1e-12)
    y = layer(np.array([[1.0], [2.0], [6.0]], "float32"), training=True)
    # mean 3, biased variance 14/3, unbiased 7
    np.testing.assert_allclose(ops.convert_to_numpy(y)[:, 0], np.array([-2, -1, 3]) / np.sqrt(14 / 3), rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.moving_mean), [0.3], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.moving_variance), [0.9 + 0.7], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_mask_equals_valid_rows(batch: int, candidates: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(2.0, 3.0, (batch, candidates, 3)).astype("float32")
    mask = generator.random((batch, candidates)) < 0.6
    poisoned = np.where(mask[..., None], x, np.nan).astype("float32")
    masked, plain = BatchNormalization(), BatchNormalization()
    y = ops.convert_to_numpy(masked(poisoned, mask=mask, training=True))
    if mask.any():
        expected = ops.convert_to_numpy(plain(x[mask], training=True))
        np.testing.assert_allclose(y[mask], expected, rtol=1e-4, atol=1e-5)
        for name in ("moving_mean", "moving_variance"):
            np.testing.assert_allclose(getattr(masked, name), getattr(plain, name), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(masked.moving_mean, np.zeros(3))
        np.testing.assert_array_equal(masked.moving_variance, np.ones(3))


def test_mask_of_fewer_axes() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype("float32")
    mask = np.array([True, False, True, True])
    few, full = BatchNormalization(), BatchNormalization()
    few(x, mask=mask, training=True)
    full(x, mask=np.broadcast_to(mask[:, None, None], x.shape[:3]), training=True)
    np.testing.assert_allclose(few.moving_variance, full.moving_variance, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_leave_the_moving_statistics(rows: int) -> None:
    layer = BatchNormalization()
    y = layer(np.ones((3, 2), "float32"), mask=np.arange(3) < rows, training=True)
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(2))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(2))


def test_statistics_are_float32_under_mixed_precision() -> None:
    x = np.random.default_rng(0).normal(100.0, 0.5, (512, 2)).astype("float32")
    layer = BatchNormalization(dtype="mixed_bfloat16")
    y = layer(x, training=True)
    assert y.dtype == "bfloat16"
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(x, "bfloat16"), "float32"))
    np.testing.assert_allclose(layer.moving_mean, 0.1 * rounded.mean(0), rtol=1e-6)


def test_frozen_layer_uses_moving_statistics() -> None:
    layer = BatchNormalization(trainable=False)
    x = np.array([[3.0], [5.0]], "float32")
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1 + 1e-5), rtol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, {"axis": 1, "momentum": 0.5}])
def test_layer(options: dict[str, object]) -> None:
    x = np.random.default_rng(1).normal(size=(6, 3, 4)).astype("float32")
    check_layer(BatchNormalization(**options), x, output_shape=(6, 3, 4))
    if "axis" not in options:
        check_layer(BatchNormalization(**options), x, call_arguments={"mask": x[..., 0] > -1}, output_shape=(6, 3, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`momentum` must be .* Received: 2"):
        BatchNormalization(momentum=2)
    with pytest.raises(ValueError, match="`epsilon` must be"):
        BatchNormalization(epsilon=0)
    with pytest.raises(ValueError, match="known size"):
        BatchNormalization().build((None, None))
    with pytest.raises(ValueError, match="`mask` must have"):
        BatchNormalization()(np.ones((2, 3), "float32"), mask=np.ones((2, 3, 1), bool), training=True)


@pytest.mark.golden
def test_golden_layer_normalization() -> None:
    case = load("trap_layernorm_small_variance")
    layer = LayerNormalization()
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"])}, {"norm/gamma": layer.gamma, "norm/beta": layer.beta})


def test_layer_normalization_of_nearly_equal_elements() -> None:
    # The deviations are 1e-4 and the elements 1, as cosines of small angles are. The variance is 1e-8.
    x = 1.0 + 1e-4 * np.array([[-1.0, 1.0, -1.0, 1.0]])
    y = LayerNormalization(epsilon=1e-8)(x.astype("float32"))
    np.testing.assert_allclose(y, [[-(0.5**0.5), 0.5**0.5] * 2], rtol=1e-3)


@pytest.mark.any_backend
def test_layer_normalization() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4, 5)).astype("float32")
    y = check_layer(LayerNormalization(), x, output_shape=(6, 4, 5))
    np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-6)
