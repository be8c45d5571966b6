import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.golden_cases import check, load
from tests.layer_checks import check_layer
from tfctr.interactions import Fm
from tfctr.layers.pairwise import bi_interaction, pairwise_products

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
LINEAR = np.random.default_rng(4).normal(size=(6, 4)).astype("float32")


@pytest.mark.golden
def test_golden_fm() -> None:
    case = load("fm_full")
    layer = Fm()
    layer.build(case["in/emb"].shape)

    def forward(inputs: dict[str, object]) -> dict[str, object]:
        logit = layer(inputs["emb"], linear=ops.sum(inputs["linear"], axis=(1, 2)))[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, {"linear/bias": layer.bias})


@pytest.mark.golden
def test_golden_pairwise_products() -> None:
    def forward(inputs: dict[str, object]) -> dict[str, object]:
        pooled, products = bi_interaction(inputs["emb"]), pairwise_products(inputs["emb"])
        return {
            "sum": ops.sum(pooled, axis=-1, keepdims=True),
            "bi_interaction": pooled,
            "inner": ops.sum(products, axis=-1),
            "elementwise": products,
        }

    check(load("pairwise_products"), forward, {})


def test_by_hand() -> None:
    fields = np.array([[[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]]], "float32")
    layer = Fm()
    layer.build(fields.shape)
    layer.bias.assign([0.25])
    # (1*3 - 2*1) + (1*.5 + 2*4) + (3*.5 - 1*4) = 1 + 8.5 - 2.5 = 7
    np.testing.assert_allclose(layer(fields), [7.25], rtol=1e-6)
    np.testing.assert_allclose(layer(fields, linear=np.array([-3.0], "float32")), [4.25], rtol=1e-6)


def test_half_precision_keeps_the_products_of_large_fields() -> None:
    # The square of the sum and the sum of the squares are near 1e4. They differ by twice the product of the fields,
    # 100, which is close to the rounding errors of bfloat16.
    fields = np.array([[[100.0], [0.5]]], "float32")
    layer = Fm(bias=False, dtype="mixed_bfloat16")
    assert float(ops.convert_to_numpy(ops.cast(layer(fields), "float32"))[0]) == 50.0


def test_eats_fields_and_is_wide() -> None:
    assert (Fm().eats, Fm().wide) == ("fields", True)


@pytest.mark.any_backend
@pytest.mark.parametrize("bias", [False, True])
def test_layer(bias: bool) -> None:
    layer = Fm(bias=bias)
    check_layer(layer, X, output_shape=(6, 4))
    check_layer(layer, X, call_arguments={"linear": LINEAR}, output_shape=(6, 4))
    assert len(layer.weights) == int(bias)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 5]), st.integers(0, 2**32 - 1))
def test_is_the_sum_over_pairs_in_any_order(fields: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(2, 3, fields, 4)).astype("float32")
    pairs = sum((x[..., i, :] * x[..., j, :] for i in range(fields) for j in range(i)), np.zeros((2, 3, 4), "float32"))
    np.testing.assert_allclose(bi_interaction(x), pairs, atol=1e-4)
    np.testing.assert_allclose(Fm()(x[..., generator.permutation(fields), :]), pairs.sum(-1), atol=1e-4)
    np.testing.assert_allclose(ops.sum(pairwise_products(x), axis=-2), pairs, atol=1e-4)
