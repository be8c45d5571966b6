import math
from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names, present
from tests.interests.helpers import WIDTH, make_inputs, tensors
from tests.interests.test_golden import arranged
from tfctr.interests import Sdim


def build(width: int = WIDTH, **arguments: Any) -> Any:
    layer = Sdim(**arguments)
    layer.build({"sequence": {"events": (None, None, width)}})
    return layer


@pytest.mark.golden
@pytest.mark.parametrize("name", present(names("sdim_*")))
def test_golden(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    layer = build(
        setting["item_dim"],
        num_hashes=setting["num_hashes"],
        hash_bits=setting["hash_bits"],
        l2_normalise=setting["l2_normalise"],
    )

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        fed, _ = arranged(inputs)
        return {
            "pooled": layer(fed)[:, 0],
            "bucket_target": ops.cast(layer.codes(inputs["target"]), "float32"),
            "bucket_sequence": ops.cast(layer.codes(inputs["sequence"]), "float32"),
        }

    assert not case["grad/target"].any()
    # The output is not differentiable in the target: here the gradient is None, in the case it holds zeros.
    check(case, forward, {"rotation": layer.rotation}, ignored=["target"])


def test_by_hand() -> None:
    """There are two tables of one bit, which are the signs of the first and of the second coordinate."""
    events = np.array([[[3.0, 4.0], [1.0, -1.0], [-5.0, 12.0], [7.0, 7.0]]], "float32")
    inputs = {
        "sequence": {"events": ops.array(events), "length": ops.array([3])},
        "candidate": {"target": ops.array([[[2.0, 1.0], [-1.0, -2.0]]])},
    }
    # Candidate 0 has the signs (+, +), so the tables give (3, 4) + (1, -1) = (4, 3) and (3, 4) + (-5, 12) = (-2, 16).
    # Candidate 1 has the signs (-, -), so they give (-5, 12) and (1, -1).
    sums = np.array([[[4.0, 3.0], [-2.0, 16.0]], [[-5.0, 12.0], [1.0, -1.0]]])
    for normalise in (False, True):
        layer = build(2, num_hashes=2, hash_bits=1, l2_normalise=normalise)
        layer.rotation.assign(np.eye(2)[:, :, None])
        rows = sums / np.linalg.norm(sums, axis=-1, keepdims=True) if normalise else sums
        np.testing.assert_allclose(layer(inputs)[0], rows.mean(axis=1), rtol=1e-6)


def test_expected_weight_is_a_power_of_the_angle() -> None:
    """Over many tables an event weighs (1 - angle / pi)^bits."""
    angle = 1.0
    inputs = {
        "sequence": {"events": ops.array([[[1.0, 0.0]]]), "length": ops.array([1])},
        "candidate": {"target": ops.array([[[math.cos(angle), math.sin(angle)]]])},
    }
    for bits in (1, 2, 3):
        layer = build(2, num_hashes=4000, hash_bits=bits, l2_normalise=False, seed=5)
        weight = float(ops.convert_to_numpy(layer(inputs))[0, 0, 0])
        assert weight == pytest.approx((1 - angle / math.pi) ** bits, abs=0.03)


def test_state_does_not_grow_with_the_history() -> None:
    layer = build(num_hashes=3, hash_bits=2)
    for length in (1, 7, 50):
        state = layer.encode(tensors(make_inputs(length=length)["sequence"]))
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"buckets": (3, 12, WIDTH)}


def test_without_a_collision_the_output_is_zero() -> None:
    layer = build(2, num_hashes=1, hash_bits=2)
    layer.rotation.assign(np.eye(2)[:, None])
    sequence = {"events": ops.array([[[1.0, 1.0]]]), "length": ops.array([1])}
    output = layer({"sequence": sequence, "candidate": {"target": ops.array([[[-1.0, 1.0], [2.0, 5.0]]])}})
    np.testing.assert_allclose(output, [[[0.0, 0.0], [0.5**0.5, 0.5**0.5]]], rtol=1e-6)


def test_directions_are_seeded_and_not_trained() -> None:
    first, again = build(seed=1), build(seed=1)
    np.testing.assert_array_equal(first.rotation, again.rotation)
    assert len(first.weights) == len(first.non_trainable_weights) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_hashes": 0}, "`num_hashes` must be a positive whole number"),
        ({"hash_bits": 17}, "`hash_bits` must be at most 16"),
        ({"l2_normalise": 1}, "`l2_normalise` must be true or false"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
