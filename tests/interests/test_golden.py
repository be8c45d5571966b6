"""DIN and target attention against the numbers of the public implementation."""

from typing import Any

import pytest
from keras import ops

from tests.golden_cases import GoldenCase, check, load, names, present
from tfctr.interests import Din, TargetAttention

pytestmark = pytest.mark.golden

DIN = present(names("din_attention_*"))
ATTENTION = present(names("target_attention_*"))


def arranged(inputs: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], Any]:
    """The case's inputs with real steps first, and which rows are all padding, `[B, 1, 1]`.

    The cases have padding on the left and between real steps, while our interests expect it on the right. The order of
    the steps does not matter to either implementation, and gradients pass back through the gather.
    """
    sequence = inputs["sequence"]
    mask = inputs.get("mask", ops.ones(sequence.shape[:2]))
    order = ops.argsort(-mask, axis=1)
    length = ops.cast(ops.sum(mask, axis=1), "int32")
    fed = {
        "sequence": {"events": ops.take_along_axis(sequence, order[..., None], axis=1), "length": length},
        "candidate": {"target": inputs["target"][:, None]},
    }
    return fed, (length == 0)[:, None, None]


def padding_average(layer: Any, sequence: Any, empty: Any) -> Any:
    """The average of the padding in rows that are all padding, and zeros in other rows.

    A reference with a softmax gives this average for such rows, while ours gives zeros. Added to our output, it lets
    outputs and gradients be compared for all rows.
    """
    average = ops.mean(sequence, axis=1, keepdims=True)
    if isinstance(layer, TargetAttention) and layer.projections:
        average = layer.output_dense(layer.value(average))
    return ops.where(empty, average, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIN)
def test_din(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    training = case.entry["mode"] == "train"
    layer = Din(
        hidden=setting["hidden"],
        activation=setting["activation"],
        softmax=setting["use_softmax"],
        padding_statistics=training,
    )
    layer.build({"sequence": {"events": (None, None, setting["item_dim"])}})

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, empty = arranged(inputs)
        output = layer(fed, training=training)
        assert not ops.any(ops.logical_and(empty, output != 0.0)), "an empty history must give zeros"
        if layer.softmax:
            output += padding_average(layer, inputs["sequence"], empty)
        return {"pooled": output[:, 0]}

    weights = {"unit/dense0/kernel": layer.kernel, "unit/dense0/bias": layer.bias}
    for i, dense in enumerate(layer.dense, start=1):
        weights |= {f"unit/dense{i}/kernel": dense.kernel, f"unit/dense{i}/bias": dense.bias}
    after = {}
    if setting["activation"] == "dice":
        for i, dice in enumerate(layer.activations):
            assert dice.normalization.epsilon == setting["dice_eps"]
            assert dice.normalization.momentum == setting["dice_moving_average_keep"]
            statistics = {
                "moving_mean": dice.normalization.moving_mean,
                "moving_variance": dice.normalization.moving_variance,
            }
            weights |= {f"unit/dice{i}/{key}": value for key, value in statistics.items()}
            weights[f"unit/dice{i}/alpha"] = dice.alpha
            if training:
                after |= {f"dice{i}/{key}_after": value for key, value in statistics.items()}
    check(case, forward, weights, after=after)


def attention_weights(case: GoldenCase, layer: TargetAttention) -> dict[str, Any]:
    if not case.hyperparameters["projections"]:
        return {}
    return {
        "query/kernel": layer.query.kernel,
        "key/kernel": layer.key.kernel,
        "value/kernel": layer.value.kernel,
        "output/kernel": layer.output_dense.kernel,
    }


@pytest.mark.parametrize("name", ATTENTION)
def test_target_attention(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    layer = TargetAttention(
        num_heads=setting["num_heads"],
        attention_dim=setting["attention_dim"],
        projections=setting["projections"],
        scale=setting["scale"] != "none",
    )
    layer.build({"sequence": {"events": (None, None, setting["item_dim"])}})

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, empty = arranged(inputs)
        output = layer(fed)
        assert not ops.any(ops.logical_and(empty, output != 0.0)), "an empty history must give zeros"
        return {"pooled": (output + padding_average(layer, inputs["sequence"], empty))[:, 0]}

    check(case, forward, attention_weights(case, layer))
