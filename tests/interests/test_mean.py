import numpy as np
from keras import ops

from tests.interests.helpers import make_inputs, tensors
from tfctr.interests import MeanPooling


def test_by_hand() -> None:
    inputs = {
        "sequence": {
            "events": ops.array([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]]),
            "length": ops.array([2, 0], dtype="int32"),
        },
        "candidate": {"target": ops.zeros((2, 2, 2))},
    }
    expected = [[[2.0, 4.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]
    np.testing.assert_array_equal(MeanPooling()(inputs), expected)


def test_state_is_one_vector() -> None:
    state = MeanPooling().encode(tensors(make_inputs()["sequence"]))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"mean": (3, 8)}


def test_a_length_beyond_the_history_is_the_whole_history() -> None:
    inputs = make_inputs(lengths=[7, 7, 7])
    expected = MeanPooling()(tensors(inputs))
    inputs["sequence"]["length"] += 5
    np.testing.assert_array_equal(MeanPooling()(tensors(inputs)), expected)
