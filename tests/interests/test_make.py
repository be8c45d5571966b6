"""MAKE's frozen-vector stage: its outputs, and that contents are learned separately from ids."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_contract import VECTORS
from tfctr.interests import ContentInterest


def build(**arguments: Any) -> ContentInterest:
    layer = ContentInterest(
        **{"frozen": "text", "unit_hidden": [4], "hidden_units": [5], "content_dim": 3, **arguments}
    )
    layer.build({"sequence": {"events": (None, None, WIDTH), **VECTORS}})
    return randomize(layer)


def attend(layer: ContentInterest, inputs: Any, training: bool = False) -> tuple[Any, Any]:
    state = {**inputs["sequence"], **layer.encode(inputs["sequence"])}
    output, logits = layer.attend(state, inputs["candidate"], {}, training=training)
    assert list(logits) == ["content"]
    return output, logits["content"]


@pytest.mark.parametrize("content_dim", [None, 3])
@pytest.mark.parametrize("frozen", [["text"], ["image", "text"]])
def test_is_a_din_over_the_contents(frozen: list[str], content_dim: int | None) -> None:
    layer = build(frozen=frozen, content_dim=content_dim, activation="relu", units=2)
    inputs = make_inputs(lengths=[7, 2, 4])
    features = []
    for name in frozen:
        candidate, history = (inputs[side][f"vectors/{name}"] for side in ("candidate", "sequence"))
        if content_dim is not None:
            kernel = ops.convert_to_numpy(layer.projections[name].kernel)
            candidate, history = candidate @ kernel, history @ kernel
        unit = layer.attention[name]
        t = np.repeat(candidate[:, :, None], 7, axis=2)
        x = np.repeat(history[:, None], 5, axis=1)
        joined = np.concatenate([t, x, t - x, t * x], axis=-1)
        hidden = np.maximum(joined @ ops.convert_to_numpy(unit.kernel) + ops.convert_to_numpy(unit.bias), 0.0)
        weights = (hidden @ ops.convert_to_numpy(unit.dense[0].kernel) + ops.convert_to_numpy(unit.dense[0].bias))[
            ..., 0
        ]
        weights = weights * (np.arange(7) < inputs["sequence"]["length"][:, None])[:, None]
        features += [np.einsum("bcl,bld->bcd", weights, history), candidate]
    h = np.concatenate(features, axis=-1)
    for dense in layer.hidden:
        h = np.maximum(h @ ops.convert_to_numpy(dense.kernel) + ops.convert_to_numpy(dense.bias), 0.0)
    output, logits = attend(layer, tensors(inputs))
    assert tuple(output.shape) == (3, 5, 2)
    np.testing.assert_allclose(output, h, rtol=1e-4, atol=1e-5)
    expected = h @ ops.convert_to_numpy(layer.logit.kernel) + ops.convert_to_numpy(layer.logit.bias)
    np.testing.assert_allclose(logits, expected[..., 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("detach", [True, False])
def test_the_output_teaches_the_contents_only_when_it_is_not_detached(detach: bool) -> None:
    layer, inputs = build(detach=detach), tensors(make_inputs())

    def moved(index: int) -> set[str]:
        def loss(_: Any) -> Any:
            return ops.sum(ops.square(attend(layer, inputs, training=True)[index]))

        _, _, found = gradients(loss, variables=layer.trainable_weights)
        return {
            weight.path
            for weight, gradient in zip(layer.trainable_weights, found, strict=True)
            if gradient is not None and np.any(gradient)
        }

    everything = {weight.path for weight in layer.trainable_weights}
    assert moved(1) == everything, "the content logit trains every weight"
    assert moved(0) == (set() if detach else {path for path in everything if "logit" not in path})


def test_ids_are_not_read() -> None:
    inputs, other = make_inputs(), make_inputs()
    other["sequence"]["events"] += 1.0
    other["candidate"]["target"] += 1.0
    layer = build()
    for one, two in zip(attend(layer, tensors(inputs)), attend(layer, tensors(other)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_empty_history_gives_zeros_and_the_bias_of_the_logit() -> None:
    layer = build()
    output, logits = attend(layer, tensors(make_inputs(lengths=[0, 0, 3])))
    assert not np.any(output[:2])
    np.testing.assert_allclose(logits[:2], np.broadcast_to(layer.logit.bias, (2, 5)), rtol=1e-6)


def test_candidates_that_do_not_count_are_left_out_of_the_statistics() -> None:
    inputs = make_inputs(lengths=[7, 2, 4])
    inputs["candidate"]["mask"] = np.arange(5)[None] < np.array([5, 3, 1])[:, None]
    changed = {side: dict(values) for side, values in inputs.items()}
    vectors = inputs["candidate"]["vectors/text"].copy()
    vectors[~inputs["candidate"]["mask"]] = 9.0
    changed["candidate"]["vectors/text"] = vectors
    found = []
    for one in (inputs, changed):
        layer = build()
        attend(layer, tensors(one), training=True)
        found.append([ops.convert_to_numpy(weight) for weight in layer.non_trainable_weights])
    assert found[0]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_widths_may_be_known_later() -> None:
    """A model builds its interests before the widths of the vectors are known."""
    early, late = build(), ContentInterest("text", unit_hidden=[4], hidden_units=[5], content_dim=3)
    late.build({"sequence": {"events": (None, None, WIDTH)}})
    inputs = tensors(make_inputs())
    attend(late, inputs)
    randomize(late)
    assert [weight.path.split("/")[1:] for weight in early.weights] == [w.path.split("/")[1:] for w in late.weights]
    for one, two in zip(attend(early, inputs), attend(late, inputs), strict=True):
        assert tuple(one.shape) == tuple(two.shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"auxiliary_weight": 0.0}, "`auxiliary_weight` must be a positive number"),
        ({"detach": "yes"}, "`detach` must be true or false"),
        ({"content_dim": 0}, "`content_dim` must be a positive whole number"),
        ({"hidden_units": [0]}, "`hidden_units` must be a list of positive whole numbers"),
        ({"unit_hidden": []}, "`hidden` must have at least one width"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)
