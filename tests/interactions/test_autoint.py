from typing import Any

import numpy as np
import pytest

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer
from tfctr.interactions import AutoInt
from tfctr.interactions.autoint import FieldAttention

X = np.random.default_rng(3).normal(size=(6, 4, 3, 8)).astype("float32")
LINEAR = np.random.default_rng(4).normal(size=(6, 4)).astype("float32")


def _weights(layer: FieldAttention) -> dict[str, Any]:
    found = {f"{name}/kernel": getattr(layer, name).kernel for name in ("query", "key", "value")}
    if layer.projects:
        found["residual/kernel"] = layer.residual.kernel
    if layer.norm is not None:
        found |= {"norm/gamma": layer.norm.gamma, "norm/beta": layer.norm.beta}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("autoint_attention_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layers, weights = [], {}
    for i, (width, units) in enumerate(options["layer_dims"]):
        layer = FieldAttention(
            units,
            options["num_heads"],
            options["residual"],
            scale=options["scale"] != "none",
            layer_norm=options["layer_norm"],
        )
        layer.build((None, options["num_fields"], width))
        layers.append(layer)
        weights |= {f"layer{i}/{key}": weight for key, weight in _weights(layer).items()}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["x"]
        for layer in layers:
            x = layer(x)
        return {"y": x}

    check(case, forward, weights)


def test_the_whole_by_hand() -> None:
    # Two fields of width 1. All queries are zero, so that each field sees the mean of the values, which are the
    # doubled fields; with the residual they are 1 + 4 and 3 + 4.
    layer = AutoInt(layers=1, units=1, heads=1, first_order=True, deep={"type": "mlp", "hidden": []})
    layer.build((None, 2, 1))
    (attention,) = layer.attentions
    attention.query.kernel.assign([[0.0]])
    attention.value.kernel.assign([[2.0]])
    layer.head.kernel.assign([[1.0], [-1.0], [0.0], [10.0]])
    layer.head.bias.assign([0.5])
    fields = np.array([[[1.0], [3.0]]], "float32")
    np.testing.assert_allclose(layer(fields, linear=np.array([100.0], "float32")), [-2 + 0.5 + 30 + 100], rtol=1e-6)


def test_dropout_acts_on_the_weights_in_training_only() -> None:
    layer = AutoInt(layers=1, units=8, dropout=0.5)
    assert not np.array_equal(layer(X, training=True), layer(X))
    np.testing.assert_array_equal(layer(X), layer(X))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        {"layers": 2, "units": 6},
        {"layers": 1, "units": 8, "scale": True, "layer_norm": True, "deep": {"type": "mlp", "hidden": [4]}},
    ],
)
def test_layer(options: dict[str, Any]) -> None:
    layer = AutoInt(**options)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


@pytest.mark.any_backend
def test_first_order_weights_are_an_option() -> None:
    layer = AutoInt(layers=1, units=4, first_order=True)
    assert layer.wide
    np.testing.assert_allclose(layer(X, linear=LINEAR), layer(X) + LINEAR, rtol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`heads` must divide the 6 units of the attention\. Received: 4"):
        AutoInt(units=6, heads=4)
    with pytest.raises(ValueError, match="`layers` must be a positive whole number"):
        AutoInt(layers=0)
