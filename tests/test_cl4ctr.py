from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.layer_checks import check_layer
from tfctr.errors import UserError
from tfctr.losses import Cl4Ctr, create_auxiliary_loss
from tfctr.losses.cl4ctr import FieldEncoder, alignment, uniformity

X = np.random.default_rng(3).normal(size=(5, 4, 3, 6)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2])[:, None]
SMALL: dict[str, Any] = {"layers": 1, "hidden": 4}


def numpy(x: Any) -> Any:
    return ops.convert_to_numpy(x)


def loss_of(layer: Cl4Ctr, fields: Any, mask: Any = None) -> float:
    layer(fields, mask=mask, training=True)
    (found,) = layer.losses
    return float(found)


def test_alignment_is_the_mean_over_all_pairs() -> None:
    rows = X.reshape(-1, 3, 6)
    pairs = [np.square(rows[i] - rows[j]).sum(-1).mean() for i in range(len(rows)) for j in range(i)]
    weights = np.full(len(rows), 1 / len(rows), "float32")
    np.testing.assert_allclose(alignment(rows, weights), np.mean(pairs), rtol=1e-5)
    # Far from zero the difference of sums and squares would have lost its digits.
    np.testing.assert_allclose(alignment(rows + np.float32(1e3), weights), np.mean(pairs), rtol=1e-3)
    assert float(alignment(rows[:1], np.ones(1, "float32"))) == 0.0


def test_uniformity_by_hand() -> None:
    # The cosines of the pairs are 0.6, 0 and 0.8, and each pair counts in both orders.
    rows = np.array([[[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]]], "float32")
    np.testing.assert_allclose(uniformity(rows), [1.4 / 3], rtol=1e-4)
    # A small number is added to the product of the norms, 1e-4: the cosine of these is 1 / 2.
    np.testing.assert_allclose(uniformity(np.full((1, 2, 1), 1e-2, "float32")), [0.5], rtol=1e-4)
    np.testing.assert_array_equal(uniformity(rows[:, :1]), [0.0])


@pytest.mark.any_backend
def test_a_field_of_zeros_has_a_finite_gradient() -> None:
    # In TensorFlow the gradient of a root at zero is zero, so that only other backends show a missing guard.
    rows = ops.convert_to_tensor(np.array([[[0.0, 0.0], [3.0, 4.0]]], "float32"))
    value, (gradient,), _ = gradients(lambda x: ops.sum(uniformity(x)), rows)
    assert float(value) == 0.0
    assert np.isfinite(numpy(gradient)).all()


def test_the_terms_by_hand() -> None:
    """Without an encoder's dropout and without masking, the views are equal and the projections are what differs."""
    layer = Cl4Ctr(alpha=0.5, beta=0.1, rate=0.0, dropout=0.0, **SMALL)
    fields = np.array([[[[1.0, 0.0], [0.0, 2.0]]], [[[3.0, 0.0], [0.0, 4.0]]]], "float32")
    layer.build(fields.shape)
    first, second = layer.projections
    for projection, bias in ((first, [3.0, -1.0]), (second, [0.0, 3.0])):
        projection.kernel.assign(np.zeros((4, 2)))
        projection.bias.assign(bias)
    # Contrast (3, -4)^2 = 25. The fields of the two rows are 2 apart, so alignment is 4. Different fields are at right
    # angles.
    assert loss_of(layer, fields) == pytest.approx(0.5 * 25.0 + 0.1 * 4.0, rel=1e-5)
    assert loss_of(Cl4Ctr(alpha=0.0, beta=0.1), fields) == pytest.approx(0.4, rel=1e-5)
    assert loss_of(Cl4Ctr(alpha=0.0, beta=0.1, alignment=False), fields) == 0.0
    parallel = np.ones((2, 1, 3, 4), "float32")
    assert loss_of(Cl4Ctr(alpha=0.0, beta=0.1), parallel) == pytest.approx(0.1, rel=1e-4)
    assert loss_of(Cl4Ctr(alpha=0.0, beta=0.1, uniformity=False), parallel) == 0.0


def test_the_encoder_by_hand() -> None:
    layer = FieldEncoder(hidden=2, dropout=0.0)
    x = np.array([[[1.0, 3.0], [5.0, 1.0]]], "float32")
    layer.build(x.shape)
    for name in ("query", "inner"):
        layer.maps[name].kernel.assign(np.zeros((2, 2)))
    layer.maps["value"].kernel.assign(np.eye(2))
    layer.maps["output"].kernel.assign([[2.0, 0.0], [0.0, 0.0]])
    layer.maps["outer"].kernel.assign([[0.0, 3.0], [0.0, 0.0]])
    layer.maps["inner"].bias.assign([1.0, -1.0])
    # Equal weights: both fields see [3, 2], which the map makes [6, 0]. [7, 3] and [11, 1] are normalized to [1, -1],
    # and the hidden layer [1, 0] adds [0, 3]: [1, 2], which is [-1, 1].
    np.testing.assert_allclose(layer(x), [[[-1.0, 1.0], [-1.0, 1.0]]], rtol=1e-4)


