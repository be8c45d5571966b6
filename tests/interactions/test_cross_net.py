from typing import Any

import keras
import keras_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.errors import UserError
from tfctr.interactions import CrossNet, create_interaction
from tfctr.interactions.cross_net import VERSIONS

X = np.random.default_rng(3).normal(size=(6, 4, 10)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]


def _weights(layer: CrossNet) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, cross in enumerate(layer.crosses):
        own = {"kernel": "kernel"} if layer.version != "mix" else {"U": "outward", "V": "inward", "C": "between"}
        if layer.version == "gated":
            own = {}
            found |= {f"layer{i}/kernel": cross.product.kernel, f"layer{i}/gate/kernel": cross.gate.kernel}
        found |= {f"layer{i}/{name}": getattr(cross, ours) for name, ours in {**own, "bias": "bias"}.items()}
    if layer.version == "mix":
        found["gate/kernel"] = layer.gate.kernel
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("crossnet_*", "gated_cross_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    version = "gated" if name.startswith("gated") else name.split("_")[1]
    mix = {"experts": options["num_experts"], "rank": options["low_rank"]} if version == "mix" else {}
    layer = CrossNet(layers=options["num_layers"], version=version, **mix)
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer.hidden(inputs["x"])}, _weights(layer))


def test_v1_by_hand() -> None:
    layer = CrossNet(layers=2, version="v1")
    layer.build((None, 2))
    for cross, kernel, bias in zip(layer.crosses, ([1.0, -1.0], [0.5, 2.0]), ([0.0, 1.0], [-1.0, 0.0]), strict=True):
        cross.kernel.assign(np.array(kernel)[:, None])
        cross.bias.assign(bias)
    # c = [3, 2] + [3, 2] * (3 - 2) + [0, 1] = [6, 5];  [6, 5] + [3, 2] * (3 + 10) + [-1, 0] = [44, 31]
    x = np.array([[3.0, 2.0]], "float32")
    np.testing.assert_allclose(layer.hidden(x), [[44.0, 31.0]], rtol=1e-6)
    layer.head.kernel.assign([[1.0], [-1.0]])
    layer.head.bias.assign([0.5])
    np.testing.assert_allclose(layer(x), [13.5], rtol=1e-6)


def test_gated_by_hand() -> None:
    layer = CrossNet(layers=1, version="gated")
    layer.build((None, 2))
    (cross,) = layer.crosses
    assert ((ops.convert_to_numpy(cross.bias) >= 0) & (ops.convert_to_numpy(cross.bias) < 1)).all()
    cross.product.kernel.assign([[1.0, 0.0], [-2.0, 3.0]])
    cross.gate.kernel.assign([[0.0, np.log(3.0)], [0.0, 0.0]])
    cross.bias.assign([0.0, 0.5])
    # W x + b = [-1, 6.5], and the gates are [1/2, 27/28]: [3, 2] + [3, 2] * [-1/2, 6.5 * 27/28].
    np.testing.assert_allclose(layer.hidden(np.array([[3.0, 2.0]], "float32")), [[1.5, 2 + 13 * 27 / 28]], rtol=1e-6)


def test_released_plug_in_by_hand() -> None:
    layer = CrossNet(layers=1, activation="relu", batch_norm=True)
    layer.build((None, 2))
    (cross,) = layer.crosses
    cross.kernel.assign([[1.0, 0.0], [-2.0, 3.0]])
    cross.bias.assign([0.5, 0.0])
    cross.norm.gamma.assign([1.0, 2.0])
    cross.norm.moving_mean.assign([0.0, 5.0])
    cross.norm.moving_variance.assign(np.full(2, 4.0 - 1e-5))
    # x W + b = [-.5, 6] -> norm [-.25, 1] -> relu [0, 1];  x + x * that = [3, 4]
    np.testing.assert_allclose(layer.hidden(np.array([[3.0, 2.0]], "float32")), [[3.0, 4.0]], rtol=1e-6)


def test_dropout_acts_after_each_layer_in_training_only() -> None:
    layer = CrossNet(layers=2, dropout=0.5)
    x = np.ones((64, 8), "float32")
    layer(x)
    for cross in layer.crosses:
        cross.kernel.assign(np.zeros((8, 8)))
        cross.bias.assign(np.ones(8))
    # Each layer adds 1. An element that both dropouts keep is ((1 + 1) * 2 + 1) * 2 = 10, one that only the first drops
    # is (0 + 1) * 2 = 2, and one that the last drops is 0.
    trained = ops.convert_to_numpy(layer.hidden(x, training=True))
    assert set(np.unique(trained)) == {0.0, 2.0, 10.0}
    assert (trained == 0).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(layer.hidden(x), np.full((64, 8), 3.0))


