from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer
from tfctr.interactions import Sam
from tfctr.interactions.sam import KINDS

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
AGGREGATION = {"concat": "concat", "mean_pooling": "mean", "weighted_pooling": "weighted", "sum_pooling": "sum"}


@pytest.mark.golden
@pytest.mark.parametrize("name", names("sam2*", "sam3*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = Sam(
        options["type"],
        options["num_layers"],
        options["residual"],
        AGGREGATION[options["aggregation"]],  # type: ignore[arg-type]
    )
    layer.build(case["in/emb"].shape)
    weights = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    if layer.aggregation == "weighted":
        weights["pool_weight"] = layer.shares
    for i, one in enumerate(layer.attentions):
        if one.form.endswith("A"):
            weights[f"layer{i}/weight"] = one.values
        if one.deep:
            weights[f"layer{i}/key/kernel"] = one.key.kernel
        if one.use_residual:
            weights[f"layer{i}/residual/kernel"] = one.residual.kernel

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit), "pooled": layer.hidden(inputs["emb"])}

    check(case, forward, weights)


def test_similarities_by_hand() -> None:
    fields = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")
    layer = Sam("3E", aggregation="sum")
    layer.build(fields.shape)
    layer.attentions[0].key.kernel.assign(np.eye(2))
    # The similarities are [[5, 1], [1, 10]]: field 0 is (1, 2) * (5 (1, 2) + (3, -1)) = (8, 18), and field 1 is
    # (3, -1) * ((1, 2) + 10 (3, -1)) = (93, 8).
    np.testing.assert_allclose(layer.hidden(fields), [[101.0, 26.0]])
    plain = Sam("2A", aggregation="mean")
    plain.build(fields.shape)
    np.testing.assert_allclose(plain.hidden(fields), [[17 / 4, 17 / 4]])


@pytest.mark.parametrize("form", ["3A", "3E"])
def test_a_stack_starts_small_whatever_the_draw(form: Any) -> None:
    # As at the start of a model: all fields are new embeddings but one, which is a projected vector of length one.
    generator = np.random.default_rng(5)
    fields = generator.normal(0.0, 0.01, (64, 13, 8)).astype("float32")
    vectors = generator.normal(size=(64, 8))
    fields[:, 3] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    for seed in range(12):
        keras.utils.set_random_seed(seed)
        assert np.std(ops.convert_to_numpy(Sam(form, layers=4, residual=True)(fields))) <= 0.5


@pytest.mark.any_backend
@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("aggregation", ["concat", "weighted"])
def test_layer(form: Any, aggregation: Any) -> None:
    layer = Sam(form, aggregation=aggregation, residual=form.startswith("3"))
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"Forms 2A and 2E have one layer\. Received layers: 2"):
        Sam("2A", layers=2)
    with pytest.raises(ValueError, match="`residual` is for forms 3A and 3E only"):
        Sam("2E", residual=True)
    with pytest.raises(ValueError, match=r"`form` must be one of 2A, 2E, 3A, 3E\. Received: '4A'"):
        Sam("4A")  # type: ignore[arg-type]
