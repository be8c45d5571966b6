from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load
from tests.layer_checks import check_layer
from tfctr.interactions import Afm, Fm

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
LINEAR = np.random.default_rng(4).normal(size=(6, 4)).astype("float32")


def _outputs(layer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    logit = layer(inputs["emb"], linear=ops.sum(inputs["linear"], axis=(-2, -1)))[:, None]
    return {"logit": logit, "prob": ops.sigmoid(logit)}


@pytest.mark.golden
def test_golden() -> None:
    case = load("afm")
    layer = Afm(attention_units=case.hyperparameters["attention_dim"])
    layer.build(case["in/emb"].shape)
    weights = {
        "attention/dense/kernel": layer.attention.kernel,
        "attention/dense/bias": layer.attention.bias,
        "attention/score/kernel": layer.score.kernel,
        "projection/kernel": layer.head.kernel,
        "linear/bias": layer.head.bias,
    }
    check(case, lambda inputs: _outputs(layer, inputs), weights)


@pytest.mark.golden
def test_golden_without_attention_it_is_a_factorization_machine() -> None:
    case = load("afm_no_attention")
    layer = Fm()
    layer.build(case["in/emb"].shape)
    check(case, lambda inputs: _outputs(layer, inputs), {"linear/bias": layer.bias})


def test_by_hand() -> None:
    layer = Afm(attention_units=1)
    layer.build((None, 3, 1))
    layer.attention.kernel.assign([[1.0]])
    layer.score.kernel.assign([[np.log(2.0)]])
    layer.head.kernel.assign([[4.0]])
    layer.head.bias.assign([0.5])
    # The fields 1, 1 and -1 have the products 1, -1 and -1, which weigh 2, 1 and 1 parts of 4: the sum is 0.
    np.testing.assert_allclose(layer(np.array([[[1.0], [1.0], [-1.0]]], "float32")), [0.5], atol=1e-6)
    # The fields 1, 1 and 0 have the products 1, 0 and 0, which weigh 2, 1 and 1 parts.
    np.testing.assert_allclose(layer(np.array([[[1.0], [1.0], [0.0]]], "float32"), linear=np.ones(1)), [3.5], rtol=1e-6)


def test_dropout_acts_in_training_only() -> None:
    layer = Afm(attention_dropout=0.5, dropout=0.5)
    assert not np.array_equal(layer(X, training=True), layer(X))
    np.testing.assert_array_equal(layer(X), layer(X))


@pytest.mark.any_backend
def test_layer() -> None:
    layer = Afm(attention_units=3)
    assert (layer.eats, layer.wide) == ("fields", True)
    check_layer(layer, X, call_arguments={"linear": LINEAR}, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`attention_units` must be a positive whole number"):
        Afm(attention_units=0)
    with pytest.raises(ValueError, match=r"needs at least 2 fields\. Received: 1"):
        Afm()(X[..., :1, :])
