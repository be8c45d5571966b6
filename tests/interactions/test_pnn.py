from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer
from tfctr.interactions import Pnn

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]


@pytest.mark.golden
@pytest.mark.parametrize("name", names("pnn_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = Pnn(hidden=options["hidden"], batch_norm=options["batch_norm"])
    layer.build(case["in/emb"].shape)
    weights = {}
    for i, dense in enumerate([*layer.block.dense, layer.head]):
        weights |= {f"dnn/dense{i}/kernel": dense.kernel, f"dnn/dense{i}/bias": dense.bias}
    for i, norm in enumerate(layer.block.norms):
        for key in ("gamma", "beta", "moving_mean", "moving_variance"):
            weights[f"dnn/bn{i}/{key}"] = getattr(norm, key)

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit), "dnn_input": layer.with_products(inputs["emb"])}

    check(case, forward, weights)


def test_products_by_hand() -> None:
    fields = np.array([[[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]]], "float32")
    inner, outer = Pnn("inner", hidden=[]), Pnn("outer", hidden=[])
    # (1, 2) . (3, -1) = 1, (1, 2) . (0, 1) = 2, (3, -1) . (0, 1) = -1.
    np.testing.assert_allclose(inner.with_products(fields), [[1, 2, 3, -1, 0, 1, 1, 2, -1]])
    # The fields sum to (4, 2), whose outer product is [[16, 8], [8, 4]].
    np.testing.assert_allclose(outer.with_products(fields), [[1, 2, 3, -1, 0, 1, 16, 8, 8, 4]])
    outer.build(fields.shape)
    outer.head.kernel.assign(np.array([[1, 0, 0, 0, 0, 0, 0.5, 0, 1, -1]], "float32").T)
    outer.head.bias.assign([0.25])
    np.testing.assert_allclose(outer(fields), [1 + 8 + 8 - 4 + 0.25])


@pytest.mark.any_backend
@pytest.mark.parametrize("products", ["inner", "outer"])
def test_layer(products: Any) -> None:
    layer = Pnn(products, hidden=[8], batch_norm=True)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=["dense0/bias"])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`products` must be one of inner, outer\. Received: 'both'"):
        Pnn("both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Inner products need at least 2 fields\. Received: 1"):
        Pnn()(X[..., :1, :])
    assert Pnn("outer", hidden=[4])(X[..., :1, :]).shape == (6, 4)
