"""Wide & Deep, DeepFM, xDeepFM, DCN and DCN V2, with a perceptron or another backbone as the deep part."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.layer_checks import check_layer, check_padding
from tfctr.errors import UserError
from tfctr.interactions import INTERACTIONS, Dcn, DcnV2, DeepFm, WideDeep, XDeepFm, create_interaction
from tfctr.interactions.dcn import STRUCTURES
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.dropout import Dropout

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")
LINEAR = np.random.default_rng(4).normal(size=(6, 4)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
MLP = {"type": "mlp", "hidden": [8]}
QNN = {"type": "qnn_alpha", "layers": 1, "rows": 2}
QNN_HEADS = {"type": "qnn_alpha_released", "layers": 1, "rows": 2, "heads": 2}
# The gradient of a bias before a normalization is zero but for rounding errors.
UNMOVED = ["layer0/bias", "layer1/bias"]
HEADED = [name for name, made in INTERACTIONS.items() if issubclass(made, HeadedInteraction)]


def food(layer: Any, x: Any = X) -> Any:
    return x if layer.eats == "fields" else x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def numpy(x: Any) -> Any:
    return ops.convert_to_numpy(x)


def scramble(layer: Any) -> None:
    generator = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(0.0, 0.5, weight.shape))


# Examples worked out by hand, with one field [2, 3] or two fields [1, 2] and [3, -1]. A perceptron without hidden
# layers is a linear model.


def linear_part(deep: Any, weights: list[float], bias: float) -> None:
    deep.head.kernel.assign(np.array(weights)[:, None])
    deep.head.bias.assign([bias])


FIELDS = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")


def test_wide_deep_by_hand() -> None:
    layer = WideDeep(deep={"type": "mlp", "hidden": []})
    layer.build((None, 4))
    linear_part(layer.deep, [1.0, 0.0, 2.0, 3.0], 0.5)
    x = FIELDS.reshape(1, 4)
    np.testing.assert_allclose(layer(x), [4.5], rtol=1e-6)
    np.testing.assert_allclose(layer(x, linear=np.array([-2.0], "float32")), [2.5], rtol=1e-6)


@pytest.mark.parametrize(("options", "expected"), [({}, 3.5), ({"fm_scale": 0.5, "fm_bias": True}, 8.0)])
def test_deepfm_by_hand(options: dict[str, Any], expected: float) -> None:
    layer = DeepFm(deep={"type": "mlp", "hidden": []}, **options)
    layer.build(FIELDS.shape)
    linear_part(layer.deep, [1.0, 0.0, 2.0, 3.0], 0.5)
    if options:
        layer.fm.bias.assign([8.0])
    # The deep part gives 1 + 6 - 3 + .5 = 4.5, the product of the fields is 3 - 2 = 1, and the linear term is -2. The
    # logit is 4.5 + (1 - 2), or with the scale and the bias of the options 4.5 + (1 - 2 + 8) / 2.
    np.testing.assert_allclose(layer(FIELDS, linear=np.array([-2.0], "float32")), [expected], rtol=1e-6)


@pytest.mark.parametrize(("deep", "expected"), [(MLP | {"hidden": []}, 3.5), (None, -1.0)])
def test_xdeepfm_by_hand(deep: Any, expected: float) -> None:
    layer = XDeepFm(deep=deep, maps=[1])
    layer.build(FIELDS.shape)
    layer.cin.layers[0].kernel.assign([[0.0], [1.0], [0.0], [0.0]])
    layer.cin.head.kernel.assign([[2.0]])
    layer.cin.head.bias.assign([-1.0])
    if layer.deep is not None:
        linear_part(layer.deep, [1.0, 0.0, 2.0, 3.0], 0.5)
    # The CIN gives 2 * (3 - 2) - 1 = 1, the linear term -2 and the deep part, where there is one, 4.5.
    np.testing.assert_allclose(layer(FIELDS, linear=np.array([-2.0], "float32")), [expected], rtol=1e-6)


DCN_BY_HAND = {
    # The kernel of the head and the expected logit. The cross part gives [4, 9], the deep part relu(sum of inputs - 4).
    "crossnet_only": ([1.0, -1.0], -4.5),
    "stacked": ([2.0], 18.5),  # deep(13) = 9
    "parallel": ([1.0, -1.0, 2.0], -2.5),  # deep(5) = 1
    "stacked_parallel": ([2.0, 1.0], 19.5),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", [Dcn, DcnV2])
def test_dcn_by_hand(kind: type[DcnV2], structure: Any) -> None:
    layer = kind(structure, cross={"layers": 1}, deep={"type": "mlp", "hidden": [1]})
    x = np.array([[2.0, 3.0]], "float32")
    layer(x)
    (cross,) = layer.cross.crosses
    if kind is Dcn:  # [2, 3] + [2, 3] * 1 + [0, 3]
        cross.kernel.assign([[-1.0], [1.0]])
        cross.bias.assign([0.0, 3.0])
    else:  # [2, 3] + [2, 3] * [1, 2]
        cross.kernel.assign([[0.5, 1.0], [0.0, 0.0]])
        cross.bias.assign([0.0, 0.0])
    for deep in (layer.deep, layer.stacked_deep):
        if deep is not None and deep.built:
            deep.block.dense[0].kernel.assign([[1.0], [1.0]])
            deep.block.dense[0].bias.assign([-4.0])
    weights, expected = DCN_BY_HAND[structure]
    layer.head.kernel.assign(np.array(weights)[:, None])
    layer.head.bias.assign([0.5])
    np.testing.assert_allclose(layer(x), [expected], rtol=1e-6)


# The logit follows from the outputs of the parts, whichever backbone is the deep part.


@pytest.mark.slow
@pytest.mark.parametrize("deep", [MLP, QNN, QNN_HEADS, "cross_net"])
def test_the_logit_is_the_sum_of_the_parts(deep: Any) -> None:
    for layer in (WideDeep(deep), DeepFm(deep, fm_scale=0.5), XDeepFm(deep, maps=[3])):
        x = food(layer)
        layer(x, linear=LINEAR)
        scramble(layer)
        part = numpy(layer.deep(food(layer.deep)))
        rest = {
            WideDeep: lambda: LINEAR,
            DeepFm: lambda layer=layer: 0.5 * numpy(layer.fm(X, linear=LINEAR)),
            XDeepFm: lambda layer=layer: numpy(layer.cin(X)) + LINEAR,
        }[type(layer)]()
        np.testing.assert_allclose(layer(x, linear=LINEAR), part + rest, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            layer(x), numpy(layer(x, linear=LINEAR)) - (0.5 if type(layer) is DeepFm else 1.0) * LINEAR, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("deep", [MLP, QNN, QNN_HEADS])
@pytest.mark.parametrize("structure", STRUCTURES[1:])
def test_dcn_joins_the_hidden_vectors(deep: Any, structure: Any) -> None:
    layer = DcnV2(structure, cross={"layers": 2}, deep=deep)
    logits = layer(food(layer))
    flat = X.reshape(6, 4, 12)
    crossed = numpy(layer.cross.hidden(flat))
    beside = numpy(layer.deep.hidden(food(layer.deep)))

    def on_crossed(part: Any) -> Any:
        return numpy(part.hidden(food(part, crossed.reshape(X.shape))))

    joined = {
        "stacked": lambda: on_crossed(layer.deep),
        "parallel": lambda: np.concatenate([crossed, beside], -1),
        "stacked_parallel": lambda: np.concatenate([on_crossed(layer.stacked_deep), beside], -1),
    }[structure]()
    np.testing.assert_allclose(layer.hidden(food(layer)), joined, rtol=1e-4, atol=1e-5)
    expected = joined @ numpy(layer.head.kernel)[:, 0] + numpy(layer.head.bias)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_parts_of_stacked_parallel_have_weights_and_a_configuration_of_their_own() -> None:
    layer = DcnV2("stacked_parallel", deep=MLP, stacked_deep=QNN_HEADS)
    assert layer.eats == "fields"
    layer(X)
    assert (layer.stacked_deep.width, layer.deep.width, layer.width) == (12, 8, 20)
    twice = DcnV2("stacked_parallel", deep=MLP)
    twice(food(twice))
    assert not {weight.path for weight in twice.deep.weights} & {weight.path for weight in twice.stacked_deep.weights}
    assert not np.array_equal(twice.deep.block.dense[0].kernel, twice.stacked_deep.block.dense[0].kernel)


@pytest.mark.slow
@pytest.mark.parametrize("deep", HEADED)
def test_every_headed_backbone_is_a_deep_part(deep: str) -> None:
    """The deep part of a sum of logits (DeepFM) and of a joined head (DCN V2).

    The names come from the registry, so that new backbones are tested too.
    """
    for layer in (DeepFm(deep), DcnV2(deep=deep)):
        logits = numpy(layer(food(layer)))
        assert logits.shape == (6, 4)
        assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "eats", "wide"),
    [
        ("wide_deep", "flat", True),
        ("deepfm", "fields", True),
        ("xdeepfm", "fields", True),
        ("dcn", "flat", False),
        ("dcnv2", "flat", False),
    ],
)
def test_what_they_eat(name: str, eats: str, wide: bool) -> None:
    layer = create_interaction(name)
    assert (layer.eats, layer.wide) == (eats, wide)
    assert create_interaction({"type": name, "deep": QNN_HEADS}).eats == "fields"


RELEASED_CROSS = {"activation": "relu", "batch_norm": True, "dropout": 0.1}
MLP_400 = {"type": "mlp", "hidden": [400, 400, 400], "batch_norm": True}


def released(**options: Any) -> dict[str, Any]:
    return {"type": "qnn_alpha_released", **options}


def half_fm(**options: Any) -> dict[str, Any]:
    return {"type": "deepfm", "fm_scale": 0.5, "fm_bias": True, "deep": released(**options)}


# From public logs: all parameters, ids, embedding width, fields and the configuration.
PUBLISHED = {
    "frappe/cin": (147_984, 5_389, 10, 10, {"type": "xdeepfm", "deep": None, "maps": [64, 64, 64]}),
    "frappe/dcn": (418_591, 5_389, 10, 10, {"type": "dcn", "deep": MLP_400, "cross": {"layers": 3}}),
    "frappe/dcnv2": (458_391, 5_389, 10, 10, {"type": "dcnv2", "deep": MLP_400, "cross": {"layers": 4}}),
    "frappe/wide_deep": (423_280, 5_389, 10, 10, {"type": "wide_deep", "deep": MLP_400}),
    "frappe/deepfm": (423_280, 5_389, 10, 10, {"type": "deepfm", "deep": MLP_400}),
    "frappe/xdeepfm": (429_809, 5_389, 10, 10, {"type": "xdeepfm", "deep": MLP_400, "maps": [64]}),
    "frappe/dcnv2_qnn": (
        894_929,
        5_383,
        16,
        10,
        {"type": "dcnv2", "deep": released(layers=3, rows=9), "cross": {"layers": 4, **RELEASED_CROSS}},
    ),
    "frappe/deepfm_qnn": (717_593, 5_383, 16, 10, half_fm(layers=3, rows=8)),
    "frappe/xdeepfm_qnn": (
        530_489,
        5_383,
        16,
        10,
        {"type": "xdeepfm", "deep": released(layers=3, rows=5), "maps": [64, 64]},
    ),
    "movielens-1m/dcnv2_qnn": (
        233_521,
        9_751,
        16,
        7,
        {"type": "dcnv2", "deep": released(layers=1, rows=4, heads=4), "cross": {"layers": 2, **RELEASED_CROSS}},
    ),
    "movielens-1m/deepfm_qnn": (217_401, 9_751, 16, 7, half_fm(layers=1, rows=4)),
    "movielens-1m/xdeepfm_qnn": (
        219_033,
        9_751,
        16,
        7,
        {"type": "xdeepfm", "deep": released(layers=1, rows=4), "maps": [32]},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_logs(name: str) -> None:
    total, ids, width, fields, config = PUBLISHED[name]
    layer = create_interaction(config)
    with keras.StatelessScope():  # gives the shapes of the weights without drawing values
        layer.build((None, fields, width) if layer.eats == "fields" else (None, fields * width))
    own = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
    assert own + ids * width + (ids if layer.wide else 0) == total


LAYERS = {
    "wide_deep": {"deep": MLP},
    "wide_deep_qnn": {"deep": QNN},
    "deepfm": {"deep": MLP},
    "deepfm_released": {"deep": QNN_HEADS, "fm_scale": 0.5, "fm_bias": True},
    "xdeepfm": {"deep": QNN, "maps": [3, 2]},
    "xdeepfm_cin": {"deep": None, "maps": [3]},
    "dcn": {"deep": MLP, "cross": {"layers": 2}},
    "dcnv2_released": {"deep": QNN_HEADS, "cross": {"layers": 2, **RELEASED_CROSS}},
    "dcnv2_mix": {"deep": MLP, "cross": {"layers": 1, "version": "mix", "experts": 2, "rank": 3}},
    "dcnv2_crossnet": {"structure": "crossnet_only", "cross": {"layers": 2}},
    "dcnv2_stacked": {"structure": "stacked", "deep": QNN_HEADS, "cross": {"layers": 1}},
    "dcnv2_both": {"structure": "stacked_parallel", "deep": MLP, "stacked_deep": QNN, "cross": {"layers": 1}},
}


def made(name: str) -> Any:
    kind = name if name in INTERACTIONS else name.rsplit("_", 1)[0]
    return create_interaction({"type": kind, **LAYERS[name]})


@pytest.mark.any_backend
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    layer = made(name)
    arguments = {"mask": MASK, **({"linear": LINEAR} if layer.wide else {})}
    check_layer(layer, food(layer), call_arguments=arguments, output_shape=(6, 4), unmoved=UNMOVED)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_no_candidates_and_many(name: str) -> None:
    layer = made(name)
    for candidates in (0, 1, 500):
        x = np.resize(X, (2, candidates, 3, 4))
        logits = numpy(layer(food(layer, x)))
        assert logits.shape == (2, candidates)
        assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide_deep_qnn", "deepfm_released", "xdeepfm", "dcnv2_released", "dcnv2_stacked"])
def test_padding_candidates_change_nothing(name: str) -> None:
    layer = made(name)
    x = food(layer)
    layer(x)
    for part in layer._flatten_layers():
        if isinstance(part, Dropout):
            part.rate = 0.0
    check_padding(layer, x, MASK)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["wide_deep", "deepfm", "xdeepfm", "dcn", "dcnv2"]),
    st.sampled_from([MLP, QNN, QNN_HEADS]),
    st.sampled_from([(1, 1), (2, 3)]),  # only two shapes, since JAX compiles for every new one
    st.integers(0, 2**32 - 1),
)
def test_leading_axes_are_rows(name: str, deep: Any, leading: tuple[int, int], seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(*leading, 2, 4)).astype("float32")
    layer = create_interaction({"type": name, "deep": deep})
    nested = numpy(layer(food(layer, x)))
    assert nested.shape == leading
    np.testing.assert_allclose(nested.reshape(-1), layer(food(layer, x.reshape(-1, 2, 4))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "deepfm", "deep": "mpl"}, "interaction deepfm: deep: unknown type 'mpl'. Allowed: mlp, qnn_alpha"),
        ({"type": "deepfm", "deep": {}}, "interaction deepfm: deep: `type` is missing. Allowed: mlp"),
        ({"type": "deepfm", "deep": None}, "interaction deepfm: deep: must be a name or a mapping with `type`"),
        ({"type": "deepfm", "deep": "fm"}, "interaction deepfm: deep: unknown type 'fm'"),
        (
            {"type": "wide_deep", "deep": {"type": "mlp", "hiden": [3]}},
            "interaction wide_deep: deep mlp: unknown argument 'hiden'. Allowed: hidden, activation",
        ),
        (
            {"type": "xdeepfm", "deep": {"type": "qnn_alpha", "rows": 0}},
            "interaction xdeepfm: deep qnn_alpha: `rows` must be a positive whole number. Received: 0",
        ),
        ({"type": "deepfm", "fm_scale": 0}, "interaction deepfm: `fm_scale` must be a positive number. Received: 0"),
        ({"type": "deepfm", "fm_bias": 1}, "interaction deepfm: `fm_bias` must be true or false. Received: 1"),
        ({"type": "xdeepfm", "maps": []}, "interaction xdeepfm: `maps` must not be empty"),
        (
            {"type": "dcnv2", "structure": "serial"},
            "interaction dcnv2: `structure` must be one of crossnet_only, stacked, parallel, stacked_parallel. "
            "Received: 'serial'",
        ),
        (
            {"type": "dcnv2", "stacked_deep": "mlp"},
            "interaction dcnv2: `stacked_deep` is for structure stacked_parallel only. Received: 'parallel'",
        ),
        (
            {"type": "dcnv2", "structure": "stacked_parallel", "stacked_deep": {"type": "mlp", "hidden": 3}},
            "interaction dcnv2: stacked_deep mlp: `hidden` must be a list",
        ),
        (
            {"type": "dcnv2", "cross": {"type": "mlp"}},
            "interaction dcnv2: cross: unknown type 'mlp'. Allowed: cross_net",
        ),
        ({"type": "dcnv2", "cross": 3}, "interaction dcnv2: `cross` must be a mapping of arguments of CrossNet"),
        (
            {"type": "dcn", "cross": {"layer": 3}},
            "interaction dcn: cross cross_net: unknown argument 'layer'. Allowed: layers, version",
        ),
        (
            {"type": "dcn", "cross": {"layers": 0}},
            "interaction dcn: cross cross_net: `layers` must be a positive whole number",
        ),
    ],
)
def test_errors(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interaction(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"`heads` must divide the embedding width 4\. Received: 3"):
        create_interaction({"type": "deepfm", "deep": {"type": "qnn_alpha", "heads": 3}})(X)