def test_v2_is_the_layer_of_keras_rs() -> None:
    layer = CrossNet(layers=1)
    layer.build((None, 10))
    reference = keras_rs.layers.FeatureCross()
    reference(X, X)
    reference.dense.kernel.assign(layer.crosses[0].kernel)
    reference.dense.bias.assign(np.arange(10.0))
    layer.crosses[0].bias.assign(np.arange(10.0))
    np.testing.assert_allclose(layer.hidden(X), reference(X, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("experts", [1, 3])
def test_equal_experts_are_one(experts: int) -> None:
    layer = CrossNet(layers=1, version="mix", experts=experts, rank=4)
    layer.build((None, 10))
    (cross,) = layer.crosses
    generator = np.random.default_rng(0)
    v, c, u = (generator.normal(size=(1, rows, 4)).astype("float32") for rows in (10, 4, 10))
    for weight, value in zip((cross.inward, cross.between, cross.outward), (v, c, u), strict=True):
        weight.assign(np.repeat(value, experts, axis=0))
    cross.bias.assign(np.arange(10.0))
    expected = X * (np.tanh(np.tanh(X @ v[0]) @ c[0].T) @ u[0].T + np.arange(10.0)) + X
    np.testing.assert_allclose(layer.hidden(X), expected, rtol=1e-4, atol=1e-4)


PUBLISHED = [
    # Version, layers and all parameters in the public benchmark logs of Frappe, which has 5,389 ids, here of width 10.
    ("v1", 6, 55_191),
    ("v2", 4, 94_391),
]


@pytest.mark.parametrize(("version", "layers", "total"), PUBLISHED)
def test_parameters_are_those_of_the_published_logs(version: Any, layers: int, total: int) -> None:
    layer = CrossNet(layers=layers, version=version)
    with keras.StatelessScope():
        layer.build((None, 100))
    assert layer.count_params() + 53_890 == total


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(VERSIONS), st.sampled_from([(1, 1), (2, 3)]), st.integers(0, 2**32 - 1))
def test_leading_axes_are_rows(version: Any, leading: tuple[int, int], seed: int) -> None:
    # Only two leading shapes are drawn, since JAX compiles for every new one.
    x = np.random.default_rng(seed).normal(size=(*leading, 6)).astype("float32")
    layer = CrossNet(layers=2, version=version, experts=2, rank=3)
    nested = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(nested.reshape(-1), layer(x.reshape(-1, 6)), rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        {"version": "v1", "dropout": 0.2},
        {"version": "v2"},
        {"version": "v2", "activation": "relu", "batch_norm": True, "dropout": 0.1},
        {"version": "mix", "experts": 3, "rank": 4},
        {"version": "mix", "experts": 1, "rank": 1},
    ],
)
def test_layer(options: dict[str, Any]) -> None:
    layer = CrossNet(layers=2, **options)
    assert (layer.eats, layer.wide) == ("flat", False)
    # The gradient of a bias before a normalization is zero but for rounding errors.
    unmoved = ["layer0/bias", "layer1/bias"] if options.get("batch_norm") else []
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=unmoved)


def test_padding_candidates_change_nothing() -> None:
    layer = CrossNet(layers=2, activation="relu", batch_norm=True)
    layer.build(X.shape)
    check_padding(layer, X, MASK)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"version": "v3"}, "`version` must be one of v1, v2, mix, gated. Received: 'v3'"),
        ({"version": "v1", "activation": "relu"}, "`activation` and `batch_norm` are for version v2 only"),
        ({"version": "mix", "batch_norm": True}, "`activation` and `batch_norm` are for version v2 only"),
        ({"layers": 0}, "`layers` must be a positive whole number. Received: 0"),
        ({"rank": 0}, "`rank` must be"),
        ({"experts": 2.0}, "`experts` must be"),
        ({"dropout": 1}, "`dropout` must be"),
    ],
)
def test_errors(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interaction({"type": "cross_net", **config})
    assert f"interaction cross_net: {message}" in str(error.value)
