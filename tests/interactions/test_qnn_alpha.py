from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.golden_cases import GoldenCase, check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import QnnAlpha, QnnAlphaReleased
from tfctr.interactions.qnn_alpha import order_by_head
from tfctr.losses import SelfEnsemble

STEP = "qnn_alpha_self_ensemble_step_h2_r3_l2_bn"


def _built(case: GoldenCase, kind: type[QnnAlpha] = QnnAlphaReleased) -> QnnAlpha:
    options = case.hyperparameters
    layer = kind(
        layers=options["num_layers"],
        heads=options["num_heads"],
        rows=options["num_rows"],
        batch_norm=options["batch_norm"],
        dropout=0.0,
    )
    shape = case["in/emb"].shape
    layer.build(shape if layer.eats == "fields" else (shape[0], shape[1] * shape[2]))
    return layer


def _weights(layer: QnnAlpha) -> dict[str, Any]:
    found: dict[str, Any] = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, product in enumerate(layer.products):
        shape = product.kernel.shape
        found[f"layer{i}/kernel"] = (product.kernel, lambda array, shape=shape: array.reshape(shape))
        found[f"layer{i}/bias"] = product.bias
        if product.norm is not None:
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                found[f"layer{i}/bn/{name}"] = getattr(product.norm, name)
    return found


def _after(layer: QnnAlpha) -> dict[str, Any]:
    statistics = ("moving_mean", "moving_variance")
    return {
        f"layer{i}/bn/{name}_after": getattr(product.norm, name)
        for i, product in enumerate(layer.products)
        if product.norm is not None
        for name in statistics
    }


def _food(layer: QnnAlpha, emb: Any) -> Any:
    return emb if layer.eats == "fields" else ops.reshape(emb, (emb.shape[0], -1))


def _forward(layer: QnnAlpha, training: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        food = _food(layer, inputs["emb"])
        # The layers are called only once, since a second call would move the statistics again.
        hidden = layer.hidden(food, training=training)
        logit = layer.head(hidden)
        return {"hidden": hidden, "logit": logit}

    return run


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name in names("qnn_alpha*") if name != STEP])
def test_golden(name: str) -> None:
    case = load(name)
    layer = _built(case)
    training = case.entry["mode"] == "train"
    check(case, _forward(layer, training), _weights(layer), after=_after(layer) if training else None)


@pytest.mark.golden
@pytest.mark.parametrize("name", names("qnn_alpha_h1*"))
def test_the_paper_form_with_one_head_is_the_released_one(name: str) -> None:
    case = load(name)
    layer = _built(case, QnnAlpha)
    check(case, _forward(layer, False), _weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("qnn_alpha_h*"))
def test_call_gives_the_golden_logits(name: str) -> None:
    case = load(name)
    layer = _built(case)
    check(
        case,
        lambda inputs: {
            "logit": layer(_food(layer, inputs["emb"]))[:, None],
            "hidden": layer.hidden(_food(layer, inputs["emb"])),
        },
        _weights(layer),
    )


@pytest.mark.golden
def test_golden_self_ensemble_step() -> None:
    # Each of the two passes normalizes with its own statistics, and the moving statistics take two steps.
    case = load(STEP)
    layer = _built(case)

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logits = layer.pass_logits(inputs["emb"], 2, training=True)
        labels = ops.reshape(inputs["label"], [-1])
        p1, p2 = ops.sigmoid(logits)[..., None]
        return {"loss": SelfEnsemble()(labels, logits, ops.ones_like(labels)), "p1": p1, "p2": p2}

    check(case, forward, _weights(layer), after=_after(layer))


