"""QIN's backbone, and the folding of it and of QNN-alpha."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import BACKEND
from tests.golden_cases import GoldenCase, check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import FoldedQin, Mlp, Qin, QnnAlpha, QnnAlphaReleased
from tfctr.interactions.base import Interaction
from tfctr.interactions.headed import HeadedInteraction

GOLDEN = names("qin_backbone_*")


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def scrambled(layer: Any, shape: tuple[int | None, ...], seed: int = 1) -> Any:
    """The layer built for inputs of this shape, with random weights and statistics."""
    layer.build(shape)
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        value = generator.normal(0.0, 0.3, weight.shape)
        weight.assign(np.abs(value) + 0.2 if "variance" in weight.path else value)
    return layer


def from_case(case: GoldenCase) -> tuple[Qin, dict[str, Any]]:
    """A backbone for a case, and its weights by their names in the case."""
    options = case.hyperparameters
    layer = Qin(layers=options["num_layers"], rows=options["num_rows"], batch_norm=options["batch_norm"], dropout=0.0)
    layer.build((None, options["input_dim"]))
    found: dict[str, Any] = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, product in enumerate(layer.products):
        found |= {f"layer{i}/kernel": product.kernel, f"layer{i}/bias": product.bias}
        found[f"layer{i}/prelu/alpha"] = product.act.alpha
        if product.norm is not None:
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                found[f"layer{i}/bn/{name}"] = getattr(product.norm, name)
    return layer, found


def outputs_of(layer: Callable[[], HeadedInteraction]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        made = layer()
        return {"hidden": made.hidden(inputs["x"]), "logit": made(inputs["x"])[:, None]}

    return run


@pytest.mark.golden
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    layer, weights = from_case(load(name))
    check(load(name), outputs_of(lambda: layer), weights)


@pytest.mark.golden
@pytest.mark.parametrize("name", GOLDEN)
def test_folded_golden(name: str) -> None:
    """The folded backbone gives the published outputs; its gradients are not those of the trained one's weights."""
    case = load(name)
    layer, weights = from_case(case)
    forward = {key: value for key, value in case.tensors.items() if not key.startswith("grad/")}
    check(GoldenCase(case.name, case.entry, forward), outputs_of(lambda: layer.fold()), weights)


