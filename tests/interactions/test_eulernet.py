from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients, tensors
from tests.golden_cases import check, load, names
from tests.layer_checks import check_gradients_at_zero_fields, check_layer
from tfctr.interactions import EulerNet
from tfctr.interactions.eulernet import EulerLayer, polar

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")
PARTS = ("real", "imag")


def _layer_weights(layer: EulerLayer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "orders": layer.orders,
        "bias_log_modulus": (layer.modulus_bias, np.ravel),
        "bias_phase": (layer.angle_bias, np.ravel),
        "implicit/kernel": layer.implicit.kernel,
        "implicit/bias": layer.implicit.bias,
    }
    for part, norm in zip(PARTS, layer.norms, strict=False):
        found |= {f"norm_{part}/gamma": norm.gamma, f"norm_{part}/beta": norm.beta}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("eulernet_layer_*"))
def test_golden_layer(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = EulerLayer(options["rows_out"], options["layer_norm"])
    layer.build(case["in/real"].shape, case["in/imag"].shape)
    check(
        case,
        lambda inputs: dict(zip(PARTS, layer(inputs["real"], inputs["imag"]), strict=True)),
        _layer_weights(layer),
    )


@pytest.mark.golden
@pytest.mark.parametrize("name", names("eulernet_full_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    # With the normalization the gradients are large sums that cancel: in float32 their rounding errors alone reach the
    # tolerance, which here is of the published numbers only.
    layer = EulerNet(options["rows"], options["layer_norm"], dtype="float64" if options["layer_norm"] else "float32")
    layer.build(case["in/emb"].shape)
    weights = {"modulus": layer.modulus, "head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, one in enumerate(layer.layers):
        weights |= {f"layer{i}/{key}": weight for key, weight in _layer_weights(one).items()}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        # The reference adds the bias of its head twice.
        logit = ops.cast(layer(inputs["emb"])[:, None] + layer.head.bias, "float32")
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_a_neuron_is_a_product_of_powers() -> None:
    layer = EulerLayer(neurons=1, layer_norm=False)
    layer.build((None, 2, 1), (None, 2, 1))
    layer.implicit.kernel.assign(np.zeros((2, 1)))
    layer.modulus_bias.assign([0.0])
    layer.angle_bias.assign([0.0])
    layer.orders.assign([[2.0], [-1.0]])
    # (1 + 2i)^2 / (3 - i) = -1.3 + 0.9i
    expected = (1 + 2j) ** 2 / (3 - 1j)
    real, imaginary = layer(np.array([[[1.0], [3.0]]], "float32"), np.array([[[2.0], [-1.0]]], "float32"))
    found = [float(real[0, 0, 0]), float(imaginary[0, 0, 0])]
    np.testing.assert_allclose(found, [expected.real, expected.imag], rtol=1e-5)


def test_orders_start_as_one_row_each() -> None:
    for neurons in (4, 5):
        layer = EulerLayer(neurons)
        layer.build((None, 4, 3), (None, 4, 3))
        orders = ops.convert_to_numpy(layer.orders)
        np.testing.assert_allclose(orders.sum(0), np.ones(neurons), rtol=1e-6)
        if neurons == 4:
            np.testing.assert_array_equal(orders, np.eye(4))
        else:
            assert np.median(orders.max(0)) > 0.99


@pytest.mark.any_backend
def test_zeros_have_a_modulus_an_angle_and_no_gradient_of_it() -> None:
    real = np.array([0.0, 1e-25, 3.0, 0.0, -1.0], "float32")
    imaginary = np.array([0.0, -1e-25, 4.0, 2.0, 0.0], "float32")
    modulus, angle = (ops.convert_to_numpy(one) for one in polar(*tensors([real, imaginary])))
    np.testing.assert_allclose(modulus, 0.5 * np.log(np.array([0, 0, 25, 4, 1]) + 1e-8), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(angle, [0, 0, np.arctan2(4, 3), np.pi / 2, np.pi], rtol=1e-6)
    _, found, _ = gradients(lambda parts: ops.sum(polar(*parts)[1]), tensors([real, imaginary]))
    np.testing.assert_allclose(ops.convert_to_numpy(found[0]), [0, 0, -4 / 25, -1 / 2, 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ops.convert_to_numpy(found[1]), [0, 0, 3 / 25, 0, -1], rtol=1e-5, atol=1e-7)


@pytest.mark.any_backend
@pytest.mark.parametrize("modulus", [0.0, 1.0])
def test_gradients_are_finite_for_zero_fields(modulus: float) -> None:
    layer = EulerNet(neurons=[3, 2])
    layer.build(X.shape)
    layer.modulus.assign(np.full(3, modulus))
    check_gradients_at_zero_fields(layer, X)


@pytest.mark.parametrize(("option", "still"), [("dropout", "implicit"), ("implicit_dropout", "orders")])
def test_dropout_acts_in_training_and_on_its_part_only(option: str, still: str) -> None:
    layer = EulerNet(neurons=[5], layer_norm=False, **{option: 0.5})
    layer(X)
    np.testing.assert_array_equal(layer(X), layer(X))
    assert not np.allclose(layer(X, training=True), layer(X, training=True))
    # Without the weights of the part whose inputs are dropped, dropout does nothing.
    (only,) = layer.layers
    weight = only.orders if still == "implicit" else only.implicit.kernel
    weight.assign(np.zeros(weight.shape))
    np.testing.assert_allclose(layer(X, training=True), layer(X), rtol=1e-5, atol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"neurons": [3]}, {"neurons": [5, 2], "layer_norm": False}])
def test_layer(options: dict[str, Any]) -> None:
    layer = EulerNet(**options)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`neurons` must not be empty"):
        EulerNet(neurons=[])
    with pytest.raises(ValueError, match="`implicit_dropout` must be at least 0 and less than 1"):
        EulerNet(implicit_dropout=1.0)
