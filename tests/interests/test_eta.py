from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load
from tests.interests.helpers import WIDTH, make_inputs, tensors
from tests.interests.test_golden import arranged
from tfctr.interests import Eta
from tfctr.layers.retrieval import code_signs


def build(width: int = WIDTH, **arguments: Any) -> Any:
    layer = Eta(**{"num_heads": 2, **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return layer


@pytest.mark.golden
def test_golden() -> None:
    case = load("eta_k5_b16")
    setting = case.hyperparameters
    layer = build(
        setting["item_dim"],
        hash_bits=setting["hash_bits"],
        top_k=setting["top_k"],
        num_heads=setting["num_heads"],
        attention_dim=setting["attention_dim"],
    )

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, empty = arranged(inputs)
        back = ops.argsort(ops.argsort(-inputs["mask"], axis=1), axis=1)
        state = layer.encode(fed["sequence"])
        output = layer(fed)
        assert not ops.any(ops.logical_and(empty, output != 0.0)), "an empty history must give zeros"
        padding = ops.mean(inputs["sequence"], axis=1, keepdims=True)
        output += ops.where(empty, layer.output_dense(layer.value(padding)), 0.0)
        distance = ops.take_along_axis(layer.distances(state, fed["candidate"])[:, 0], back, axis=1)

        def bits(x: Any) -> Any:
            return (code_signs(layer.codes(x)) + 1.0) / 2.0

        _, found = layer.search(state, fed["candidate"])
        return {
            "pooled": output[:, 0],
            "hash_target": bits(inputs["target"]),
            "hash_sequence": bits(inputs["sequence"]),
            "distance": ops.where(inputs["mask"] > 0, distance, setting["hash_bits"] + 1.0),
            "retrieved_count": ops.sum(ops.cast(found[:, 0], "float32"), axis=-1),
        }

    weights = {
        "rotation": layer.rotation,
        "long/query/kernel": layer.query.kernel,
        "long/key/kernel": layer.key.kernel,
        "long/value/kernel": layer.value.kernel,
        "long/output/kernel": layer.output_dense.kernel,
    }
    check(case, forward, weights)


@pytest.mark.parametrize("bits", [1, 15, 16, 17, 40])
def test_distances_are_counted_bits(bits: int) -> None:
    """Distances are exact for any number of bits; the unused bits of the last 16-bit code do not count."""
    inputs, layer = make_inputs(lengths=[7, 7, 7]), build(hash_bits=bits, seed=3)
    rotation = ops.convert_to_numpy(layer.rotation)
    history, target = inputs["sequence"]["events"] @ rotation > 0, inputs["candidate"]["target"] @ rotation > 0
    expected = (history[:, None] != target[:, :, None]).sum(-1)
    fed = tensors(inputs)
    state = layer.encode(fed["sequence"])
    assert tuple(state["codes"].shape) == (3, 7, -(-bits // 16))
    assert keras.backend.standardize_dtype(state["codes"].dtype) == "int32"
    np.testing.assert_array_equal(layer.distances(state, fed["candidate"]), expected)


def test_of_equal_distances_the_newer_is_found() -> None:
    inputs = make_inputs(lengths=[7, 2, 5])
    inputs["sequence"]["events"][:, 1:] = inputs["sequence"]["events"][:, :1]
    fed, layer = tensors(inputs), build(top_k=3, seed=3)
    indices, found = layer.search(layer.encode(fed["sequence"]), fed["candidate"])
    np.testing.assert_array_equal(indices[0, 0], [0, 1, 2])
    np.testing.assert_array_equal(found[1, 0], [True, True, False])


def test_the_nearest_event_is_the_candidate_itself() -> None:
    inputs = make_inputs(batch=2, candidates=7, lengths=[7, 7])
    inputs["candidate"]["target"] = inputs["sequence"]["events"] * 2.0
    fed, layer = tensors(inputs), build(top_k=1, hash_bits=64, seed=3)
    indices, _ = layer.search(layer.encode(fed["sequence"]), fed["candidate"])
    np.testing.assert_array_equal(indices[:, :, 0], np.tile(np.arange(7), (2, 1)))


def test_directions_are_seeded_and_not_trained() -> None:
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    np.testing.assert_array_equal(first.rotation, again.rotation)
    assert not np.array_equal(ops.convert_to_numpy(first.rotation), ops.convert_to_numpy(other.rotation))
    assert [weight.path for weight in first.non_trainable_weights if "rotation" in weight.path]
    assert not any("rotation" in weight.path for weight in first.trainable_weights)
    assert 0.9 < np.std(ops.convert_to_numpy(build(hash_bits=500, seed=1).rotation)) < 1.1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`hash_bits` must be a positive whole number"):
        build(hash_bits=0)
