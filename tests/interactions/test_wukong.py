from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import GoldenCase, check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import Wukong
from tfctr.interactions.wukong import WukongLayer

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
SMALL: dict[str, Any] = {"product_tokens": 2, "linear_tokens": 3, "rank": 2, "hidden": [5]}


def _layer_weights(layer: WukongLayer) -> dict[str, Any]:
    found = {"compress/kernel": layer.linear.kernel}
    norms = {"norm": layer.norm, "fm/norm": layer.product_norm}
    for name, norm in norms.items():
        if norm is not None:
            found |= {f"{name}/gamma": norm.gamma, f"{name}/beta": norm.beta}
    if layer.products is not None:
        found["fm/projection"] = layer.products.projection
    if layer.residual is not None:
        found |= {"residual/kernel": layer.residual.kernel, "residual/bias": layer.residual.bias}
    for i, dense in enumerate(layer.block.dense):
        found |= {f"fm/dense{i}/kernel": dense.kernel, f"fm/dense{i}/bias": dense.bias}
    return found


def _layer_options(case: GoldenCase) -> dict[str, Any]:
    options = case.hyperparameters
    return {
        "product_tokens": options["fm_tokens"],
        "linear_tokens": options["compress_tokens"],
        "rank": options["rank"] or None,
        "hidden": options["hidden"],
        "layer_norm": options["layer_norm"],
    }


@pytest.mark.golden
@pytest.mark.parametrize("name", names("wukong_layer_*"))
def test_golden_layer(name: str) -> None:
    case = load(name)
    layer = WukongLayer(**_layer_options(case))
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"])}, _layer_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("wukong_full_*"))
def test_golden(name: str) -> None:
    case = load(name)
    layer = Wukong(
        case.hyperparameters["num_layers"], head_hidden=case.hyperparameters["head_hidden"], **_layer_options(case)
    )
    layer.build(case["in/emb"].shape)
    weights: dict[str, Any] = {}
    for i, dense in enumerate([*layer.block.dense, layer.head]):
        weights |= {f"head/dense{i}/kernel": dense.kernel, f"head/dense{i}/bias": dense.bias}
    for i, norm in enumerate(layer.block.norms):
        weights |= {f"head/bn{i}/{name}": getattr(norm, name) for name in STATISTICS}
    for i, one in enumerate(layer.stack):
        weights |= {f"layer{i}/{key}": weight for key, weight in _layer_weights(one).items()}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_by_hand() -> None:
    # Two tokens of width 1, [1] and [3]: the products with Y = [1, 0] are [1, 3], and normalized [-1, 1].
    layer = WukongLayer(product_tokens=1, linear_tokens=1, rank=1, hidden=[], layer_norm=False)
    layer.build((None, 2, 1))
    layer.products.projection.assign([[1.0], [0.0]])
    layer.block.dense[0].kernel.assign([[1.0], [3.0]])
    layer.linear.kernel.assign([[2.0], [-1.0]])
    x = np.array([[[1.0], [3.0]]], "float32")
    # The MLP gives -1 + 3 = 2, the combination 2 - 3 = -1, and the residual is x.
    np.testing.assert_allclose(layer(x), [[[3.0], [2.0]]], rtol=1e-5)
    layer.block.dense[0].kernel.assign([[3.0], [1.0]])  # -2, and relu of it 0
    np.testing.assert_allclose(layer(x), [[[1.0], [2.0]]], rtol=1e-5)


@pytest.mark.parametrize(("fields", "mapped"), [(3, True), (5, False)])
def test_the_residual_is_mapped_only_where_numbers_of_tokens_differ(fields: int, mapped: bool) -> None:
    layer = WukongLayer(**SMALL)
    layer.build((None, fields, 4))
    assert (layer.residual is not None) == mapped


def test_how_weights_start() -> None:
    layer = WukongLayer(product_tokens=40, linear_tokens=200, rank=200, hidden=[4])
    layer.build((None, 100, 4))
    kernels = {"projection": layer.products.projection, "linear": layer.linear.kernel}
    deviations = {name: float(np.std(kernel)) for name, kernel in kernels.items()}
    assert deviations == pytest.approx({"projection": 1.0, "linear": (2 / 300) ** 0.5}, rel=0.03)
    chosen = WukongLayer(**SMALL, kernel_initializer="ones")
    chosen.build((None, 3, 4))
    kernels = (chosen.products.projection, chosen.linear.kernel, chosen.residual.kernel)
    assert all(np.all(np.asarray(kernel) == 1.0) for kernel in kernels)


def test_padding_candidates_change_nothing() -> None:
    layer = Wukong(layers=2, head_hidden=[6], **SMALL)
    check_padding(layer, X, MASK)


def test_dropout_acts_in_training_only() -> None:
    layer = Wukong(layers=1, head_hidden=[64], dropout=0.5, **SMALL)
    layer(X)
    layer.block.norms[0].beta.assign(np.full(64, 10.0))
    assert np.mean(ops.convert_to_numpy(layer.hidden(X, training=True)) == 0) == pytest.approx(0.5, abs=0.1)
    assert (ops.convert_to_numpy(layer.hidden(X)) != 0).all()
    assert layer.stack[0].dropout == 0.5


def test_padding_is_finite() -> None:
    layer = Wukong(layers=2, head_hidden=[6], **SMALL)
    assert np.isfinite(layer(np.zeros((2, 3, 4), "float32"))).all()


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{}, {"rank": None, "layer_norm": False}])
def test_layer(options: dict[str, Any]) -> None:
    layer = Wukong(layers=2, head_hidden=[6], **{**SMALL, **options})
    assert (layer.eats, layer.wide) == ("fields", False)
    # A bias before a batch normalization has the gradient 0, as has one of whole tokens before a layer normalization.
    unmoved = ["block/dense0/bias", "residual/bias"]
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=unmoved)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`product_tokens` must be a positive whole number"):
        Wukong(product_tokens=0)
    with pytest.raises(ValueError, match="`rank` must be a positive whole number"):
        Wukong(rank=0)
    with pytest.raises(ValueError, match="`head_hidden` must be a list"):
        Wukong(head_hidden=[0])
