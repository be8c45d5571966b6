from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.errors import UserError
from tfctr.interactions import FieldFacts, FinalMlp, create_interaction
from tfctr.interactions.finalmlp import BilinearFusion, FeatureSelection

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
FACTS = [
    FieldFacts("item", "candidate", "table"),
    FieldFacts("price", "candidate", "number"),
    FieldFacts("user_id", "user", "table"),
]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
SMALL: dict[str, Any] = {"mlp1": {"hidden": [8, 6]}, "mlp2": {"hidden": [4]}, "heads": 2, "selection_hidden": [7]}


def _fusion_weights(layer: BilinearFusion) -> dict[str, Any]:
    linears = {"linear_x": layer.first_linear, "linear_y": layer.second_linear}
    found = {f"{name}/{one}": getattr(dense, one) for name, dense in linears.items() for one in ("kernel", "bias")}
    return {**found, "bilinear": layer.bilinear}


@pytest.mark.golden
@pytest.mark.parametrize("name", names("finalmlp_fusion_*"))
def test_golden_fusion(name: str) -> None:
    case = load(name)
    layer = BilinearFusion(case.hyperparameters["num_heads"])
    layer.build(case["in/x"].shape, case["in/y"].shape)
    check(case, lambda inputs: {"logit": layer(inputs["x"], inputs["y"])[:, None]}, _fusion_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("finalmlp_full_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    mlp1, mlp2 = ({"hidden": options[f"mlp{i}"], "batch_norm": options[f"mlp{i}_batch_norm"]} for i in (1, 2))
    layer = FinalMlp(
        mlp1,
        mlp2,
        options["num_heads"],
        selection=options["feature_selection"],
        selection_hidden=options["gate_hidden"],
        # The contexts of the case are not among its fields. They have the width of one field.
        first=["price"] if options["gate1_context"] else [],
        second=["price"] if options["gate2_context"] else [],
        fields=[*FACTS[:2], *FACTS[2:] * 3],
    )
    layer.build(case["in/emb"].shape)
    weights = {f"fusion/{key}": weight for key, weight in _fusion_weights(layer.fusion).items()}
    for prefix, blocks in {"mlp": layer.mlps, "gate": [gate.mlp for gate in layer.gates]}.items():
        for i, block in enumerate(blocks, 1):
            for j, dense in enumerate(block.dense):
                weights |= {f"{prefix}{i}/dense{j}/{one}": getattr(dense, one) for one in ("kernel", "bias")}
            for j, norm in enumerate(block.norms):
                weights |= {f"{prefix}{i}/bn{j}/{one}": getattr(norm, one) for one in STATISTICS}
    for i, gate in enumerate(layer.gates, 1):
        weights |= {f"gate{i}/context": (gate.context, lambda array: array[0])} if gate.learned else {}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = (
            layer(inputs["emb"])
            if "u" not in inputs
            else layer.fused(ops.reshape(inputs["emb"], (7, 40)), [inputs["u"][:, 0], inputs["i"][:, 0]])
        )
        return {"logit": logit[:, None], "prob": ops.sigmoid(logit)[:, None]}

    check(case, forward, weights)


def test_fusion_by_hand() -> None:
    layer = BilinearFusion(heads=2)
    first, second = np.array([[1.0, 2.0, 3.0, 4.0]], "float32"), np.array([[5.0, -6.0]], "float32")
    layer.build(first.shape, second.shape)
    layer.first_linear.kernel.assign([[1.0], [0.0], [0.0], [-1.0]])
    layer.second_linear.bias.assign([0.5])
    layer.second_linear.kernel.assign([[1.0], [1.0]])
    layer.bilinear.assign([[[1.0], [2.0]], [[0.0], [0.5]]])
    # 1 - 4 + 5 - 6 + .5 = -3.5; the first slices give (1 + 4) 5 = 25, the second 2 (-6) = -12.
    np.testing.assert_allclose(layer(first, second), [9.5], rtol=1e-6)


def test_a_gate_of_a_learned_context_starts_at_one() -> None:
    layer = FeatureSelection(hidden=[3], learned=4)
    x = np.array([[1.0, -2.0]], "float32")
    np.testing.assert_allclose(layer(x), x, rtol=1e-6)
    layer.mlp.dense[-1].bias.assign([np.log(3.0), -np.log(3.0)])
    np.testing.assert_allclose(layer(x), [[1.5, -1.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [(["user"], [2]), (["candidate"], [0, 1]), (["user_id", "item"], [0, 2]), (["context"], []), ([], [])],
)
def test_a_gate_reads_the_fields_that_are_named(
    wanted: list[str], places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = FinalMlp(**SMALL, first=wanted, fields=FACTS)
    layer(X)
    gate = layer.gates[0]
    assert (gate.learned is None) == bool(places)
    read: list[Any] = []
    monkeypatch.setattr(layer, "fused", lambda flat, contexts, *_: read.extend(contexts))
    layer.call(X)
    assert read[1] is None
    if places:
        np.testing.assert_array_equal(read[0], X[..., places, :].reshape(6, 4, -1))
    else:
        assert read[0] is None


def test_the_model_fills_in_the_fields() -> None:
    layer = create_interaction({"type": "finalmlp", **SMALL, "first": ["user"], "second": "item"}, FACTS)
    assert layer.places == [[2], [0]]
    assert layer.get_config()["fields"] == [list(one) for one in FACTS]
    with pytest.raises(UserError, match=r"`second` names no field and no side: 'itm'\. Allowed: item, price, user_id"):
        create_interaction({"type": "finalmlp", "second": ["itm"]}, FACTS)
    deep = create_interaction({"type": "final"}, FACTS)
    assert not hasattr(deep, "places")


def test_parameters_as_logged() -> None:
    """The public run on Frappe: ten fields of width 10, tables of 5,399 rows, and own tables of 956 + 4,084 rows."""
    facts = [FieldFacts("item", "candidate", "table"), FieldFacts("user", "user", "table")]
    facts += [FieldFacts(f"context{i}", "context", "table") for i in range(8)]
    layer = FinalMlp(
        {"batch_norm": True}, {"hidden": [100], "batch_norm": True}, 5, first=["user"], second=["item"], fields=facts
    )
    layer.build((None, 10, 10))
    tables = (5_399 + 956 + 4_084) * 10
    assert sum(int(np.prod(one.shape)) for one in layer.trainable_weights) == 253_392 - tables


def test_gates_with_numbers_of_their_own() -> None:
    """The streams read the first numbers of each field, the gates the last ones, as from tables of their own."""
    layer = FinalMlp(**SMALL, first=["user"], fields=FACTS, context_width=2)
    layer.build(X.shape)
    assert [gate.learned for gate in layer.gates] == [None, 2]
    streams = X[..., :3].reshape(6, 4, 9)
    gated = [layer.gates[0](streams, X[..., 2, 3:]), layer.gates[1](streams)]
    expected = layer.fusion(*(mlp(one) for mlp, one in zip(layer.mlps, gated, strict=True)))
    np.testing.assert_allclose(layer(X), expected, rtol=1e-6)


def test_padding_candidates_change_nothing() -> None:
    layer = FinalMlp(
        {"hidden": [6], "batch_norm": True}, {"hidden": [4]}, selection_hidden=[5], first=["user"], fields=FACTS
    )
    check_padding(layer, X, MASK)


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"selection": False}, {"first": ["user"], "fields": FACTS, "context_width": 2}])
def test_layer(options: dict[str, Any]) -> None:
    layer = FinalMlp(**{**SMALL, **options})
    assert (layer.eats, layer.wide, layer.branches) == ("fields", False, 1)
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4))


