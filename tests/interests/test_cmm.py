from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.layer_checks import check_layer
from tfctr.interests import ComplementaryModality


def build(**arguments: Any) -> ComplementaryModality:
    layer = ComplementaryModality("text", **{"num_heads": 2, "bins": 6, **arguments})
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    return randomize(layer)


@pytest.mark.slow
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


def test_learned_alpha_is_told_after_every_epoch() -> None:
    layer = ComplementaryModality("text", alpha=0.2, mixing="learned")
    assert layer.diagnostics() == {}
    layer.build({"sequence": {"events": (None, None, WIDTH)}})
    assert layer.diagnostics() == {"alpha": pytest.approx(0.2)}
    assert build(mixing="gated").diagnostics() == build().diagnostics() == {}


FIELDS = 4


def gated(context: bool = True, **arguments: Any) -> ComplementaryModality:
    layer = ComplementaryModality("text", **{"num_heads": 2, "bins": 6, "mixing": "gated", **arguments})
    fields = {"fields": (None, None, 3, FIELDS)} if context else {}
    layer.build({"sequence": {"events": (None, None, WIDTH)}, "context": fields})
    return layer


def with_fields(seed: int = 0, each: int = 1) -> dict[str, Any]:
    fields = np.random.default_rng(seed).normal(size=(3, each, 3, FIELDS)).astype("float32")
    return {**make_inputs(), "context": {"fields": fields}}


@pytest.mark.parametrize(("context", "each"), [(False, 1), (True, 1), (True, 5)])
def test_gate_by_hand(context: bool, each: int) -> None:
    """The candidates share one context, or each has its own."""
    layer, inputs = randomize(gated(context)), with_fields(each=each)
    length = np.repeat(np.log1p(inputs["sequence"]["length"].astype("float32"))[:, None, None], 5, axis=1)
    kernel, bias = (ops.convert_to_numpy(one) for one in (layer.gate_hidden.kernel, layer.gate_hidden.bias))
    hidden = np.concatenate([inputs["candidate"]["target"], length], axis=-1) @ kernel + bias
    if context:
        hidden += inputs["context"]["fields"].mean(axis=2) @ ops.convert_to_numpy(layer.gate_fields)
    logit = np.maximum(hidden, 0.0) @ ops.convert_to_numpy(layer.gate_kernel) + ops.convert_to_numpy(layer.alpha_logit)
    alpha = 1.0 / (1.0 + np.exp(-logit))
    assert alpha.std() > 0.01
    fed = tensors(inputs)
    expected = alpha * layer.attention(fed) + (1.0 - alpha) * layer.histogram(fed)
    np.testing.assert_allclose(layer(fed), expected, rtol=1e-5, atol=1e-5)


def test_gate_starts_as_the_fixed_alpha() -> None:
    inputs = tensors(with_fields())
    layer, fixed = gated(alpha=0.3), build(alpha=0.3)
    for one, other in (("attention", "attention"), ("histogram", "histogram")):
        for weight, same in zip(getattr(fixed, one).weights, getattr(layer, other).weights, strict=True):
            same.assign(weight)
    np.testing.assert_allclose(layer(inputs), fixed(inputs), rtol=1e-5, atol=1e-6)


def test_gate_reads_the_request_only_where_it_was_built_for_one() -> None:
    first, second = tensors(with_fields(0)), tensors(with_fields(1))
    layer = randomize(gated())
    assert not np.allclose(layer(first), layer(second), atol=1e-4)
    without = randomize(gated(context=False))
    np.testing.assert_array_equal(without(first), without(second))
    np.testing.assert_array_equal(without(first), without(tensors(make_inputs())))
    with pytest.raises(ValueError, match="`context` must hold `fields`"):
        layer(tensors(make_inputs()))


@pytest.mark.any_backend
def test_gate_stands_the_layer_checks_with_a_request() -> None:
    layer = ComplementaryModality(
        ["text", "image"], num_heads=2, bins=6, histogram_bins=4, mixing="gated", gate_units=3, soft_buckets=True
    )
    check_layer(layer, with_fields(each=5), output_shape=[3, 5, WIDTH])
    assert any("gate_fields" in weight.path for weight in layer.trainable_weights)


@pytest.mark.parametrize("histogram_bins", [None, 9])
def test_soft_buckets_reach_both_parts(histogram_bins: int | None) -> None:
    layer, inputs = build(alpha=0.3, soft_buckets=True, histogram_bins=histogram_bins), tensors(make_inputs())
    assert layer.attention.soft_buckets
    assert layer.histogram.soft_buckets
    expected = 0.3 * layer.attention(inputs) + 0.7 * layer.histogram(inputs)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-6)


def test_state_is_that_of_the_attention() -> None:
    layer, sequence = build(), tensors(make_inputs()["sequence"])
    state, expected = layer.encode(sequence), layer.attention.encode(sequence)
    assert state.keys() == expected.keys()
    for name in state:
        np.testing.assert_array_equal(state[name], expected[name])


@pytest.mark.parametrize(
    "arguments",
    [
        {"alpha": -0.1},
        {"alpha": 1.5},
        {"alpha": 0.0, "mixing": "learned"},
        {"alpha": 1.0, "mixing": "gated"},
        {"alpha": float("nan")},
    ],
)
def test_bad_alpha(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"`alpha` must be (from 0 to 1|a finite number)"):
        build(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixing": "sum"}, "`mixing` must be one of fixed, learned, gated"),
        ({"gate_units": 0}, "`gate_units` must be a positive whole number"),
    ],
)
def test_bad_mixing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