@pytest.mark.golden
def test_doubling_the_batch_is_not_the_published_step() -> None:
    case = load(STEP)
    layer = _built(case)

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        doubled = ops.concatenate([inputs["emb"]] * 2, 0)
        logits = ops.reshape(layer(doubled, training=True), (2, -1))
        labels = ops.reshape(inputs["label"], [-1])
        return {"loss": SelfEnsemble()(labels, logits, ops.ones_like(labels))}

    with pytest.raises(AssertionError, match="moving_mean_after"):
        check(case, forward, _weights(layer), after=_after(layer), ignored=["p1", "p2"])


def test_slices_of_every_field() -> None:
    order = ops.convert_to_numpy(order_by_head(np.arange(8.0)[None], fields=2, heads=2))[0]
    np.testing.assert_array_equal(order, [0, 1, 4, 5, 2, 3, 6, 7])


def test_paper_form_by_hand() -> None:
    # One field of width 2, two heads of width 1: head h only sees e_h.
    layer = QnnAlpha(layers=1, heads=2, rows=2, batch_norm=False, dropout=0.0)
    layer.build((None, 1, 2))
    layer.products[0].kernel.assign(np.array([[[2.0, -1.0]], [[3.0, 1.0]]]))
    layer.products[0].bias.assign([0.0, 0.5, 1.0, -10.0])
    x = np.array([[[2.0, 3.0]]], "float32")
    # head 0: 2 * (relu(4) + relu(-1.5)) + 2 = 10;  head 1: 3 * (relu(10) + relu(-7)) + 3 = 33
    np.testing.assert_allclose(layer.hidden(x), [[10.0, 33.0]], rtol=1e-6)


def test_paper_heads_never_mix_before_the_last_layer() -> None:
    layer = QnnAlpha(layers=3, heads=4, rows=2, dropout=0.0)
    x = np.random.default_rng(0).normal(size=(5, 3, 8)).astype("float32")
    layer(x)
    other = x.copy()
    other[..., 2:4] += 1.0  # the slice of head 1 in every field
    changed = ops.convert_to_numpy(layer.hidden(x) != layer.hidden(other)).any(0).reshape(4, 6)
    np.testing.assert_array_equal(changed.any(1), [False, True, False, False])


