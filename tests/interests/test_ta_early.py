"""Early fusion in both forms of the similarity. That it folds into DTA is tested in test_identities.py."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.layer_checks import check_layer
from tfctr.interests import EarlyFusionAttention

# Two events, one similar to the first candidate and one opposite, and padding; the second candidate has no vector.
INPUTS: dict[str, dict[str, Any]] = {
    "sequence": {
        "events": ops.array([[[1.0], [1.0], [5.0]]]),
        "length": ops.array([2]),
        "rows/text": ops.array([[1, 2, 3]]),
        "vectors/text": ops.array([[[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]),
    },
    "candidate": {
        "target": ops.array([[[1.0], [1.0]]]),
        "rows/text": ops.array([[4, 0]]),
        "vectors/text": ops.array([[[1.0, 0.0], [0.0, 0.0]]]),
    },
}


def build(width: int = WIDTH, **arguments: Any) -> EarlyFusionAttention:
    layer = EarlyFusionAttention(**{"frozen": "text", "num_heads": 2, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


def by_hand(**arguments: Any) -> EarlyFusionAttention:
    layer = build(width=1, num_heads=1, scale=False, **arguments)
    layer.query.kernel.assign([[1.0]])
    layer.output_dense.kernel.assign([[1.0]])
    return layer


def test_buckets_by_hand() -> None:
    layer = by_hand(bins=2)
    layer.tables["text"].assign([[0.0], [1.0], [2.0]])
    layer.key.kernel.assign([[1.0], [np.log(3.0)]])
    layer.value.kernel.assign([[1.0], [10.0]])
    # Candidate 0 has the scores 1 and 1 + log 3, the weights 1/4 and 3/4, and the values 1 and 1 + 10. For candidate 1
    # both events are in the bucket for missing vectors, with the weights 1/2 and the values 1 + 20.
    np.testing.assert_allclose(layer(INPUTS), [[[0.25 * 1 + 0.75 * 11], [21.0]]], rtol=1e-6)


def test_scalar_by_hand() -> None:
    layer = by_hand(similarity="scalar")
    layer.key.kernel.assign([[1.0], [np.log(3.0)]])
    layer.value.kernel.assign([[1.0], [10.0]])
    # Candidate 0 has the scores 1 - log 3 and 1 + log 3, the weights 1/10 and 9/10, and the values 1 - 10 and 1 + 10.
    # For candidate 1, which has no vector, the similarities are 0.
    np.testing.assert_allclose(layer(INPUTS), [[[0.1 * -9 + 0.9 * 11], [1.0]]], rtol=1e-6)


def test_scalars_of_several_tables_are_joined() -> None:
    inputs = make_inputs(lengths=[7, 7, 7])
    layer = build(frozen=["text", "image"], similarity="scalar", num_heads=1, output_projection=False)
    joined = [np.repeat(inputs["sequence"]["events"][:, None], 5, axis=1)]
    for name in ("text", "image"):
        candidate, history = (inputs[side][f"vectors/{name}"] for side in ("candidate", "sequence"))
        # Row 0 holds the zero vector, so the similarity with a missing vector is 0 without further code.
        joined.append(np.einsum("bcm,blm->bcl", candidate, history)[..., None])
    z = np.concatenate(joined, axis=-1)
    query, key, value = (ops.convert_to_numpy(getattr(layer, name).kernel) for name in ("query", "key", "value"))
    scores = np.einsum("bcd,bcld->bcl", inputs["candidate"]["target"] @ query, z @ key) / np.sqrt(WIDTH)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        layer(tensors(inputs)), np.einsum("bcl,bcld->bcd", weights, z @ value), rtol=1e-4, atol=1e-5
    )


def test_a_missing_vector_may_hold_anything() -> None:
    inputs, broken = make_inputs(), make_inputs()
    for one in (inputs, broken):
        one["candidate"]["rows/text"][:, 0] = 0
    broken["candidate"]["vectors/text"][:, 0] = np.nan
    for similarity in ("bucket", "scalar"):
        layer = build(similarity=similarity)
        np.testing.assert_array_equal(layer(tensors(inputs)), layer(tensors(broken)))


@pytest.mark.any_backend
def test_soft_buckets_stand_the_layer_checks() -> None:
    check_layer(
        EarlyFusionAttention("text", bins=4, soft_buckets=True, similarity_dim=3, num_heads=2, attention_dim=6),
        make_inputs(),
        output_shape=[3, 5, WIDTH],
    )


def test_state_holds_the_events_alone() -> None:
    state = build().encode(tensors(make_inputs()["sequence"]))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == {"events": (3, 7, WIDTH), "length": (3,), "rows/text": (3, 7)}


def test_weights_are_counted_once() -> None:
    layer = build(bins=4, similarity_dim=3)
    shapes = {tuple(weight.shape) for weight in layer.weights}
    assert shapes == {(WIDTH, WIDTH), (WIDTH + 3, WIDTH), (5, 3)}
    assert len(layer.weights) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"similarity": "cosine"}, "`similarity` must be one of bucket, scalar"),
        ({"bins": 0}, "`bins` must be a positive whole number"),
        ({"similarity_dim": 0}, "`similarity_dim` must be a positive whole number"),
        ({"frozen": []}, "`frozen` must name one frozen table or a list"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyFusionAttention(**{"frozen": "text", **arguments})
