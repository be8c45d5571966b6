from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_ta_early import INPUTS
from tfctr.interests import BehaviorFeatureSplit, TargetAttention


def build(width: int = WIDTH, **arguments: Any) -> BehaviorFeatureSplit:
    layer = BehaviorFeatureSplit(**{"frozen": "text", "num_heads": 2, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return layer


def test_by_hand() -> None:
    layer = build(width=1, num_heads=1, scale=False)
    for dense in (layer.query, layer.key, layer.output_dense):
        dense.kernel.assign([[1.0]])
    layer.value.kernel.assign([[2.0]])
    layer.betas["text"].assign([np.log(3.0)])
    events = ops.array([[[1.0], [2.0], [5.0]]])
    inputs = {**INPUTS, "sequence": {**INPUTS["sequence"], "events": events}}
    # Candidate 0 has the scores 1 - log 3 and 2 + log 3. Candidate 1 has no vector, so its scores are 1 and 2.
    first = 1.0 / (1.0 + 9.0 * np.e)
    second = 1.0 / (1.0 + np.e)
    expected = [[2 * first + 4 * (1 - first)], [2 * second + 4 * (1 - second)]]
    np.testing.assert_allclose(layer(INPUTS), [[[2.0], [2.0]]], rtol=1e-6)
    np.testing.assert_allclose(layer(inputs), [expected], rtol=1e-6)


def test_beta_starts_at_one_and_zero_is_target_attention() -> None:
    inputs, plain = tensors(make_inputs()), randomize(TargetAttention(num_heads=2))
    plain(inputs)
    layer = build(frozen=["text", "image"])
    for name in ("query", "key", "value", "output_dense"):
        getattr(layer, name).kernel.assign(getattr(plain, name).kernel)
    for beta in layer.betas.values():
        np.testing.assert_array_equal(beta, [1.0, 1.0])
    assert not np.allclose(layer(inputs), plain(inputs), atol=1e-3)
    for beta in layer.betas.values():
        beta.assign([0.0, 0.0])
    np.testing.assert_allclose(layer(inputs), plain(inputs), rtol=1e-5, atol=1e-6)


def test_a_large_beta_reads_the_most_similar_event() -> None:
    inputs = make_inputs(lengths=[7, 5, 2])
    layer = randomize(build(output_projection=False))
    layer.betas["text"].assign([1e4, 1e4])
    for side in ("sequence", "candidate"):
        inputs[side]["rows/text"][:] = 1
    generator = np.random.default_rng(5)
    vectors = generator.normal(size=(3, 7, 6))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    inputs["sequence"]["vectors/text"] = vectors.astype("float32")
    # Each candidate has the vector of one event.
    chosen = np.array([[0, 6, 2, 3, 1], [4, 0, 1, 2, 3], [0, 1, 0, 1, 0]])
    inputs["candidate"]["vectors/text"] = np.take_along_axis(vectors, chosen[..., None], axis=1).astype("float32")
    values = inputs["sequence"]["events"] @ ops.convert_to_numpy(layer.value.kernel)
    expected = np.take_along_axis(values, chosen[..., None], axis=1)
    np.testing.assert_allclose(layer(tensors(inputs)), expected, rtol=1e-4, atol=1e-5)


def test_values_know_nothing_of_the_similarity() -> None:
    """A single event has the weight 1 whatever its score, so only its value could depend on the similarity."""
    inputs, other = make_inputs(length=1, lengths=[1, 1, 1]), make_inputs(length=1, lengths=[1, 1, 1])
    for side in ("sequence", "candidate"):
        other[side]["vectors/text"] = -other[side]["vectors/text"][::-1]
    layer = randomize(build())
    np.testing.assert_allclose(layer(tensors(inputs)), layer(tensors(other)), rtol=1e-6)


def test_each_table_adds_its_own_similarity() -> None:
    inputs = make_inputs(lengths=[7, 5, 2])
    layer = randomize(build(frozen=["text", "image"], output_projection=False))
    query, key, value = (ops.convert_to_numpy(getattr(layer, name).kernel) for name in ("query", "key", "value"))
    events = inputs["sequence"]["events"]
    q, k, v = (x.reshape(3, -1, 2, 4) for x in (inputs["candidate"]["target"] @ query, events @ key, events @ value))
    scores = np.einsum("bchd,blhd->bhcl", q, k) / 2.0
    for name in ("text", "image"):
        candidate, history = (inputs[side][f"vectors/{name}"] for side in ("candidate", "sequence"))
        # Row 0 holds the zero vector, so the similarity with a missing vector is 0 without further code.
        beta = ops.convert_to_numpy(layer.betas[name])
        scores += beta[:, None, None] * np.einsum("bcm,blm->bcl", candidate, history)[:, None]
    real = np.arange(7) < inputs["sequence"]["length"][:, None]
    weights = np.exp(scores) * real[:, None, None]
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum("bhcl,blhd->bchd", weights, v).reshape(3, 5, WIDTH)
    np.testing.assert_allclose(layer(tensors(inputs)), expected, rtol=1e-4, atol=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`frozen` must name one frozen table or a list"):
        build(frozen=["text", "text"])
