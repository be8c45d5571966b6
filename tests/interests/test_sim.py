from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.golden_cases import check, load
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_golden import arranged
from tfctr.interests import Sim, TargetAttention


def build(width: int = WIDTH, **arguments: Any) -> Any:
    layer = Sim(**{"num_heads": 2, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


@pytest.mark.golden
def test_golden_soft() -> None:
    """Padding competes with the events, as in the reference; otherwise three of the seven rows would find more."""
    case = load("sim_soft_k5")
    setting = case.hyperparameters
    layer = Sim(
        top_k=setting["top_k"],
        num_heads=setting["num_heads"],
        attention_dim=setting["attention_dim"],
        padding_competes=True,
    )
    layer.build({"sequence": {"events": (None, None, setting["item_dim"])}})

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, empty = arranged(inputs)
        order = ops.argsort(-inputs["mask"], axis=1)
        back = ops.argsort(order, axis=1)
        state = layer.encode(fed["sequence"])
        output, _ = layer.attend(state, fed["candidate"], {})
        assert not ops.any(ops.logical_and(empty, output != 0.0)), "an empty history must give zeros"
        padding = ops.mean(inputs["sequence"], axis=1, keepdims=True)
        output += ops.where(empty, layer.output_dense(layer.value(padding)), 0.0)
        indices, found = layer.search(state, fed["candidate"])
        # Where the reference retrieves a padded step, it returns that step's vector, while ours returns index 0. In
        # this case all padded steps of a row hold the same vector.
        retrieved = ops.take_along_axis(fed["sequence"]["events"], indices[:, 0, :, None], axis=1)
        padded = inputs["sequence"] * (1.0 - inputs["mask"])[..., None]
        padded = ops.sum(padded, 1) / ops.maximum(ops.sum(1.0 - inputs["mask"], 1), 1.0)[:, None]
        return {
            "search_score": ops.take_along_axis(layer.scores(state, fed["candidate"])[:, 0], back, axis=1),
            "search_pooled": layer.pooled(state, fed["candidate"])[:, 0],
            "retrieved_pooled": output[:, 0],
            "retrieved": ops.where(found[:, 0, :, None], retrieved, padded[:, None]),
            "retrieved_mask": ops.cast(found[:, 0], "float32"),
        }

    weights = {
        "search/query/kernel": layer.search_query.kernel,
        "search/key/kernel": layer.search_key.kernel,
        "long/query/kernel": layer.query.kernel,
        "long/key/kernel": layer.key.kernel,
        "long/value/kernel": layer.value.kernel,
        "long/output/kernel": layer.output_dense.kernel,
    }
    check(case, forward, weights)


def found_steps(layer: Any, inputs: Any, b: int, c: int) -> list[int]:
    fed = tensors(inputs)
    indices, found = layer.search(layer.encode(fed["sequence"]), fed["candidate"])
    return [int(i) for i in ops.convert_to_numpy(indices)[b, c][ops.convert_to_numpy(found)[b, c]]]


def test_padding_is_never_preferred_to_an_event() -> None:
    """All scores are negative, so in the reference the padding, whose score is 0, would win."""
    inputs = make_inputs(batch=1, candidates=1, length=7, lengths=[4])
    inputs["sequence"]["events"] = np.abs(inputs["sequence"]["events"])
    inputs["candidate"]["target"] = -np.abs(inputs["candidate"]["target"])
    for competes, expected in ((False, 3), (True, 0)):
        layer = build(top_k=3, padding_competes=competes)
        for dense in (layer.search_query, layer.search_key):
            dense.kernel.assign(np.eye(WIDTH))
        assert len(found_steps(layer, inputs, 0, 0)) == expected


def test_soft_finds_the_largest_inner_products() -> None:
    inputs = make_inputs(length=7, lengths=[7, 2, 5])
    layer = build(top_k=3)
    key = inputs["sequence"]["events"] @ ops.convert_to_numpy(layer.search_key.kernel)
    query = inputs["candidate"]["target"] @ ops.convert_to_numpy(layer.search_query.kernel)
    scores = np.einsum("bcd,bld->bcl", query, key)
    for b, length in enumerate([7, 2, 5]):
        for c in range(5):
            assert found_steps(layer, inputs, b, c) == np.argsort(-scores[b, c, :length])[:3].tolist()


def hard_inputs() -> Any:
    inputs = make_inputs(batch=1, candidates=4, length=6, lengths=[5])
    inputs["sequence"]["ids/brand"] = np.array([[7, 8, 7, 0, 7, 7]], "int32")
    inputs["candidate"]["ids/brand"] = np.array([[7, 8, 9, 0]], "int32")
    inputs["sequence"]["ids/genres"] = np.array([[[1, 2], [3, 0], [4, 1], [0, 0], [2, 0], [1, 1]]], "int32")
    inputs["candidate"]["ids/genres"] = np.array([[[2, 0], [3, 4], [5, 0], [0, 0]]], "int32")
    return inputs


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("brand", [[0, 2], [1], [], []]),
        ("genres", [[0, 4], [1, 2], [], []]),
        (["brand", "genres"], [[0, 2], [1, 2], [], []]),
    ],
)
def test_hard_finds_the_newest_of_the_category(category: Any, expected: list[list[int]]) -> None:
    """The newest events are found first, at most K of them; padded steps and missing ids never match."""
    layer, inputs = build(search="hard", category=category, top_k=2), hard_inputs()
    assert [found_steps(layer, inputs, 0, c) for c in range(4)] == expected
    output = ops.convert_to_numpy(layer(tensors(inputs)))
    assert output[0, :2].any(axis=-1).all()
    assert not output[0, 2:].any(), "nothing found gives zeros"
    assert layer.auxiliary == {}