def test_fields_attend_within_their_row() -> None:
    layer = FieldEncoder(dropout=0.0)
    before = numpy(layer(X))
    other = X.copy()
    other[0, 0, 1] += 1.0
    moved = np.abs(numpy(layer(other)) - before).max(-1) > 1e-6
    assert moved[0, 0].all()
    assert moved.sum() == 3


@pytest.mark.parametrize(("masking", "axes"), [("random", ()), ("feature", (2,)), ("dimension", (1,))])
def test_what_a_view_drops(masking: Any, axes: tuple[int, ...]) -> None:
    layer = Cl4Ctr(masking=masking, rate=0.25, **SMALL)
    rows = np.ones((400, 5, 6), "float32")
    view = numpy(layer.view(rows))
    np.testing.assert_allclose(np.unique(view), [0.0, 4 / 3], rtol=1e-6)
    assert np.mean(view == 0) == pytest.approx(0.25, abs=0.05)
    for axis in (1, 2):
        same = (view == np.take(view, [0], axis=axis)).all()
        assert same == (axis in axes)
    assert not np.array_equal(view, numpy(layer.view(rows)))


def test_rows_of_padding_do_not_count() -> None:
    layer = Cl4Ctr(rate=0.0, dropout=0.0, **SMALL)
    poisoned = np.where(MASK[..., None, None], X, np.nan).astype("float32")
    expected = loss_of(layer, X[MASK])
    assert loss_of(layer, poisoned, MASK) == pytest.approx(expected, rel=1e-5)
    value, (gradient,), _ = gradients(lambda x: layer.total(x, MASK), ops.convert_to_tensor(poisoned))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    gradient = numpy(gradient)
    assert np.isfinite(gradient).all()
    assert not gradient[~MASK].any()
    assert loss_of(layer, poisoned, np.zeros_like(MASK)) == 0.0


def test_it_acts_in_training_only_and_returns_the_fields() -> None:
    layer = Cl4Ctr(**SMALL)
    np.testing.assert_array_equal(layer(X), X)
    assert not layer.losses
    np.testing.assert_array_equal(layer(X, training=True), X)
    assert len(layer.losses) == 1


@pytest.mark.any_backend
def test_every_weight_learns() -> None:
    layer = Cl4Ctr(**{**SMALL, "layers": 2, "heads": 2})
    layer.build(X.shape)
    _, (inputs,), found = gradients(lambda x: layer.total(x, MASK), ops.convert_to_tensor(X), layer.trainable_weights)
    assert np.abs(numpy(inputs)).max() > 0
    assert len(found) == 2 * (2 * 6 + 4) + 4
    still = [
        one.path
        for one, gradient in zip(layer.trainable_weights, found, strict=True)
        if not np.abs(numpy(gradient)).max() > 0
    ]
    # A key's bias moves all scores of a field alike.
    assert all(path.endswith("key/bias") for path in still)


@pytest.mark.any_backend
def test_configuration_and_half_precision() -> None:
    layer = Cl4Ctr(alpha=0.5, masking="feature", kernel_regularizer="l2", dtype="mixed_bfloat16", **SMALL)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.kernel_regularizer is not None
    again.build(X.shape)
    total = again.total(ops.cast(X, "bfloat16"), None)
    assert keras.backend.standardize_dtype(total.dtype) == "float32"
    assert np.isfinite(float(total))
    assert not [weight.path for weight in again.weights if weight.dtype == "bfloat16"]


@pytest.mark.any_backend
def test_encoder_layer() -> None:
    # The gradient of a key's bias is zero but for rounding errors, as it moves all scores of a field alike.
    check_layer(FieldEncoder(heads=2, hidden=5), X, output_shape=X.shape, unmoved=["key/bias"])


def test_errors() -> None:
    with pytest.raises(UserError, match="auxiliary cl4ctr: `masking` must be one of random, feature, dimension"):
        create_auxiliary_loss({"type": "cl4ctr", "masking": "field"})
    with pytest.raises(ValueError, match="`alpha` must be a number of at least 0"):
        Cl4Ctr(alpha=-1)
    with pytest.raises(ValueError, match=r"`heads` must divide the width 6 of the fields\. Received: 4"):
        Cl4Ctr(heads=4, **SMALL)(X)
