from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import make_inputs, tensors
from tfctr.interests import SimilarityHistogram

# The similarities of the steps are -1, 1, 0 and missing, and the last step is padding. The second candidate has no
# vector.
INPUTS: dict[str, dict[str, Any]] = {
    "sequence": {
        "events": ops.zeros((1, 5, 3)),
        "length": ops.array([4]),
        "rows/text": ops.array([[1, 2, 3, 0, 2]]),
        "vectors/text": ops.array([[[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]]),
    },
    "candidate": {
        "target": ops.zeros((1, 2, 3)),
        "rows/text": ops.array([[7, 0]]),
        "vectors/text": ops.array([[[1.0, 0.0], [0.0, 0.0]]]),
    },
}
COUNTS = np.array([[[1.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 4.0]]])


@pytest.mark.parametrize(
    ("counts", "expected"), [("raw", COUNTS), ("log1p", np.log1p(COUNTS)), ("fraction", COUNTS / 4.0)]
)
def test_features_by_hand(counts: str, expected: np.ndarray) -> None:
    layer = SimilarityHistogram("text", bins=4, counts=counts)
    buckets = layer.buckets(INPUTS["sequence"], INPUTS["candidate"])
    np.testing.assert_allclose(layer.features(INPUTS["sequence"]["length"], buckets), expected, rtol=1e-6)


def test_output_by_hand() -> None:
    layer = SimilarityHistogram("text", bins=4, counts="raw", units=1, hidden_units=2)
    layer.build({"sequence": {"events": (None, None, 3)}})
    layer.hidden.kernel.assign([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, -1.0]])
    layer.hidden.bias.assign([0.5, 3.0])
    layer.output_dense.kernel.assign([[10.0], [1.0]])
    layer.output_dense.bias.assign([100.0])
    # The hidden units are relu(1 + 2 + 0.5) = 3.5 and relu(3 - 1) = 2 for candidate 0, and 0.5 and relu(3 - 4) = 0 for
    # candidate 1.
    np.testing.assert_allclose(layer(INPUTS), [[[100 + 35 + 2], [100 + 5]]], rtol=1e-6)


def test_counts_sum_to_the_length() -> None:
    inputs = tensors(make_inputs(length=50, candidates=9))
    layer = SimilarityHistogram(["text", "image"], bins=22, counts="raw")
    buckets = layer.buckets(inputs["sequence"], inputs["candidate"])
    features = np.array(layer.features(inputs["sequence"]["length"], buckets)).reshape(3, 9, 2, 23)
    np.testing.assert_array_equal(
        features.sum(axis=-1),
        np.broadcast_to(ops.convert_to_numpy(inputs["sequence"]["length"])[:, None, None], (3, 9, 2)),
    )


def test_soft_counts_by_hand() -> None:
    """Of the similarities -1, 1, 0 and missing, 0 lies between the centres -0.25 and 0.25 of buckets 1 and 2."""
    layer = SimilarityHistogram("text", bins=4, counts="raw", soft_buckets=True)
    buckets = layer.buckets(INPUTS["sequence"], INPUTS["candidate"])
    expected = [[[1.0, 0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 4.0]]]
    np.testing.assert_allclose(layer.features(INPUTS["sequence"]["length"], buckets), expected, atol=1e-6)


@pytest.mark.parametrize(("counts", "total"), [("raw", [7.0, 0.0, 3.0]), ("fraction", [1.0, 0.0, 1.0])])
def test_soft_counts_sum_to_the_length(counts: str, total: list[float]) -> None:
    inputs = tensors(make_inputs(lengths=[7, 0, 3]))
    layer = SimilarityHistogram("text", bins=9, counts=counts, soft_buckets=True)
    buckets = layer.buckets(inputs["sequence"], inputs["candidate"])
    features = layer.features(inputs["sequence"]["length"], buckets)
    np.testing.assert_allclose(ops.sum(features, axis=-1), np.repeat(np.array(total)[:, None], 5, axis=1), rtol=1e-5)


def test_empty_history_is_zero_in_spite_of_biases() -> None:
    layer = SimilarityHistogram("text", bins=4)
    layer(INPUTS)
    layer.output_dense.bias.assign([1.0, 2.0, 3.0])
    empty = {**INPUTS, "sequence": {**INPUTS["sequence"], "length": ops.array([0])}}
    assert not np.any(layer(empty))
    assert np.any(layer(INPUTS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": "sqrt"}, "`counts` must be one of raw, log1p, fraction"),
        ({"bins": 0}, "`bins` must be a positive whole number"),
        ({"soft_buckets": None}, "`soft_buckets` must be true or false"),
        ({"units": 0}, "`units` must be a positive whole number"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityHistogram("text", **arguments)
