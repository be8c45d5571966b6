from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import Edcn
from tfctr.layers.edcn_blocks import BRANCHES, BRIDGES, EdcnBridge, EdcnRegulation

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")
FLAT = X.reshape(6, 4, 12)
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def _bridge_weights(bridge: EdcnBridge) -> dict[str, Any]:
    if bridge.kind == "concatenation":
        return {"dense/kernel": bridge.dense.kernel, "dense/bias": bridge.dense.bias}
    if bridge.kind == "attention":
        (first,), (second,) = bridge.first, bridge.second
        dense = {"attention1/dense0/kernel": first.kernel, "attention1/dense0/bias": first.bias}
        return {**dense, "attention1/dense1/kernel": second.kernel}
    return {}


def _regulation_weights(regulation: EdcnRegulation) -> dict[str, Any]:
    found = {f"gate_{name}": gate for name, gate in zip(BRANCHES, regulation.gates, strict=True)}
    for branch, norm in zip(BRANCHES, regulation.norms, strict=False):
        found |= {f"bn_{branch}/{name}": getattr(norm, name) for name in STATISTICS}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("edcn_bridge_*"))
def test_golden_bridge(name: str) -> None:
    case = load(name)
    kind = case.hyperparameters["bridge"]
    layer = EdcnBridge(kind, shared_attention=kind == "attention")
    layer.build(case["in/cross"].shape)
    check(case, lambda inputs: {"y": layer(inputs["cross"], inputs["deep"])}, _bridge_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("edcn_regulation_*"))
def test_golden_regulation(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    fields = (options["num_fields"], options["embedding_dim"])
    layer = EdcnRegulation(options["temperature"], options["batch_norm"])
    layer.build((None, *fields))

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(BRANCHES, layer(ops.reshape(inputs["x"], (-1, *fields))), strict=True))

    check(case, forward, _regulation_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("edcn_full_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = Edcn(options["num_layers"], options["bridge"], options["temperature"], options["batch_norm"])
    layer.build(case["in/emb"].shape)
    weights = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, (cross, deep) in enumerate(zip(layer.crosses, layer.deeps, strict=True)):
        found = {"cross/kernel": cross.kernel, "cross/bias": cross.bias}
        found |= {"deep/dense0/kernel": deep.dense[0].kernel, "deep/dense0/bias": deep.dense[0].bias}
        found |= {f"bridge/{key}": weight for key, weight in _bridge_weights(layer.bridges[i]).items()}
        found |= {f"regulation/{key}": weight for key, weight in _regulation_weights(layer.regulations[i]).items()}
        weights |= {f"layer{i}/{key}": weight for key, weight in found.items()}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_by_hand() -> None:
    # Two fields of width 1, [6, 8]. At first each field's share is one half: both branches get [3, 4].
    layer = Edcn(layers=2)
    layer.build((None, 2, 1))
    for cross, deep in zip(layer.crosses, layer.deeps, strict=True):
        cross.kernel.assign([[1.0], [-1.0]])
        cross.bias.assign([0.5, 0.0])
        deep.dense[0].kernel.assign([[1.0, 0.0], [0.0, -1.0]])
        deep.dense[0].bias.assign([0.0, 5.0])
    # Layer 1: 3 - 4 = -1, so c = [-3, -4] + [.5, 0] = [-2.5, -4];  h = [3, 1];  z = [-7.5, -4].
    # Layer 2: the shares of the cross branch are 3/4 and 1/4, and it gets [-5.625, -1]. As x_0 is [3, 4], and the
    # difference -4.625, c = [-13.375, -18.5]. The deep branch gets [-3.75, -2], so h = [0, 7] and z = [0, -129.5].
    layer.regulations[1].gates[0].assign([np.log(3.0), 0.0])
    hidden = layer.hidden(np.array([[[6.0], [8.0]]], "float32"))
    np.testing.assert_allclose(hidden, [[-13.375, -18.5, 0.0, 7.0, 0.0, -129.5]], rtol=1e-5)


def test_temperature_makes_shares_equal() -> None:
    x = np.ones((1, 2, 1), "float32")
    for temperature, share in [(1.0, 0.75), (2.0, 3**0.5 / (1 + 3**0.5)), (1e6, 0.5)]:
        layer = EdcnRegulation(temperature)
        layer.build(x.shape)
        layer.gates[0].assign([np.log(3.0), 0.0])
        cross, deep = (ops.convert_to_numpy(output) for output in layer(x))
        np.testing.assert_allclose(cross, [[share, 1 - share]], rtol=1e-5)
        np.testing.assert_allclose(deep, [[0.5, 0.5]], rtol=1e-6)


def test_attention_bridge_has_a_network_for_each_branch() -> None:
    layer = EdcnBridge("attention")
    layer.build((None, 2))
    for first in layer.first:
        first.kernel.assign(np.eye(2))
    layer.second[0].kernel.assign(np.zeros((2, 2)))  # equal weights, one half each
    layer.second[1].kernel.assign([[np.log(3.0), 0.0], [0.0, 0.0]])  # three quarters and one quarter for [1, 2]
    y = layer(np.array([[2.0, 4.0]], "float32"), np.array([[1.0, 2.0]], "float32"))
    np.testing.assert_allclose(y, [[1.75, 2.5]], rtol=1e-6)
    shared = EdcnBridge("attention", shared_attention=True)
    shared.build((None, 2))
    assert len(layer.trainable_weights) == 2 * len(shared.trainable_weights) == 6


def test_parameters_with_the_published_settings() -> None:
    # FuxiCTR logs 86,351 parameters for Frappe: 53,890 in embeddings of width 10, and the rest in the backbone.
    layer = Edcn(layers=3, temperature=5.0, batch_norm=True, dropout=0.3)
    layer.build((None, 10, 10))
    assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) == 86_351 - 53_890


def test_padding_candidates_change_nothing() -> None:
    layer = Edcn(layers=2, batch_norm=True)
    check_padding(layer, X, MASK)


def test_dropout_acts_in_training_and_on_the_deep_branch_only() -> None:
    layer = Edcn(layers=1, bridge="addition", dropout=0.5)
    layer(X)
    layer.deeps[0].dense[0].bias.assign(np.full(12, 9.0))
    cross, deep, _ = np.split(ops.convert_to_numpy(layer.hidden(X, training=True)), 3, axis=-1)
    assert (cross != 0).all()
    assert np.mean(deep == 0) == pytest.approx(0.5, abs=0.15)
    assert (ops.convert_to_numpy(layer.hidden(X)) != 0).all()


@pytest.mark.any_backend
@pytest.mark.parametrize("bridge", BRIDGES)
def test_layer(bridge: Any) -> None:
    layer = Edcn(layers=2, bridge=bridge, temperature=2.0, batch_norm=bridge != "addition")
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4))


@pytest.mark.any_backend
@pytest.mark.parametrize("shared", [False, True])
def test_bridge(shared: bool) -> None:
    layer = EdcnBridge("attention", shared_attention=shared)
    check_layer(layer, FLAT, call_arguments={"deep": FLAT[::-1].copy()}, output_shape=(6, 4, 12))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`bridge` must be one of hadamard"):
        Edcn(bridge="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`temperature` must be a positive number\. Received: 0"):
        Edcn(temperature=0)
    with pytest.raises(ValueError, match="`shared_attention` is for the attention bridge only"):
        Edcn(shared_attention=True)
    with pytest.raises(ValueError, match="`dropout` must be"):
        Edcn(dropout=1.0)
