from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import GoldenCase, check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.errors import UserError
from tfctr.interactions import Final, create_interaction
from tfctr.interactions.final import FactorizedBlock, FactorizedInteraction, FieldGate
from tfctr.losses import SelfEnsemble

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def _block_weights(block: FactorizedBlock) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, dense in enumerate(block.dense):
        found |= {f"layer{i}/kernel": dense.linear.kernel, f"layer{i}/bias": dense.linear.bias}
    for i, norm in enumerate(block.norms):
        found |= {f"layer{i}/bn/{name}": getattr(norm, name) for name in STATISTICS}
    return found


def _final(case: GoldenCase) -> tuple[Final, dict[str, Any]]:
    options = case.hyperparameters

    def block(number: int) -> dict[str, Any]:
        activation = options[f"block{number}_activation"]
        return {
            "hidden": options[f"block{number}"],
            "activation": None if activation == "none" else activation,
            "batch_norm": options["batch_norm"],
            "residual": options["residual"],
        }

    layer = Final(block(1), block(2) if options["blocks"] == 2 else None, options["field_gate"])
    layer.build(case["in/emb"].shape)
    weights = {} if layer.gate is None else {"gate/kernel": layer.gate.kernel, "gate/bias": layer.gate.bias}
    for i, (one, head) in enumerate(zip(layer.blocks, layer.heads, strict=True), 1):
        weights |= {f"block{i}/{key}": weight for key, weight in _block_weights(one).items()}
        weights |= {f"head{i}/kernel": head.kernel, f"head{i}/bias": head.bias}
    return layer, weights


@pytest.mark.golden
@pytest.mark.parametrize("name", names("final_block_*"))
def test_golden_block(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    activation = None if options["activation"] == "none" else options["activation"]
    block = FactorizedBlock(options["hidden"], activation, options["batch_norm"], residual=options["residual"])
    block.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": block(inputs["x"])}, _block_weights(block))


@pytest.mark.golden
def test_golden_gate() -> None:
    case = load("final_field_gate")
    layer = FieldGate()
    layer.build(case["in/emb"].shape)
    weights = {"gate/kernel": layer.kernel, "gate/bias": layer.bias}
    check(case, lambda inputs: {"y": layer(inputs["emb"])}, weights)


@pytest.mark.golden
@pytest.mark.parametrize("name", names("final_1b_*", "final_2b_*"))
def test_golden(name: str) -> None:
    case = load(name)
    layer, weights = _final(case)
    assert layer.branches == case.hyperparameters["blocks"]
    loss = SelfEnsemble(over="branches", mean="logit")

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        found = {"logit": logit, "prob": ops.sigmoid(logit)}
        if layer.branches == 2:
            branches = layer.branch_logits(inputs["emb"])
            found |= {"logit1": branches[0][:, None], "logit2": branches[1][:, None]}
            found["loss"] = loss(inputs["label"][:, 0], branches, np.ones(len(case["in/label"])))
        return found

    # The loss of one block is the plain cross-entropy, which has tests of its own.
    check(case, forward, weights, ignored=["loss"] if layer.branches == 1 else [])


def test_by_hand() -> None:
    layer = FactorizedInteraction(2)
    layer.build((None, 2))
    layer.linear.kernel.assign([[1.0, 2.0], [0.0, 1.0]])
    layer.linear.bias.assign([0.0, -1.0])
    # a = 3, b = 6 + 4 - 1 = 9.
    np.testing.assert_allclose(layer(np.array([[3.0, 4.0]], "float32")), [[3.0, 27.0]], rtol=1e-6)
    layer = FactorizedInteraction(1, residual="sum")
    layer.build((None, 2))
    layer.linear.kernel.assign([[1.0, 2.0], [0.0, 1.0]])
    layer.linear.bias.assign([0.0, -1.0])
    np.testing.assert_allclose(layer(np.array([[3.0, 4.0]], "float32")), [[30.0]], rtol=1e-6)


def test_the_gate_starts_open_and_mixes_fields() -> None:
    layer = FieldGate()
    fields = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")
    np.testing.assert_array_equal(layer(fields), np.concatenate([fields, fields], axis=1))
    # The gate of field 0 is field 1 and 1, and that of field 1 is 1.
    layer.kernel.assign([[0.0, 0.0], [1.0, 0.0]])
    expected = [[[1.0, 2.0], [3.0, -1.0], [4.0, 0.0], [3.0, -1.0]]]
    np.testing.assert_allclose(layer(fields), expected, rtol=1e-6)


@pytest.mark.parametrize(("second", "gate", "total"), [(None, False, 256_791), ({"hidden": [400]}, True, 338_502)])
def test_parameters_as_logged(second: dict[str, Any] | None, gate: bool, total: int) -> None:
    """The public runs on Frappe: ten fields of width 10, and tables of 5,399 rows in all."""
    layer = Final({"hidden": [400, 400]}, second, field_gate=gate)
    layer.build((None, 10, 10))
    assert sum(int(np.prod(one.shape)) for one in layer.trainable_weights) == total - 5_399 * 10


def test_the_logit_is_the_mean_of_the_branches() -> None:
    layer = Final({"hidden": [6]}, {"hidden": [4, 2]}, field_gate=True)
    logits = layer(X)
    branches = ops.convert_to_numpy(layer.branch_logits(X))
    assert branches.shape == (2, 6, 4)
    np.testing.assert_allclose(logits, branches.mean(0), rtol=1e-5, atol=1e-7)
    assert np.abs(branches[0] - branches[1]).max() > 0.1


def test_padding_candidates_change_nothing() -> None:
    layer = Final({"hidden": [6]}, {"hidden": [4]}, field_gate=True)
    check_padding(layer, X, MASK)


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{}, {"block2": {"hidden": [3], "residual": "sum"}, "field_gate": True}])
def test_layer(options: dict[str, Any]) -> None:
    layer = Final({"hidden": [6, 4], "activation": None}, **options)
    assert (layer.eats, layer.wide) == ("fields", False)
    # The gradient of some biases before a batch normalization is zero but for rounding errors.
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=["linear/bias"])


@pytest.mark.any_backend
def test_gate_layer() -> None:
    check_layer(FieldGate(), X, output_shape=(6, 4, 6, 5))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`units` must be even for residual concat.*Received: 5"):
        Final({"hidden": [5]})
    with pytest.raises(ValueError, match="`residual` must be one of concat, sum"):
        Final({"residual": "product"})
    with pytest.raises(ValueError, match=r"`hidden` must not be empty\. Received: \[\]"):
        Final({"hidden": []})
    with pytest.raises(ValueError, match=r"unknown argument 'output'\. Allowed: hidden"):
        Final(block2={"output": 3})
    with pytest.raises(UserError, match=r"`block2` must be a mapping of arguments of FactorizedBlock\. Rec"):
        create_interaction({"type": "final", "block2": [4]})
