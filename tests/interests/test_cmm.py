from typing import Any

import numpy as np
import pytest

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tfctr.interests import ComplementaryModality


def build(**arguments: Any) -> ComplementaryModality:
    layer = ComplementaryModality("text", **{"num_heads": 2, "bins": 6, **arguments})
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    return randomize(layer)


@pytest.mark.parametrize("histogram_bins", [None, 9])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_is_the_mixture_of_its_parts(alpha: float, histogram_bins: int | None) -> None:
    layer, inputs = build(alpha=alpha, histogram_bins=histogram_bins), tensors(make_inputs())
    assert layer.histogram.bins == (histogram_bins or 6)
    expected = alpha * layer.attention(inputs) + (1.0 - alpha) * layer.histogram(inputs)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-6, atol=1e-7)


def test_learned_alpha_starts_where_it_is_told_and_learns() -> None:
    layer, inputs = build(alpha=0.2, mixing="learned"), tensors(make_inputs())
    fresh = ComplementaryModality("text", alpha=0.2, mixing="learned")
    fresh.build({"sequence": {"events": (None, None, WIDTH)}})
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-np.array(fresh.alpha_logit))), 0.2, rtol=1e-6)
    layer.alpha_logit.assign(np.log(3.0))
    expected = 0.75 * layer.attention(inputs) + 0.25 * layer.histogram(inputs)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-6)
    assert any("alpha_logit" in weight.path for weight in layer.trainable_weights)


def test_state_is_that_of_the_attention() -> None:
    layer, sequence = build(), tensors(make_inputs()["sequence"])
    state, expected = layer.encode(sequence), layer.attention.encode(sequence)
    assert state.keys() == expected.keys()
    for name in state:
        np.testing.assert_array_equal(state[name], expected[name])


@pytest.mark.parametrize(
    "arguments", [{"alpha": -0.1}, {"alpha": 1.5}, {"alpha": 0.0, "mixing": "learned"}, {"alpha": float("nan")}]
)
def test_bad_alpha(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`alpha` must be from 0 to 1"):
        build(**arguments)
