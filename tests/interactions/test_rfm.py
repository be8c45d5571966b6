from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, present
from tests.layer_checks import check_gradients_at_zero_fields, check_layer
from tfctr.interactions import Rfm
from tfctr.interactions.rfm import GroupNormalization, RotationAttention

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")

# The source has no licence, so none of its cases are committed.
ATTENTIONS = ["rfm_attention_same", "rfm_attention_wider"]
FULL = ["rfm_full", "rfm_full_first_order"]


def _attention_weights(attention: RotationAttention) -> dict[str, Any]:
    return {
        **{name: getattr(attention, name) for name in ("query", "key", "value")},
        "residual/kernel": attention.residual.kernel,
        "angle_weight": (attention.angle_weight, lambda array: array[:, None]),
        "norm/gamma": attention.norm.gamma,
        "norm/beta": attention.norm.beta,
    }


def _perceptron_weights(layer: Rfm) -> dict[str, Any]:
    found = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, dense in enumerate(layer.dense):
        found |= {f"layer{i}/kernel": dense.kernel, f"layer{i}/bias": dense.bias}
        for part, norms in (("real", layer.real_norms), ("imag", layer.imaginary_norms)):
            found |= {f"layer{i}/norm_{part}/{key}": getattr(norms[i].norm, key) for key in ("gamma", "beta")}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", present(ATTENTIONS))
def test_golden_attention(name: str) -> None:
    case = load(name)
    layer = RotationAttention(case.hyperparameters["dim_out"], case.hyperparameters["num_heads"])
    layer.build(case["in/theta"].shape)
    check(case, lambda inputs: {"theta": layer(inputs["theta"])}, _attention_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", present(["rfm_amplification"]))
def test_golden_perceptron(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = Rfm(units=case["in/real"].shape[-1], hidden=options["hidden"], group_size=options["group_size"])
    layer.build(case["in/real"].shape)

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        parts = (ops.reshape(inputs[part], (-1, options["input_dim"])) for part in ("real", "imag"))
        # The reference adds the bias of its head twice.
        return {"logit": layer.head(layer.perceived(*parts)) + layer.head.bias}

    check(case, forward, _perceptron_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", present(FULL))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = Rfm(
        options["attention_layers"],
        options["attention_dim"],
        options["num_heads"],
        hidden=options["hidden"],
        group_size=options["group_size"],
        first_order=options["first_order"],
    )
    layer.build(case["in/emb"].shape)
    weights = {f"amplification/{key}": weight for key, weight in _perceptron_weights(layer).items()}
    for i, attention in enumerate(layer.attentions):
        weights |= {f"attention{i}/{key}": weight for key, weight in _attention_weights(attention).items()}
    if options["first_order"]:
        weights |= {f"first_order/projection/{key}": getattr(layer.projection, key) for key in ("kernel", "bias")}
        for part, norm in zip(("real", "imag"), layer.first_norms, strict=True):
            weights |= {f"first_order/norm_{part}/{key}": getattr(norm, key) for key in ("gamma", "beta")}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"]) + layer.head.bias
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_attention_by_hand() -> None:
    # Two fields of width 2, one head: field 0 [0, 2], field 1 [pi, 4]. Angles of queries and keys are the first number.
    layer = RotationAttention(units=2, heads=1)
    layer.build((None, 2, 2))
    for kernel in (layer.query, layer.key):
        kernel.assign([[[1.0, 0.0], [0.0, 0.0]]] * 2)
    layer.value.assign([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]])  # values [0, 2] and [0, 8]
    layer.angle_weight.assign([[np.log(3.0)], [0.0]])
    layer.residual.kernel.assign([[0.0, 0.0], [0.0, 0.0]])
    layer.norm.epsilon = 1e4  # so large that the normalization is only a shift and a division by 100
    # Equal angles have the score sigmoid(log 3) = 3/4, opposite angles sigmoid(-log 3) = 1/4.
    expected = np.array([0.75 * 2 + 0.25 * 8, 0.25 * 2 + 0.75 * 8]) / 2 / 100
    y = layer(np.array([[[0.0, 2.0], [np.pi, 4.0]]], "float32"))
    np.testing.assert_allclose(y, [[[-one, one] for one in expected]], rtol=1e-3)


def test_groups_are_normalized_by_themselves() -> None:
    layer = GroupNormalization(2)
    x = np.array([[1.0, 3.0, 500.0, 100.0]], "float32")
    np.testing.assert_allclose(layer(x), [[-1.0, 1.0, 1.0, -1.0]], rtol=1e-4)
    layer.norm.gamma.assign([1.0, 2.0])
    np.testing.assert_allclose(layer(x), [[-1.0, 2.0, 1.0, -2.0]], rtol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("first_order", [False, True])
def test_gradients_are_finite_for_zero_fields(first_order: bool) -> None:
    layer = Rfm(units=8, hidden=[4], first_order=first_order)
    layer.build(X.shape)
    check_gradients_at_zero_fields(layer, X)


@pytest.mark.parametrize("option", ["dropout", "hidden_dropout"])
def test_dropout_acts_in_training_only(option: str) -> None:
    layer = Rfm(units=8, hidden=[12], **{option: 0.5})  # type: ignore[arg-type]
    np.testing.assert_array_equal(layer(X), layer(X))
    assert not np.allclose(layer(X, training=True), layer(X, training=True))


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"first_order": True}, {"hidden": [], "layers": 1}])
def test_layer(options: dict[str, Any]) -> None:
    layer = Rfm(**{"units": 8, "hidden": [6, 4], "group_size": 2, **options})
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`units` must be a multiple of the 3 heads\. Received: 16"):
        Rfm(heads=3)
    with pytest.raises(ValueError, match="`hidden` must be multiples of the group of 5"):
        Rfm(hidden=[48], group_size=5)
    with pytest.raises(ValueError, match="The width must be a multiple of the group of 4"):
        GroupNormalization(4)(X.reshape(24, 12)[:, :6])
