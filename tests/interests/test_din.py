from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tfctr.interests import Din


def joined(layer: Din, inputs: dict[str, Any], training: bool) -> Any:
    """The activation unit as the paper draws it, applied to the four joined vectors."""
    target, events = inputs["candidate"]["target"], inputs["sequence"]["events"]
    mask = (np.arange(events.shape[1]) < np.asarray(inputs["sequence"]["length"])[:, None])[:, None]
    shape = (*target.shape[:2], *events.shape[1:])
    t, x = ops.broadcast_to(target[:, :, None], shape), ops.broadcast_to(events[:, None], shape)
    y = ops.matmul(ops.concatenate([t, x, t - x, t * x], axis=-1), layer.kernel) + layer.bias
    for activation, dense in zip(layer.activations, layer.dense, strict=True):
        y = activation(y, mask=mask, training=training) if layer.activation == "dice" else activation(y)
        y = dense(y)
    return ops.matmul(ops.where(mask, y[..., 0], 0.0), events)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["dice", "sigmoid", "relu"])
@pytest.mark.parametrize("training", [False, True])
def test_first_layer_is_that_of_the_joined_vectors(activation: str, training: bool) -> None:
    inputs = tensors(make_inputs())
    # The loss has fixed factors: a gradient that depends on the output would amplify the different rounding of the two
    # forms.
    factors = np.random.default_rng(1).normal(size=(3, 5, WIDTH)).astype("float32")
    results = []
    for form in (lambda layer, fed: layer(fed, training=training), lambda layer, fed: joined(layer, fed, training)):
        layer = Din(hidden=[6, 4], activation=activation)
        layer.build({"sequence": {"events": (None, None, WIDTH)}})
        randomize(layer)

        def loss(sources: list[Any], form: Any = form, layer: Din = layer) -> Any:
            fed = {
                "sequence": {**inputs["sequence"], "events": sources[0]},
                "candidate": {**inputs["candidate"], "target": sources[1]},
            }
            output = form(layer, fed)
            return ops.sum(output * factors), output

        sources = [inputs["sequence"]["events"], inputs["candidate"]["target"]]
        (_, output), by_inputs, by_weights = gradients(loss, sources, layer.trainable_weights)
        results.append([output, *by_inputs, *by_weights, *layer.non_trainable_weights])
    for ours, reference in zip(*results, strict=True):
        scale = max(np.max(np.abs(reference)), 1e-3)
        np.testing.assert_allclose(ours, reference, atol=2e-5 * scale, rtol=0)


def test_by_hand() -> None:
    """One hidden unit that sums t * x, with ReLU: the weight of an event is max(t . x, 0)."""
    layer = Din(hidden=[1], activation="relu")
    layer.build({"sequence": {"events": (None, None, 2)}})
    layer.kernel.assign([[0.0]] * 6 + [[1.0]] * 2)
    layer.dense[0].kernel.assign([[1.0]])
    inputs = {
        "sequence": {"events": ops.array([[[1.0, 1.0], [-1.0, 0.0], [9.0, 9.0]]]), "length": ops.array([2])},
        "candidate": {"target": ops.array([[[1.0, 2.0], [-1.0, 0.0]]])},
    }
    np.testing.assert_allclose(layer(inputs), [[[3.0, 3.0], [-1.0, 0.0]]])


def test_masked_candidates_do_not_count_in_the_statistics() -> None:
    inputs = make_inputs(candidates=4)
    inputs["candidate"]["mask"] = np.array([[True, True, False, False]] * 3)
    layers, outputs = [], []
    for poison in (0.0, 1e3):
        inputs["candidate"]["target"][:, 2:] = poison
        layer = Din(hidden=[5])
        layer.build({"sequence": {"events": (None, None, WIDTH)}})
        outputs.append(randomize(layer)(tensors(inputs), training=True)[:, :2])
        layers.append(layer)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    for one, other in zip(layers[0].weights, layers[1].weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_scale_divides_by_the_root_of_the_width() -> None:
    inputs = tensors(make_inputs())
    plain, scaled = Din(hidden=[5]), Din(hidden=[5], scale=True)
    for layer in (plain, scaled):
        layer.build({"sequence": {"events": (None, None, WIDTH)}})
        randomize(layer)
    np.testing.assert_allclose(scaled(inputs), plain(inputs) / np.sqrt(WIDTH), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": []}, "`hidden` must have at least one width"),
        ({"hidden": [4, 0]}, "`hidden` must be a list of positive whole numbers"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and less than 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Din(**arguments)
