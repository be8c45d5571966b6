"""HSTU as an interest, beyond the tests that every interest must pass."""

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import make_inputs, randomize, tensors
from tfctr.interests import Hstu


def build(**options: object) -> Hstu:
    layer = Hstu(**{"max_length": 12, **options})
    layer.build({"sequence": {"events": (None, None, 8)}})
    return randomize(layer)


def test_an_event_sees_nothing_newer() -> None:
    """Events are stored newest first, and a change of the newest one changes only its own output."""
    layer = build(blocks=2)
    inputs = make_inputs(lengths=[7, 7, 7])
    before = ops.convert_to_numpy(layer.encode(tensors(inputs["sequence"]))["key"])
    inputs["sequence"]["events"][:, 0] *= -1
    after = ops.convert_to_numpy(layer.encode(tensors(inputs["sequence"]))["key"])
    np.testing.assert_array_equal(before[:, :, 1:], after[:, :, 1:])
    assert np.abs(before[:, :, 0] - after[:, :, 0]).max() > 1e-3


def test_last_is_one_vector_for_all_candidates() -> None:
    layer = build(pooling="last")
    inputs = tensors(make_inputs())
    state = layer.encode(inputs["sequence"])
    assert set(state) == {"vector"}
    output = ops.convert_to_numpy(layer(inputs))
    np.testing.assert_array_equal(output[:, 1:], output[:, :1].repeat(4, axis=1))
    assert not output[1].any()


def test_ages_reach_the_scores() -> None:
    inputs = make_inputs(lengths=[7, 7, 7])
    layer = build(relative_bias="time")
    outputs = []
    for ages in (np.arange(7), np.arange(7) * 4):
        inputs["sequence"]["ages"] = np.broadcast_to(ages, (3, 7)).astype("int32")
        outputs.append(ops.convert_to_numpy(layer(tensors(inputs))))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4
    without = make_inputs(lengths=[7, 7, 7])
    without["sequence"].pop("ages", None)
    assert np.isfinite(ops.convert_to_numpy(layer(tensors(without)))).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_ages_survive_mixed_precision(policy: str) -> None:
    """The time before the newest event passes the largest float16 within a day, and is exact as an integer."""
    inputs = make_inputs(lengths=[7, 7, 7])
    inputs["sequence"]["ages"] = np.broadcast_to([0, 1, 16, 17, 27, 32, 33], (3, 7)).astype("int32")
    outputs = []
    for dtype in ("float32", policy):
        layer = build(relative_bias="time", dtype=dtype)
        outputs.append(ops.convert_to_numpy(ops.cast(layer(tensors(inputs)), "float32")))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.05 * np.abs(outputs[0]).max())


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="`pooling` must be"):
        Hstu(pooling="mean")
    with pytest.raises(ValueError, match="at most 5 events"):
        build(max_length=5)(tensors(make_inputs()))
