from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from keras import ops

from tests.layer_checks import check_layer
from tfctr.interactions import Dlrm, create_interaction
from tfctr.interactions.base import FieldFacts
from tfctr.models import ModelConfig

if TYPE_CHECKING:
    from tests.workbench import Workbench

X = np.random.default_rng(3).normal(size=(6, 4, 5, 4)).astype("float32")
FIELDS = [
    FieldFacts("item", "candidate", "table"),
    FieldFacts("price", "candidate", "number"),
    FieldFacts("image", "candidate", "vector"),
    FieldFacts("age", "user", "number"),
    FieldFacts("history", "history", "interest"),
]


def test_products_by_hand() -> None:
    layer = Dlrm(bottom=[], hidden=[])
    layer.build((None, 3, 2))
    x = np.array([[[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]]], "float32")
    np.testing.assert_allclose(layer.products(x), [[1.0, 8.5, -2.5]], rtol=1e-6)
    layer.head.kernel.assign([[1.0], [2.0], [-1.0]])
    layer.head.bias.assign([0.5])
    np.testing.assert_allclose(layer(x), [21.0], rtol=1e-6)


def test_numbers_by_hand() -> None:
    # Fields 1 and 3 are numeric.
    layer = Dlrm(bottom=[1], hidden=[2], fields=FIELDS)
    layer.build((None, 5, 2))
    inner, outer = layer.bottom.dense
    inner.kernel.assign([[1.0], [0.0], [0.0], [2.0]])
    outer.kernel.assign([[0.5, -1.0]])
    outer.bias.assign([0.0, 9.0])
    x = np.array([[[1.0, 1.0], [2.0, 7.0], [0.0, 3.0], [7.0, 1.0], [-1.0, 2.0]]], "float32")
    # The bottom part: relu(2 + 2 * 1) = 4, and v = relu([2, 5]). The products of v, [1, 1], [0, 3] and [-1, 2] follow.
    np.testing.assert_allclose(layer.products(x), [[2.0, 5.0, 7.0, 15.0, 8.0, 3.0, 1.0, 6.0]], rtol=1e-6)
    outer.bias.assign([-9.0, 9.0])  # v = relu([-7, 5])
    np.testing.assert_allclose(layer.products(x)[:, :2], [[0.0, 5.0]], rtol=1e-6)
    (top,) = layer.top.dense
    kernel = np.zeros((8, 2))
    kernel[1] = [1.0, -1.0]
    top.kernel.assign(kernel)
    np.testing.assert_allclose(layer.hidden(x), [[5.0, 0.0]], rtol=1e-6)


def test_products_are_those_of_keras_rs() -> None:
    keras_rs = pytest.importorskip("keras_rs")
    layer = Dlrm(hidden=[4])
    x = X.reshape(24, 5, 4)
    layer(x)
    oracle = keras_rs.layers.DotInteraction()([x[:, i] for i in range(5)])
    # Its pairs are in the order (1, 0), (2, 0), (2, 1), ...
    order = {(j, i): place for place, (i, j) in enumerate(zip(*np.tril_indices(5, -1), strict=True))}
    places = [order[pair] for pair in zip(*np.triu_indices(5, 1), strict=True)]
    ours = ops.convert_to_numpy(layer.products(x))
    np.testing.assert_allclose(ours, ops.convert_to_numpy(oracle)[:, places], rtol=1e-5, atol=1e-6)


def test_a_bottom_part_over_numbers_is_one_over_linear_maps_of_them() -> None:
    numbers = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
    maps = np.random.default_rng(1).normal(size=(2, 4)).astype("float32")
    x = np.random.default_rng(2).normal(size=(7, 5, 4)).astype("float32")
    x[:, [1, 3]] = numbers[:, :, None] * maps
    layer = Dlrm(bottom=[6], hidden=[3], fields=FIELDS)
    layer(x)
    first, second = layer.bottom.dense
    kernel = np.stack([maps[i] @ np.asarray(first.kernel)[4 * i : 4 * i + 4] for i in range(2)])
    expected = np.maximum(np.maximum(numbers @ kernel, 0) @ np.asarray(second.kernel), 0)
    np.testing.assert_allclose(layer.products(x)[:, :4], expected, rtol=1e-4, atol=1e-5)


def test_widths_as_released() -> None:
    layer = Dlrm(fields=FIELDS)
    layer.build((None, 5, 16))
    widths = [[dense.units for dense in part.dense] for part in (layer.bottom, layer.top)]
    assert widths == [[512, 256, 64, 16], [512, 256]]
    assert layer.top.dense[0].kernel.shape == (16 + 6, 512)


def test_the_model_says_which_fields_are_numeric(workbench: Workbench) -> None:
    interaction = {"type": "dlrm", "bottom": [4], "hidden": [4]}
    for config in (interaction, {"type": "dcnv2", "deep": interaction}):
        model = workbench.model(ModelConfig(interaction=config))
        backbone = model.scorer.interaction
        layer = backbone if config is interaction else backbone.deep
        facts = [FieldFacts(*one) for one in layer.get_config()["fields"]]
        assert [facts[i].name for i in layer.numeric] == [one.name for one in facts if one.source == "number"]
        assert len(layer.numeric) > 0
        assert len(layer.others) > 1
        assert len(facts) == len(layer.numeric) + len(layer.others)


@pytest.mark.any_backend
@pytest.mark.parametrize("fields", [None, FIELDS])
def test_layer(fields: Any) -> None:
    layer = create_interaction({"type": "dlrm", "bottom": [6], "hidden": [6], "fields": fields})
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


def test_dropout_acts_in_training_only() -> None:
    layer = Dlrm(bottom=[], hidden=[], dropout=0.5, fields=FIELDS)
    layer(X)
    layer.bottom.dense[0].bias.assign(np.full(4, 50.0))
    dropped = ops.convert_to_numpy(layer.products(X, training=True))[..., :4]
    assert np.mean(dropped == 0) == pytest.approx(0.5, abs=0.2)
    assert (ops.convert_to_numpy(layer.products(X))[..., :4] != 0).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="`bottom` must be a list of positive whole numbers"):
        Dlrm(bottom=[0])
    with pytest.raises(ValueError, match=r"at least 2 vectors\. Received: 1 fields, 0 of them numeric"):
        Dlrm()(X[..., :1, :])
    with pytest.raises(ValueError, match="Received: 2 fields, 2 of them numeric"):
        Dlrm(fields=[FIELDS[1], FIELDS[3]])(X[..., :2, :])