def test_by_hand() -> None:
    layer = Qin(layers=1, rows=2, batch_norm=False, dropout=0.0)
    layer.build((None, 2))
    product = layer.products[0]
    product.kernel.assign([[1.0, 0.0, 2.0, 0.0], [0.0, -1.0, 1.0, 0.0]])
    product.bias.assign([0.0, 1.0, -1.0, 0.0])
    x = np.array([[2.0, 3.0]], "float32")
    # Row 0 gives [2, -3 + 1] and row 1 [4 + 3 - 1, 0]; their sum is [8, -2]. Times x it is [16, -6], after PReLU of
    # slope 0.25 it is [16, -1.5], and the residual adds x.
    np.testing.assert_allclose(numpy(layer.hidden(x)), [[18.0, 1.5]], rtol=1e-6)
    folded = layer.fold()
    np.testing.assert_allclose(numpy(folded.products[0].kernel), [[3.0, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(numpy(folded.hidden(x)), [[18.0, 1.5]], rtol=1e-6)


@pytest.mark.parametrize("options", [{"residual": False}, {"activation": "relu"}, {"activation": None, "rows": 1}])
def test_options_follow_the_formula(options: dict[str, Any]) -> None:
    layer = scrambled(Qin(**{"layers": 1, "rows": 3, **options}), (None, 4))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    product = layer.products[0]
    kernel = numpy(product.kernel).reshape(4, layer.rows, 4)
    z = x * (np.einsum("ni,irj->nrj", x, kernel) + numpy(product.bias).reshape(layer.rows, 4)).sum(1)
    scale, shift = product.norm.affine()
    z = z * scale + shift
    act = {"relu": lambda a: np.maximum(a, 0), None: lambda a: a, "prelu": lambda a: np.where(a > 0, a, slope * a)}
    slope = numpy(product.act.alpha) if layer.activation == "prelu" else None
    expected = act[layer.activation](z) + (0 if options.get("residual") is False else x)
    np.testing.assert_allclose(numpy(layer.hidden(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dropout", "linear_dropout"), [(0.5, 0.0), (0.0, 0.5), (0.5, None)])
def test_each_dropout_site_acts_in_training_only(dropout: float, linear_dropout: float | None) -> None:
    layer = Qin(layers=1, rows=1, batch_norm=False, dropout=dropout, linear_dropout=linear_dropout, residual=False)
    x = np.ones((64, 6), "float32")
    layer(x)
    layer.products[0].bias.assign(np.full(6, 10.0))
    zeros = (numpy(layer.hidden(x, training=True)) == 0).mean()
    assert zeros == pytest.approx(0.75 if linear_dropout is None else 0.5, abs=0.12)
    assert not (numpy(layer.hidden(x)) == 0).any()


def test_linear_dropout_drops_each_row_by_itself() -> None:
    layer = Qin(layers=1, rows=3, batch_norm=False, dropout=0.0, linear_dropout=0.5, residual=False)
    x = np.ones((64, 6), "float32")
    layer(x)
    product = layer.products[0]
    product.kernel.assign(np.zeros(product.kernel.shape))
    product.bias.assign(np.ones(18))
    assert set(np.unique(numpy(layer.hidden(x, training=True)))) == {0.0, 2.0, 4.0, 6.0}


@pytest.mark.parametrize(("rows", "total"), [(4, 31_244_293), (3, 27_045_893)])
def test_parameters_are_those_of_the_published_logs(rows: int, total: int) -> None:
    layer = Qin(layers=4, rows=rows)
    with keras.StatelessScope():  # gives the shapes of the weights without drawing values
        layer.build((None, 1024))
    own = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
    # The rest are the embedding tables of items, tags, likes and views, the matrix P and ASTA's four matrices.
    assert own + 128 * (91_718 + 11_740 + 2 * 11) + 128 * 128 + 4 * 384 * 768 == total


@pytest.mark.any_backend
@pytest.mark.parametrize("batch_norm", [False, True])
def test_layer(batch_norm: bool) -> None:
    x = np.random.default_rng(5).normal(size=(6, 4, 8)).astype("float32")
    mask = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
    layer = Qin(layers=2, rows=2, batch_norm=batch_norm)
    assert layer.eats == "flat"
    check_layer(layer, x, call_arguments={"mask": mask}, output_shape=(6, 4))
    folded = layer.fold()
    assert type(folded) is FoldedQin
    check_layer(folded, x, call_arguments={"mask": mask}, output_shape=(6, 4))


def test_padding_candidates_change_nothing() -> None:
    x = np.random.default_rng(5).normal(size=(6, 4, 8)).astype("float32")
    mask = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
    layer = scrambled(Qin(layers=2, rows=2, dropout=0.0), (None, 8))
    check_padding(layer, x, mask)


# Folding


# Deep products of random numbers amplify rounding errors. So the identity is tested in float64 where the backend has
# it, with a far smaller tolerance.
DTYPE, EXACT = ("float64", 1e-11) if BACKEND == "tensorflow" else ("float32", 3e-5)


def assert_folds(layer: HeadedInteraction, x: np.ndarray, rtol: float = EXACT) -> HeadedInteraction:
    """Check that folding keeps the outputs and the trained backbone, and that the folded one has a working config."""
    before = layer.get_weights()
    folded = layer.fold()
    assert isinstance(folded, HeadedInteraction)
    for one, other in ((layer.hidden(x), folded.hidden(x)), (layer(x), folded(x))):
        one, other = numpy(one), numpy(other)
        assert np.abs(one - other).max() <= rtol * max(1.0, np.abs(one).max())
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    again = type(folded).from_config(folded.get_config())
    again(x)
    again.set_weights(folded.get_weights())
    np.testing.assert_array_equal(numpy(again(x)), numpy(folded(x)))
    assert folded.fold() is folded
    return folded


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    layers=st.integers(1, 3),
    rows=st.integers(1, 5),
    activation=st.sampled_from(["prelu", "relu", "tanh", None]),
    batch_norm=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fold_qin(layers: int, rows: int, activation: str | None, batch_norm: bool, residual: bool, seed: int) -> None:
    layer = Qin(layers=layers, rows=rows, activation=activation, batch_norm=batch_norm, residual=residual, dtype=DTYPE)
    scrambled(layer, (None, 6), seed)
    x = np.random.default_rng(seed).normal(size=(3, 2, 6)).astype(DTYPE)
    folded = assert_folds(layer, x)
    assert (folded is layer) == (rows == 1 and not batch_norm)
    slope = int(activation == "prelu")
    expected = layers * (36 + 6 + 6 * batch_norm + slope) + 7
    assert folded.count_params() == expected


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from([QnnAlpha, QnnAlphaReleased]),
    heads=st.sampled_from([1, 2]),
    rows=st.integers(1, 4),
    activation=st.sampled_from([None, "linear", "relu"]),
    batch_norm=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fold_qnn_alpha(
    kind: type[QnnAlpha],
    heads: int,
    rows: int,
    activation: str | None,
    batch_norm: bool,
    residual: bool,
    seed: int,
) -> None:
    options = {"activation": activation, "batch_norm": batch_norm, "residual": residual, "dtype": DTYPE}
    shape = (3, 4) if heads > 1 else (12,)
    layer = scrambled(kind(layers=2, heads=heads, rows=rows, **options), (None, *shape), seed)
    x = np.random.default_rng(seed).normal(size=(3, 2, *shape)).astype(DTYPE)
    folded = assert_folds(layer, x)
    assert type(folded) is kind
    kept = rows if activation == "relu" else 1
    matrix = 144 if kind is QnnAlphaReleased else 144 // heads
    assert folded.count_params() == 2 * kept * (matrix + 12) + 13


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_fold_in_float32_is_within_a_millionth(seed: int) -> None:
    """The weights are initial ones, the statistics come from training calls, and the sizes are those released."""
    keras.utils.set_random_seed(seed)
    trained = Qin(layers=4, rows=4)
    x = np.random.default_rng(seed).normal(0.0, 0.3, (50, 64)).astype("float32")
    for _ in range(30):
        trained(x, training=True)
    assert_folds(trained, x, rtol=1e-6)


def test_the_folded_deep_part_of_another_backbone_has_no_head() -> None:
    layer = Qin(layers=1, rows=2)
    layer.headless = True
    scrambled(layer, (None, 4))
    folded = layer.fold()
    assert not hasattr(folded, "head")
    x = np.ones((3, 4), "float32")
    np.testing.assert_allclose(numpy(folded.hidden(x)), numpy(layer.hidden(x)), rtol=1e-5, atol=1e-6)


def test_fold_in_mixed_precision() -> None:
    layer = scrambled(Qin(layers=2, rows=3, dtype="mixed_bfloat16"), (None, 6))
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
    folded = layer.fold()
    assert {weight.dtype for weight in folded.weights} == {"float32"}
    one, other = (numpy(ops.cast(made(x), "float32")) for made in (layer, folded))
    assert np.abs(one - other).max() <= 0.05 * np.abs(one).max()


def test_what_has_nothing_to_fold_is_itself() -> None:
    layer: Interaction = Mlp(hidden=[4])
    assert layer.fold() is layer


@pytest.mark.parametrize("layer", [Qin(), QnnAlpha()])
def test_fold_needs_weights(layer: HeadedInteraction) -> None:
    with pytest.raises(ValueError, match="`fold` needs weights"):
        layer.fold()
