from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import Afn
from tfctr.interactions.afn import LogarithmicNeurons

X = np.random.default_rng(3).normal(size=(6, 4, 3, 8)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def _of_layer(layer: LogarithmicNeurons) -> dict[str, Any]:
    found = {"log_neurons/kernel": layer.kernel}
    for name, norm in (("log_bn", layer.log_norm), ("exp_bn", layer.exp_norm)):
        found |= {f"{name}/{key}": getattr(norm, key) for key in STATISTICS}
    return found


def _of_block(prefix: str, block: Any, *heads: Any) -> dict[str, Any]:
    found = {}
    for i, dense in enumerate([*block.dense, *heads]):
        found |= {f"{prefix}/dense{i}/kernel": dense.kernel, f"{prefix}/dense{i}/bias": dense.bias}
    for i, norm in enumerate(block.norms):
        found |= {f"{prefix}/bn{i}/{key}": getattr(norm, key) for key in STATISTICS}
    return found


@pytest.mark.golden
def test_golden_layer() -> None:
    case = load("afn_log_layer")
    layer = LogarithmicNeurons(case.hyperparameters["neurons"])
    layer.build(case["in/emb"].shape)
    check(case, lambda inputs: {"y": ops.reshape(layer(inputs["emb"]), (7, -1))}, _of_layer(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", ["afn_full", "afn_plus_full"])
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    parts = {"hidden": options["hidden"], "batch_norm": options["batch_norm"]}
    plus = options["ensemble"]
    layer = Afn(neurons=options["neurons"], **parts, deep={"type": "mlp", **parts} if plus else None)
    fields, width = case["in/emb"].shape[1:]
    layer.build((None, fields, 2 * width if plus else width))
    weights = _of_layer(layer.logarithmic)
    if layer.deep is None:
        weights |= _of_block("afn_mlp", layer.block, layer.head)
    else:
        weights |= _of_block("afn_mlp", layer.block) | _of_block("dnn", layer.deep.block, layer.deep.head)
        weights |= {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        both = [inputs["emb"], inputs["emb2"]] if plus else [inputs["emb"]]
        logit = layer(ops.concatenate(both, axis=-1))[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_a_neuron_is_a_product_of_powers() -> None:
    layer = LogarithmicNeurons(2)
    layer.build((None, 2, 3))
    layer.kernel.assign([[2.0, 0.0], [-1.0, 0.5]])
    for norm in (layer.log_norm, layer.exp_norm):
        norm.moving_variance.assign(np.full(2, 1 - 1e-5))  # so that inference changes nothing
    fields = np.array([[[2.0, -3.0, 1.0], [4.0, 9.0, 0.0]]], "float32")
    found = layer(fields)
    np.testing.assert_allclose(found[0, 0], [4 / 4, 9 / 9, 1 / 1e-5], rtol=1e-4)
    np.testing.assert_allclose(found[0, 1], [2.0, 3.0, 1e-5**0.5], rtol=1e-4)


def test_padding_candidates_change_nothing() -> None:
    layer = Afn(neurons=3, hidden=[4], batch_norm=True, deep={"type": "mlp", "hidden": [4], "batch_norm": True})
    check_padding(layer, X, MASK)


def test_half_precision_keeps_the_logarithms() -> None:
    policy = keras.DTypePolicy("mixed_bfloat16")
    half, whole = LogarithmicNeurons(5, dtype=policy), LogarithmicNeurons(5)
    half.build(X.shape)
    whole.build(X.shape)
    half.set_weights(whole.get_weights())
    rounded = ops.cast(ops.cast(X, "bfloat16"), "float32")
    np.testing.assert_allclose(ops.cast(half(rounded), "float32"), whole(rounded), rtol=0.005)


@pytest.mark.any_backend
@pytest.mark.parametrize("deep", [None, {"type": "mlp", "hidden": [4]}])
def test_layer(deep: Any) -> None:
    layer = Afn(neurons=3, hidden=[8], deep=deep)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"width of the fields must be even, as AFN\+ halves it\. Received: 7"):
        Afn(neurons=2, deep="mlp")(X[..., :7])
    with pytest.raises(ValueError, match="`neurons` must be a positive whole number"):
        Afn(neurons=0)
