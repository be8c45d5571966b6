from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer
from tfctr.interactions import Cin

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")


@pytest.mark.golden
@pytest.mark.parametrize("name", names("cin_*"))
def test_golden(name: str) -> None:
    case = load(name)
    layer = Cin(maps=case.hyperparameters["maps"])
    layer.build(case["in/emb"].shape)
    weights = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, dense in enumerate(layer.layers):
        weights |= {f"layer{i}/kernel": dense.kernel, f"layer{i}/bias": dense.bias}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"pooled": layer.hidden(inputs["emb"]), "logit": layer(inputs["emb"])[:, None]}

    check(case, forward, weights)


def test_by_hand() -> None:
    fields = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")
    layer = Cin(maps=[1, 1])
    layer.build(fields.shape)
    first, second = layer.layers
    # The products of the fields 0*0, 0*1, 1*0 and 1*1 are [1, 3, 3, 9] in column 0 and [4, -2, -2, 1] in column 1.
    first.kernel.assign([[1.0], [2.0], [0.0], [-1.0]])
    first.bias.assign([0.5])
    # The first map is 1 + 6 - 9 + .5 = -1.5 and 4 - 4 - 1 + .5 = -.5, and its sum is -2. Its products with the two
    # fields are [-1.5, -4.5] in column 0 and [-1, .5] in column 1.
    second.kernel.assign([[2.0], [1.0]])
    # The second map is -7.5 and -1.5, and its sum is -9.
    np.testing.assert_allclose(layer.hidden(fields), [[-2.0, -9.0]], rtol=1e-6)
    layer.head.kernel.assign([[1.0], [-2.0]])
    layer.head.bias.assign([0.25])
    np.testing.assert_allclose(layer(fields), [16.25], rtol=1e-6)


def test_a_layer_has_the_degree_of_its_place() -> None:
    layer = Cin(maps=[2, 3])
    layer.build(X.shape)
    one, twice = (ops.convert_to_numpy(layer.hidden(scale * X)) for scale in (1.0, 2.0))
    np.testing.assert_allclose(twice[..., :2], 4 * one[..., :2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(twice[..., 2:], 8 * one[..., 2:], rtol=1e-4, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"maps": [4]}, {"maps": [3, 2], "activation": "relu"}])
def test_layer(options: dict[str, Any]) -> None:
    layer = Cin(**options)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`maps` must not be empty"):
        Cin(maps=[])
    with pytest.raises(ValueError, match="`maps` must be a list of positive whole numbers"):
        Cin(maps=[3, 0])