def test_attention_by_hand() -> None:
    """The events found have the scores 0 and log 3; the one of another brand would change the result."""
    layer = build(width=1, search="hard", category="brand", num_heads=1, top_k=5)
    for dense in (layer.query, layer.key, layer.output_dense):
        dense.kernel.assign([[1.0]])
    layer.value.kernel.assign([[10.0]])
    inputs = {
        "sequence": {
            "events": ops.array([[[0.0], [9.0], [np.log(3.0)]]]),
            "length": ops.array([3]),
            "ids/brand": ops.array([[1, 2, 1]]),
        },
        "candidate": {"target": ops.array([[[1.0]]]), "ids/brand": ops.array([[1]])},
    }
    np.testing.assert_allclose(layer(inputs), [[[7.5 * np.log(3.0)]]], rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"search": "soft"}, {"search": "hard", "category": "brand"}])
def test_finding_everything_is_target_attention(arguments: dict[str, Any]) -> None:
    inputs = make_inputs()
    for side in ("sequence", "candidate"):
        inputs[side]["ids/brand"][:] = 1
    layer = build(top_k=7, **arguments)
    plain = TargetAttention(num_heads=2)
    plain.build({"sequence": {"events": (None, None, WIDTH)}})
    for name in ("query", "key", "value", "output_dense"):
        getattr(plain, name).kernel.assign(getattr(layer, name).kernel)
    np.testing.assert_allclose(layer(tensors(inputs)), plain(tensors(inputs)), rtol=1e-5, atol=1e-6)


def test_the_searchs_logit_pools_by_the_scores() -> None:
    """The pooled vector u, computed from the matrix in the state, is the sum of the events times their scores."""
    layer, inputs = build(top_k=2), tensors(make_inputs())
    state = layer.encode(inputs["sequence"])
    scores = ops.convert_to_numpy(layer.scores(state, inputs["candidate"]))
    assert not scores[1].any(), "padding scores 0"
    expected = scores @ ops.convert_to_numpy(inputs["sequence"]["events"])
    np.testing.assert_allclose(layer.pooled(state, inputs["candidate"]), expected, rtol=1e-4, atol=1e-5)
    _, logits = layer.attend(state, inputs["candidate"], {})
    x = np.concatenate([expected, ops.convert_to_numpy(inputs["candidate"]["target"])], axis=-1)
    for i, dense in enumerate(layer.head):
        x = x @ ops.convert_to_numpy(dense.kernel) + ops.convert_to_numpy(dense.bias)
        x = np.maximum(x, 0.0) if i == 0 else x
    np.testing.assert_allclose(logits["search"], x[..., 0], rtol=1e-4, atol=1e-4)


def test_the_search_is_trained_by_its_logit_only() -> None:
    layer, inputs = build(top_k=2, auxiliary_weight=0.5), tensors(make_inputs())
    assert layer.auxiliary == {"search": 0.5}
    searching = [w for w in layer.trainable_weights if "search" in w.path]
    assert len(searching) == 6
    for chosen, moved in ((0, False), (1, True)):

        def loss(_: Any, chosen: int = chosen) -> Any:
            output, logits = layer.attend(layer.encode(inputs["sequence"]), inputs["candidate"], {}, training=True)
            return ops.sum(ops.square((output, logits["search"])[chosen]))

        _, _, found = gradients(loss, variables=searching)
        assert [one is not None and bool(np.any(ops.convert_to_numpy(one))) for one in found] == [moved] * 6


def test_ages_reach_keys_and_values() -> None:
    inputs = make_inputs(lengths=[7, 7, 7])
    layer = build(top_k=7, age_dim=3)
    older = {**inputs, "sequence": {**inputs["sequence"], "ages": inputs["sequence"]["ages"] // 2}}
    assert not np.allclose(layer(tensors(inputs)), layer(tensors(older)))
    inputs["sequence"]["ages"][:] = 0
    unknown = ops.convert_to_numpy(layer(tensors(inputs)))
    del inputs["sequence"]["ages"]
    np.testing.assert_array_equal(layer(tensors(inputs)), unknown)


def test_state_of_the_soft_search() -> None:
    """A model passes a category to either search, but the soft search neither needs nor keeps its ids."""
    state = build(attention_dim=6, category="brand").encode(tensors(make_inputs()["sequence"]))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "length": (3,),
        "key_value": (3, 7, 12),
        "search_key": (3, 7, 6),
        "search_sum": (3, 8, 6),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "cosine"}, "`search` must be one of soft, hard"),
        ({"search": "hard"}, "`category` must be given for the hard search"),
        ({"search": "hard", "category": ["brand", "brand"]}, "`category` must name one feature or a list"),
        ({"search": "hard", "category": "brand", "padding_competes": True}, "`padding_competes` must be false"),
        ({"auxiliary_weight": 0.0}, "`auxiliary_weight` must be a positive number"),
        ({"auxiliary_units": 3}, "`auxiliary_units` must be a list"),
        ({"top_k": 0}, "`top_k` must be a positive whole number"),
        ({"attention_dim": 5}, "`attention_dim` must be a multiple of `num_heads`, 2"),
        ({"num_heads": 3}, "`num_heads` must divide the width of the events"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
