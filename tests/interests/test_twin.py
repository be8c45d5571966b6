from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names, present
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_golden import arranged
from tfctr.interests import TargetAttention, Twin


def build(width: int = WIDTH, **arguments: Any) -> Any:
    layer = Twin(**{"num_heads": 2, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


@pytest.mark.golden
@pytest.mark.parametrize("name", present(names("twin_*")))
def test_golden(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    layer = build(
        setting["item_dim"],
        top_k=setting["top_k"],
        num_heads=setting["num_heads"],
        attention_dim=setting["attention_dim"],
    )

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, empty = arranged(inputs)
        output = layer(fed)
        assert not ops.any(ops.logical_and(empty, output != 0.0)), "an empty history must give zeros"
        padding = ops.mean(inputs["sequence"], axis=1, keepdims=True)
        return {"pooled": (output + ops.where(empty, layer.output_dense(layer.value(padding)), 0.0))[:, 0]}

    weights = {
        "query/kernel": layer.query.kernel,
        "key/kernel": layer.key.kernel,
        "value/kernel": layer.value.kernel,
        "output/kernel": layer.output_dense.kernel,
    }
    check(case, forward, weights)


@pytest.mark.parametrize("top_k", [7, 30])
def test_finding_everything_is_target_attention(top_k: int) -> None:
    layer, inputs = build(top_k=top_k), tensors(make_inputs())
    plain = TargetAttention(num_heads=2)
    plain.build({"sequence": {"events": (None, None, WIDTH)}})
    for name in ("query", "key", "value", "output_dense"):
        getattr(plain, name).kernel.assign(getattr(layer, name).kernel)
    np.testing.assert_allclose(layer(inputs), plain(inputs), rtol=1e-5, atol=1e-6)


def test_by_hand() -> None:
    """Each of the two heads has one coordinate and finds two events, and not the same ones."""
    layer = build(2, top_k=2, num_heads=2, age_bias=True)
    for dense in (layer.query, layer.key, layer.value, layer.output_dense):
        dense.kernel.assign(np.eye(2))
    layer.age_scores.assign(np.zeros((34, 2)))
    log = np.log
    inputs = {
        "sequence": {
            "events": ops.array([[[0.0, log(4.0)], [log(3.0), -9.0], [-9.0, log(2.0)], [50.0, 50.0]]]),
            "length": ops.array([3]),
            "ages": ops.array([[1, 5, 9, 9]]),
        },
        "candidate": {"target": ops.array([[[1.0, 1.0]]])},
    }
    # Head 0 finds events 0 and 1 with the weights 1/4 and 3/4, head 1 events 0 and 2 with the weights 2/3 and 1/3.
    expected = [0.75 * log(3.0), log(4.0) * 2 / 3 + log(2.0) / 3]
    np.testing.assert_allclose(layer(inputs), [[expected]], rtol=1e-6)
    # The score of its age puts event 2 before the other two in head 0: -9 + 20 = 11 is far above log 1 and log 3.
    layer.age_scores.assign(np.where(np.arange(34)[:, None] == 9, [[20.0, 0.0]], 0.0))
    share = 1.0 / (1.0 + 3.0 * np.exp(-11.0))
    expected[0] = -9.0 * share + log(3.0) * (1.0 - share)
    np.testing.assert_allclose(layer(inputs), [[expected]], rtol=1e-5)


def test_without_ages_all_are_unknown() -> None:
    inputs, layer = make_inputs(), build(top_k=3, age_bias=True)
    inputs["sequence"]["ages"][:] = 0
    unknown = ops.convert_to_numpy(layer(tensors(inputs)))
    del inputs["sequence"]["ages"]
    np.testing.assert_array_equal(layer(tensors(inputs)), unknown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "`top_k` must be a positive whole number"),
        ({"age_bias": 3}, "`age_bias` must be true or false"),
        ({"dropout": 1.0}, "`dropout` must be at least 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