@pytest.mark.parametrize("options", [{"residual": False}, {"activation": None}, {"activation": "tanh"}])
def test_options_follow_the_formula(options: dict[str, Any]) -> None:
    layer = QnnAlpha(layers=1, rows=3, batch_norm=False, dropout=0.0, **options)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    layer(x)
    product = layer.products[0]
    kernel = ops.convert_to_numpy(product.kernel).reshape(4, 3, 4)
    projected = np.einsum("ni,irj->nrj", x, kernel)
    act = {"tanh": np.tanh, None: lambda a: a}.get(options.get("activation", "relu"), lambda a: np.maximum(a, 0))
    expected = x * act(projected).sum(1) + (0 if options.get("residual") is False else x)
    np.testing.assert_allclose(layer.hidden(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [QnnAlpha, QnnAlphaReleased])
def test_without_the_product_by_hand(kind: type[QnnAlpha]) -> None:
    # One field of width 2 and two rows: y_i = relu(2 x_i + 1) + relu(-3 x_i) + x_i.
    layer = kind(layers=1, rows=2, batch_norm=False, dropout=0.0, product=False)
    layer.build((None, 2))
    kernel = np.concatenate([2.0 * np.eye(2), -3.0 * np.eye(2)], axis=1)
    layer.products[0].kernel.assign(kernel.reshape(layer.products[0].kernel.shape))
    layer.products[0].bias.assign([1.0, 1.0, 0.0, 0.0])
    # 1 -> 3 + 0 + 1;  -2 -> 0 + 6 - 2
    np.testing.assert_allclose(layer.hidden(np.array([[1.0, -2.0]], "float32")), [[4.0, 4.0]], rtol=1e-6)


def test_prelu_between_projection_and_product_by_hand() -> None:
    layer = QnnAlpha(layers=1, rows=2, batch_norm=False, dropout=0.0, activation="prelu")
    layer.build((None, 1))
    layer.products[0].kernel.assign([[[2.0, -4.0]]])
    # x * (2 x - 4 x / 4) + x at 3: one slope of 0.25 for negative projections.
    np.testing.assert_allclose(layer.hidden(np.array([[3.0]], "float32")), [[12.0]], rtol=1e-6)
    assert [tuple(weight.shape) for weight in layer.products[0].act.trainable_weights] == [(1,)]


def test_dice_between_projection_and_product_by_hand() -> None:
    # Projections 2 and -2: the statistics of the valid rows are 0 and 4, p = sigmoid(+-1), y = x * p * projection + x.
    layer = QnnAlpha(layers=1, rows=1, batch_norm=False, dropout=0.0, activation="dice")
    layer.build((None, 1))
    layer.products[0].kernel.assign([[[2.0]]])
    x, mask = np.array([[1.0], [-1.0], [1e6]], "float32"), np.array([True, True, False])
    share = 1 / (1 + np.exp(-np.array([1.0, -1.0])))
    found = ops.convert_to_numpy(layer.hidden(x, mask=mask, training=True))[:2, 0]
    np.testing.assert_allclose(found, x[:2, 0] * share * 2 * x[:2, 0] + x[:2, 0], rtol=1e-5)


@pytest.mark.parametrize(("dropout", "mid_dropout"), [(0.5, 0.0), (0.0, 0.5), (0.5, None)])
def test_each_dropout_site_acts_in_training_only(dropout: float, mid_dropout: float | None) -> None:
    layer = QnnAlpha(layers=1, rows=1, batch_norm=False, dropout=dropout, mid_dropout=mid_dropout, residual=False)
    x = np.ones((64, 6), "float32")
    layer(x)
    layer.products[0].bias.assign(np.full(6, 10.0))
    zeros = ops.convert_to_numpy(layer.hidden(x, training=True) == 0).mean()
    assert zeros == pytest.approx(0.75 if mid_dropout is None else 0.5, abs=0.12)
    assert not ops.convert_to_numpy(layer.hidden(x) == 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.tensorflow)])