@pytest.mark.any_backend
def test_selection_layer() -> None:
    context = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("float32")
    check_layer(FeatureSelection([3]), X[..., 0], call_arguments={"context": context}, output_shape=(6, 4, 3))
    check_layer(FeatureSelection([3], learned=2), X[..., 0], output_shape=(6, 4, 3))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`heads` must divide the widths \[8, 6\] of both streams\. Received: 4"):
        FinalMlp({"hidden": [8]}, {"hidden": [6]}, heads=4)(X)
    named = FinalMlp(first=["user"])  # its fields are not known yet
    with pytest.raises(ValueError, match=r"`fields` must have the facts of 3 fields\. Received: those of 0"):
        named(X)
    with pytest.raises(ValueError, match="`second` is for a backbone with `selection` only"):
        FinalMlp(selection=False, second=["user"], fields=FACTS)
    with pytest.raises(ValueError, match="`context_width` is for a backbone with `selection` only"):
        FinalMlp(selection=False, context_width=2)
    with pytest.raises(ValueError, match=r"`context_width` must be below the width of the fields, 5\. Received: 5"):
        FinalMlp(context_width=5)(X)
    with pytest.raises(UserError, match=r"`mlp2` must be a mapping of arguments of MlpBlock\. Received: \[4\]"):
        create_interaction({"type": "finalmlp", "mlp2": [4]})
    with pytest.raises(ValueError, match=r"`context` must be given, unless it is learned"):
        FeatureSelection([3])(X)
