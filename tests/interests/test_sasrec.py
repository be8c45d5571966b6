import math
from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import arrays
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tfctr.interests import SasRec


def build(**arguments: Any) -> Any:
    layer = SasRec(**{"num_heads": 2, "max_length": 20, **arguments})
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    return randomize(layer)


def encode(layer: Any, events: np.ndarray, lengths: list[int]) -> np.ndarray:
    state = layer.encode({"events": ops.array(events), "length": ops.array(lengths, dtype="int32")})
    return np.asarray(arrays(state)["user"])


def norm(x: np.ndarray) -> np.ndarray:
    return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-8))


def by_the_book(layer: Any, events: np.ndarray) -> np.ndarray:
    """The user vector of one history without padding, by a loop over the events and with every event in every block."""
    weights = {name: [np.asarray(w, "float64") for w in arrays(dense.weights)] for name, dense in layer.dense.items()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        kernel, *bias = weights[name]
        return np.asarray(x @ kernel + (bias[0] if bias else 0.0))

    width, heads = events.shape[1], layer.num_heads
    positions = arrays(layer.positions)[: len(events)][::-1]
    x = events[::-1].astype("float64") * math.sqrt(width) + positions
    for i in range(layer.num_blocks):
        q = norm(x)
        query, key, value = dense(f"block_{i}_query", q), dense(f"block_{i}_key", x), dense(f"block_{i}_value", x)
        attended = np.zeros_like(x)
        for step in range(len(x)):
            for head in np.split(np.arange(width), heads):
                scores = key[: step + 1, head] @ query[step, head] / math.sqrt(width // heads)
                share = np.exp(scores - scores.max())
                attended[step, head] = share @ value[: step + 1, head] / share.sum()
        z = norm(q + dense(f"block_{i}_output", attended))
        x = z + dense(f"block_{i}_feed", np.maximum(dense(f"block_{i}_hidden", z), 0.0))
    return np.asarray(x[-1])


@pytest.mark.parametrize(("blocks", "heads", "length"), [(1, 1, 5), (2, 2, 7), (3, 4, 1)])
def test_is_the_recurrence_over_time(blocks: int, heads: int, length: int) -> None:
    layer = build(num_blocks=blocks, num_heads=heads)
    events = make_inputs(length=length)["sequence"]["events"][:1]
    expected = by_the_book(layer, events[0])
    np.testing.assert_allclose(encode(layer, events, [length])[0], expected, rtol=2e-4, atol=2e-4)


def test_only_the_last_block_is_cut() -> None:
    """The last block computes the newest event only, but it reads every event of the block before.

    So a change of the oldest event must reach the output.
    """
    layer, events = build(num_blocks=2), make_inputs(length=7)["sequence"]["events"]
    changed = events.copy()
    changed[:, 6] += 1.0
    assert not np.allclose(encode(layer, events, [7, 7, 7]), encode(layer, changed, [7, 7, 7]))


@pytest.mark.parametrize("blocks", [1, 2])
def test_padding_and_its_amount_change_nothing(blocks: int) -> None:
    layer = build(num_blocks=blocks)
    events = make_inputs(length=12)["sequence"]["events"]
    short = encode(layer, events[:, :4], [4, 3, 1])
    np.testing.assert_allclose(encode(layer, events, [4, 3, 1]), short, rtol=1e-5, atol=1e-6)


def test_the_order_matters() -> None:
    layer, events = build(), make_inputs(length=5)["sequence"]["events"]
    assert not np.allclose(encode(layer, events, [5, 5, 5]), encode(layer, events[:, [0, 2, 1, 3, 4]], [5, 5, 5]))


def test_events_beyond_the_positions_share_the_last() -> None:
    layer, events = build(num_blocks=1, max_length=3), make_inputs(length=6)["sequence"]["events"]
    swapped = events[:, [0, 1, 2, 5, 4, 3]]
    np.testing.assert_allclose(
        encode(layer, events, [6, 6, 6]), encode(layer, swapped, [6, 6, 6]), rtol=1e-5, atol=1e-6
    )


def test_every_candidate_gets_the_user() -> None:
    layer, inputs = build(), tensors(make_inputs())
    user = layer.encode(inputs["sequence"])["user"]
    output = ops.convert_to_numpy(layer(inputs))
    assert output.shape == (3, 5, WIDTH)
    for candidate in range(5):
        np.testing.assert_array_equal(output[:, candidate], user)


def test_dropout_only_in_training() -> None:
    inputs = tensors(make_inputs(lengths=[7, 7, 7]))
    layer, plain = build(dropout=0.5, seed=1), build()
    np.testing.assert_array_equal(layer(inputs), plain(inputs))
    first, second = (ops.convert_to_numpy(layer(inputs, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(build(dropout=0.5, seed=1)(inputs, training=True), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_blocks": 0}, "`num_blocks` must be a positive whole number"),
        ({"max_length": 0}, "`max_length` must be a positive whole number"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and less than 1"),
        ({"num_heads": 3}, "`num_heads` must divide the width of the events"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
