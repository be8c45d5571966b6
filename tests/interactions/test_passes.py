"""The passes of a loss are those of as many calls in every backbone: logits, gradients, statistics, random numbers."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import BACKEND, gradients, tensors
from tests.composition import NARROW
from tfctr.interactions import INTERACTIONS, Interaction, Mlp, Neuron, QnnAlpha, create_interaction
from tfctr.layers.dropout import Dropout
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.registry import arguments_of
from tfctr.losses import SelfEnsemble

DEEP = {"type": "mlp", "hidden": [4, 3], "dropout": 0.4, "batch_norm": True}
MASK = np.arange(4) < np.array([4, 3, 4, 2, 4, 4])[:, None]


def _options(name: str) -> dict[str, Any]:
    """Small, with dropout and batch normalization wherever there are such arguments."""
    wished = {"dropout": 0.3, "batch_norm": True, "layers": 2, "deep": DEEP}
    arguments = arguments_of(INTERACTIONS[name])
    return {**NARROW.get(name, {}), **{key: value for key, value in wished.items() if key in arguments}}


def _food(layer: Interaction) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    fields = generator.normal(size=(6, 4, 3, 8)).astype("float32")
    wide = {"linear": generator.normal(size=(6, 4)).astype("float32")} if layer.wide else {}
    return tensors({"inputs": fields if layer.eats == "fields" else fields.reshape(6, 4, 24), **wide})


def _step(layer: Interaction, fed: dict[str, Any], calls: bool, passes: int = 3) -> dict[str, Any]:
    """Loss, logits, gradients and, after the step, all variables with the states of the random generators."""
    labels = tensors(np.tile([1.0, 0.0], 12).astype("float32"))

    def loss(given: dict[str, Any]) -> Any:
        arguments = {**{name: value for name, value in given.items() if name != "inputs"}, "training": True}
        arguments["mask"] = tensors(MASK)
        if calls:
            logits = ops.stack([layer(given["inputs"], **arguments) for _ in range(passes)])
        else:
            logits = layer.pass_logits(given["inputs"], passes, **arguments)
        flat = ops.reshape(logits, (passes, -1))
        return SelfEnsemble(passes)(labels, flat, ops.reshape(ops.cast(tensors(MASK), "float32"), (-1,))), logits

    before = [ops.convert_to_numpy(one).copy() for one in layer.variables]
    (value, logits), by_inputs, by_weights = gradients(loss, fed, layer.trainable_variables)
    found = {"loss": value, "logits": ops.where(tensors(MASK), logits, 0.0), "inputs": by_inputs[0]}
    found |= {one.path: gradient for one, gradient in zip(layer.trainable_variables, by_weights, strict=True)}
    found |= {f"{one.path} after": one for one in layer.variables}
    found = {name: np.array(ops.convert_to_numpy(one)) for name, one in found.items() if one is not None}
    for variable, value in zip(layer.variables, before, strict=True):
        variable.assign(value)
    return found


def _check(layer: Interaction) -> None:
    fed = _food(layer)
    layer.build(tuple(fed["inputs"].shape))
    expected, found = _step(layer, fed, calls=True), _step(layer, fed, calls=False)
    assert found.keys() == expected.keys()
    # A gradient that is zero but for rounding, as that of a bias before a normalization, says nothing.
    largest = max(np.max(np.abs(one)) for name, one in expected.items() if not name.endswith("after"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6 * largest, err_msg=name)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", INTERACTIONS)
def test_passes_are_calls(name: str) -> None:
    _check(create_interaction({"type": name, **_options(name)}))


@pytest.mark.parametrize(
    "options",
    [
        {"mid_dropout": 0.0},
        {"dropout": 0.0, "mid_dropout": 0.0},
        {"dropout": 0.0, "mid_dropout": 0.3},
        {"activation": "dice"},
        {"heads": 2},
        {"batch_norm": False},
    ],
)
@pytest.mark.parametrize("name", ["qnn_alpha", "qnn_alpha_released"])
def test_passes_of_qnn_alpha_are_calls(name: str, options: dict[str, Any]) -> None:
    _check(create_interaction({"type": name, "rows": 3, "dropout": 0.3, **options}))


@pytest.mark.parametrize("deep", ["qnn_alpha", "neuron", "qin", "dcnv2", "autoint"])
def test_passes_with_another_deep_part_are_calls(deep: str) -> None:
    for name in ("wide_deep", "deepfm", "xdeepfm", "dcnv2", "autoint", "afn"):
        _check(create_interaction({"type": name, **NARROW[name], "deep": {"type": deep, **_options(deep)}}))


def test_passes_differ_only_by_dropout() -> None:
    layer = QnnAlpha(layers=1, rows=2, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    layer.build(x.shape)
    differing = ops.convert_to_numpy(layer.pass_logits(x, 2, training=True))
    assert (differing[0] != differing[1]).mean() > 0.9
    equal = ops.convert_to_numpy(layer.pass_logits(x, 2, training=False))
    np.testing.assert_array_equal(equal[0], equal[1])


@pytest.mark.parametrize(
    ("layer", "calls"),
    [
        (QnnAlpha(layers=3, dropout=0.5), [1, 2, 2]),
        (QnnAlpha(layers=3, dropout=0.5, mid_dropout=0.0), [1, 2, 2]),
        (QnnAlpha(layers=3, dropout=0.0), [1, 1, 1]),
        (Neuron("T9", layers=3, dropout=0.5, batch_norm=True), [1, 2, 2]),
        (Mlp([4, 4, 4], dropout=0.5, batch_norm=True), [1, 2, 2]),
        (Mlp([4, 4, 4], dropout=0.0, batch_norm=True), [1, 1, 1]),
    ],
)
def test_what_is_equal_is_computed_once(layer: Interaction, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    original = BatchNormalization.call

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[self.path] = seen.get(self.path, 0) + 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(BatchNormalization, "call", counted)
    layer.build((None, 8))
    layer.pass_logits(np.ones((4, 8), "float32"), 2, training=True)
    assert list(seen.values()) == calls


@pytest.mark.skipif(BACKEND != "tensorflow", reason="reads a graph of TensorFlow")
def test_the_first_product_is_one_product_forward_and_back() -> None:
    import tensorflow as tf

    layer = QnnAlpha(layers=2, rows=2, dropout=0.5)
    layer.build((None, 8))

    @tf.function(autograph=False)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer.pass_logits(x, 2, training=True))
        return tape.gradient(loss, [x, *(one.value for one in layer.trainable_variables)])

    graph = step.get_concrete_function(tf.TensorSpec((4, 8))).graph
    # Three products of the layers and two of the head, each with two more for its gradients.
    assert sum(operation.type == "MatMul" for operation in graph.get_operations()) == 3 * (3 + 2)


def test_a_backbone_that_only_has_a_call_is_called_once_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Squares(Interaction):
        calls = 0

        def __init__(self, rate: float) -> None:
            super().__init__()
            self.drop = Dropout(rate)

        def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
            self.calls += 1
            return ops.sum(ops.square(self.drop(inputs, training=training)), axis=-1)

    for rate, training, calls in [(0.0, True, 1), (0.5, True, 2), (0.5, False, 1)]:
        layer = Squares(rate)
        assert tuple(layer.pass_logits(np.ones((4, 3), "float32"), 2, training=training).shape) == (2, 4)
        assert layer.calls == calls
