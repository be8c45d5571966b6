"""Late fusion: branches for ids and for similarities, whose outputs one matrix joins."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_ta_early import INPUTS
from tests.layer_checks import check_layer
from tfctr.interests import DecoupledTargetAttention, LateFusionAttention
from tfctr.interests.ta_late import SimilarityAttention


def build(cls: Any = LateFusionAttention, width: int = WIDTH, **arguments: Any) -> Any:
    layer = cls(**{"frozen": "text", "num_heads": 2, "bins": 5, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


def test_by_hand() -> None:
    layer = build(width=1, num_heads=1, bins=2, scale=False)
    for dense in (layer.attention.query, layer.attention.key, layer.attention.value, layer.branches[0].query):
        dense.kernel.assign([[1.0]])
    layer.branches[0].key_table.assign([[0.0], [np.log(3.0)], [0.0]])
    layer.branches[0].value_table.assign([[10.0], [20.0], [30.0]])
    layer.output_dense.kernel.assign([[100.0], [1.0]])
    # The branch of the ids averages two equal events to 1. That of the similarities weighs 10 and 20 by 1/4 and 3/4 for
    # candidate 0, and gives 30 for candidate 1, which has no vector.
    np.testing.assert_allclose(layer(INPUTS), [[[100 + 0.25 * 10 + 0.75 * 20], [100 + 30]]], rtol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"frozen": ["text", "image"]}, {"branch": "histogram", "attention_dim": 6}])
def test_is_its_branches_joined(arguments: dict[str, Any]) -> None:
    layer, inputs = build(**arguments), tensors(make_inputs())
    parts = [part(inputs) for part in (layer.attention, *layer.branches)]
    assert len(parts) == 1 + len(layer.branches)
    np.testing.assert_allclose(
        layer(inputs), ops.matmul(ops.concatenate(parts, axis=-1), layer.output_dense.kernel), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("soft", [False, True])
def test_the_branch_is_dta_without_ids(soft: bool) -> None:
    branch = build(SimilarityAttention, soft_buckets=soft)
    dta = build(DecoupledTargetAttention, soft_buckets=soft, output_projection=False)
    for dense in (dta.key, dta.value):
        dense.kernel.assign(np.zeros((WIDTH, WIDTH)))
    dta.query.kernel.assign(branch.query.kernel)
    dta.key_tables["text"].assign(branch.key_table)
    dta.value_tables["text"].assign(branch.value_table)
    inputs = tensors(make_inputs())
    np.testing.assert_allclose(branch(inputs), dta(inputs), rtol=1e-5, atol=1e-6)


def test_ids_and_similarities_do_not_see_each_other() -> None:
    """The output is the sum of a term of the ids and a term of the similarities, unlike that of DTA."""
    inputs, other = make_inputs(seed=0), make_inputs(seed=1, lengths=make_inputs()["sequence"]["length"].tolist())

    def mixed(events: dict[str, Any], vectors: dict[str, Any]) -> Any:
        sequence = {**vectors["sequence"], "events": events["sequence"]["events"]}
        return tensors({"sequence": sequence, "candidate": inputs["candidate"], "context": {}})

    for cls, separate in ((LateFusionAttention, True), (DecoupledTargetAttention, False)):
        layer = build(cls)
        a, b, c, d = (
            ops.convert_to_numpy(layer(mixed(*one)))
            for one in ((inputs, inputs), (other, inputs), (inputs, other), (other, other))
        )
        assert np.allclose(a - b, c - d, atol=1e-5) == separate


@pytest.mark.any_backend
def test_similarity_attention_stands_the_layer_checks() -> None:
    layer = SimilarityAttention("text", bins=5, num_heads=2, attention_dim=6, soft_buckets=True)
    check_layer(layer, make_inputs(), output_shape=[3, 5, 6])


def test_state_is_that_of_target_attention_and_rows() -> None:
    state = build(frozen=["text", "image"]).encode(tensors(make_inputs()["sequence"]))
    assert sorted(state) == ["key", "length", "rows/image", "rows/text", "value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branch": "mean"}, "`branch` must be one of attention, histogram"),
        ({"bins": 0}, "`bins` must be a positive whole number"),
        ({"branch": "histogram", "counts": "sqrt"}, "`counts` must be one of raw"),
        ({"activation": "tanh"}, "`activation` must be one of softmax, sigmoid, relu"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="`num_heads` must divide the width of the events"):
        build(num_heads=3)