def test_passes_draw_dropout_of_their_own(jit: bool) -> None:
    layer = QnnAlpha(layers=1, rows=2, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    layer(x)

    def step() -> Any:
        return ops.stack([layer(x, training=True) for _ in range(2)])

    if jit:
        import tensorflow as tf

        step = tf.function(step, jit_compile=True)
    first, second = ops.convert_to_numpy(step()), ops.convert_to_numpy(step())
    assert (first[0] != first[1]).mean() > 0.9
    assert (first != second).mean() > 0.9


PUBLISHED = [
    # name, all parameters as logged, vocabulary rows, embedding width, fields, layers, rows, heads, batch norm
    ("frappe", 764_369, 5_383, 16, 10, 2, 13, 1, True),
    ("movielens-1m", 207_649, 9_751, 16, 7, 1, 4, 4, True),
    ("criteo", 22_372_577, 910_747, 16, 39, 4, 5, 1, False),
    ("kkbox", 36_711_425, 91_756, 128, 13, 3, 3, 2, True),
    ("ipinyou", 11_182_929, 665_765, 16, 16, 4, 2, 4, True),
    ("tenrec", 55_646_577, 3_404_996, 16, 15, 2, 10, 1, True),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_released_parameters_are_those_of_the_published_logs(row: tuple[Any, ...]) -> None:
    _, total, vocabulary, width, fields, layers, rows, heads, batch_norm = row
    shape = (None, fields, width) if heads > 1 else (None, fields * width)
    sizes = {}
    for kind in (QnnAlphaReleased, QnnAlpha):
        layer = kind(layers=layers, rows=rows, heads=heads, batch_norm=batch_norm)
        with keras.StatelessScope():  # gives the shapes of the weights without drawing values
            layer.build(shape)
        sizes[kind] = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
    assert sizes[QnnAlphaReleased] + vocabulary * width == total
    # The paper's heads divide the sizes of the projections by their number and change nothing else.
    saved = layers * rows * (fields * width) ** 2 * (heads - 1) // heads
    assert sizes[QnnAlpha] == sizes[QnnAlphaReleased] - saved


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([QnnAlpha, QnnAlphaReleased]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_leading_axes_are_rows(
    kind: type[QnnAlpha], heads: int, batch: int, candidates: int, training: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    layer = kind(layers=2, heads=heads, rows=2, dropout=0.0)
    shape = (3, 8) if heads > 1 else (24,)
    x = generator.normal(size=(batch, candidates, *shape)).astype("float32")
    mask = generator.random((batch, candidates)) < 0.7
    layer(x)
    start = layer.get_weights()
    nested = ops.convert_to_numpy(layer(x, mask=mask, training=training))
    moved = layer.get_weights()
    layer.set_weights(start)
    flat = layer(x.reshape(batch * candidates, *shape), mask=mask.reshape(-1), training=training)
    np.testing.assert_allclose(nested.reshape(-1), flat, rtol=1e-4, atol=1e-5)
    for one, other in zip(moved, layer.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [QnnAlpha, QnnAlphaReleased])
def test_padding_candidates_change_nothing(kind: type[QnnAlpha]) -> None:
    x = np.random.default_rng(5).normal(size=(6, 4, 3, 8)).astype("float32")
    mask = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
    layer = kind(layers=2, heads=2, rows=2, dropout=0.0)
    check_padding(layer, x, mask)


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", [QnnAlpha, QnnAlphaReleased])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_layer(kind: type[QnnAlpha], heads: int, batch_norm: bool) -> None:
    x = np.random.default_rng(5).normal(size=(6, 4, 3, 8)).astype("float32")
    x = x if heads > 1 else x.reshape(6, 4, 24)
    mask = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
    layer = kind(layers=2, heads=heads, rows=2, batch_norm=batch_norm)
    assert layer.eats == ("fields" if heads > 1 else "flat")
    check_layer(layer, x, call_arguments={"mask": mask}, output_shape=(6, 4), unmoved=["layer0/bias", "layer1/bias"])


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"product": False}, {"activation": "prelu"}, {"activation": "dice"}], ids=str)
def test_layer_with_options(options: dict[str, Any]) -> None:
    x = np.random.default_rng(5).normal(size=(6, 4, 3, 8)).astype("float32")
    mask = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
    layer = QnnAlpha(layers=2, heads=2, rows=2, **options)
    check_layer(layer, x, call_arguments={"mask": mask}, output_shape=(6, 4), unmoved=["layer0/bias", "layer1/bias"])


@pytest.mark.parametrize("options", [{"product": False}, {"activation": "prelu"}, {"activation": "dice"}], ids=str)
@pytest.mark.parametrize("kind", [QnnAlpha, QnnAlphaReleased])
def test_the_folded_backbone_is_equal(kind: type[QnnAlpha], options: dict[str, Any]) -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(9, 3, 8)).astype("float32")
    layer = kind(layers=2, heads=2, rows=3, **options)
    layer(x)
    for weight in layer.weights:
        if weight.dtype == "float32":
            weight.assign(generator.uniform(0.2, 1.0, weight.shape) * generator.choice([0.5, 1.0], weight.shape))
    folded = layer.fold()
    assert folded.products[0].norm is None
    np.testing.assert_allclose(folded(x), layer(x), rtol=2e-5)


@pytest.mark.parametrize("options", [{"product": "no"}, {"activation": "dicee"}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: '{options[name]}'"):
        QnnAlpha(**options)


def test_heads_must_divide_the_width() -> None:
    layer = QnnAlpha(heads=3)
    with pytest.raises(ValueError, match=r"`heads` must divide the embedding width 8\. Received: 3"):
        layer(np.ones((2, 5, 8), "float32"))
