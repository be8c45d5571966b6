from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, tensors
from tfctr.interests import ReleasedSimilarityHistogram, SequenceFacts

# The similarities of the five events are 1, -1, 0.6, missing and -0.8; one more step of the batch is padding.
INPUTS: dict[str, dict[str, Any]] = {
    "sequence": {
        "events": ops.zeros((1, 6, 3)),
        "length": ops.array([5]),
        "rows/text": ops.array([[1, 2, 3, 0, 4, 1]]),
        "vectors/text": ops.array([[[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [-0.8, 0.6], [1.0, 0.0]]]),
    },
    "candidate": {
        "target": ops.zeros((1, 2, 3)),
        "rows/text": ops.array([[7, 0]]),
        "vectors/text": ops.array([[[1.0, 0.0], [0.0, 0.0]]]),
    },
}


def built(**arguments: Any) -> ReleasedSimilarityHistogram:
    layer = ReleasedSimilarityHistogram("text", **arguments)
    layer.build({"sequence": {"events": (None, None, 3)}})
    return layer


def test_slots_by_hand() -> None:
    """Slot n = ceil(s * 10) + 10 of 22: 20, 0, 16, the missing one 10, and 2; 3 of 8 steps are empty and in 10 too."""
    layer = built(max_length=8)
    counts = np.zeros((1, 2, 22))
    counts[0, 0, [20, 0, 16, 10, 2]] = [1, 1, 1, 1 + 3, 1]
    counts[0, 1, 10] = 8
    np.testing.assert_array_equal(layer.counts(INPUTS["sequence"], INPUTS["candidate"], "text"), counts)
    weights = np.linspace(0.1, 1.0, 22)[:, None]
    layer.tables["text"].assign(weights)
    np.testing.assert_allclose(layer(INPUTS), np.log1p(counts) * weights[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("similarity", "slot"), [(0.05, 11), (-0.05, 10), (0.0, 10), (0.95, 20), (-0.95, 1), (0.1, 11)]
)
def test_the_upper_end_belongs_to_a_slot(similarity: float, slot: int) -> None:
    other = np.sqrt(1 - similarity**2)
    sequence = {
        "events": ops.zeros((1, 1, 3)),
        "length": ops.array([1]),
        "rows/text": ops.array([[1]]),
        "vectors/text": ops.array([[[similarity, other]]], dtype="float32"),
    }
    counts = built(max_length=1).counts(sequence, INPUTS["candidate"], "text")
    assert int(ops.argmax(counts[0, 0])) == slot


def test_rows_of_several_units_and_tables_are_side_by_side() -> None:
    inputs = tensors(make_inputs(lengths=[7, 4, 1]))
    layer = ReleasedSimilarityHistogram(["text", "image"], max_length=7, tiers=2, units=3)
    output = np.array(layer(inputs)).reshape(3, 5, 2, 6, 3)
    for i, name in enumerate(layer.frozen_names):
        counts = np.array(layer.counts(inputs["sequence"], inputs["candidate"], name))
        np.testing.assert_array_equal(counts.sum(axis=-1), 7.0)
        np.testing.assert_allclose(
            output[:, :, i], np.log1p(counts)[..., None] * np.array(layer.tables[name]), rtol=1e-5
        )
    assert layer.output_width(WIDTH) == 2 * 6 * 3


def test_it_counts_the_same_in_a_longer_batch() -> None:
    """What is empty is counted up to `max_length`, however far a batch is padded."""
    layer, inputs = built(max_length=9), INPUTS
    cut = {name: value if name == "length" else value[:, :5] for name, value in inputs["sequence"].items()}
    np.testing.assert_array_equal(layer(inputs), layer({**inputs, "sequence": cut}))


def test_weights_start_between_0_and_1() -> None:
    table = np.array(built(max_length=8, tiers=100, units=4).tables["text"])
    assert 0.0 <= table.min() < 0.05
    assert 0.95 < table.max() <= 1.0


def test_the_length_comes_from_the_feature_file() -> None:
    facts = SequenceFacts("history", max_length=50, frozen=("text",), features={})
    assert ReleasedSimilarityHistogram.complete({}, facts) == {"max_length": 50, "frozen": ["text"]}


@pytest.mark.parametrize("name", ["max_length", "tiers", "units"])
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a positive whole number"):
        ReleasedSimilarityHistogram("text", **{"max_length": 5, name: 0})
