from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import gradients, tensors
from tests.layer_checks import check_layer
from tfctr.errors import UserError
from tfctr.interactions import Dlf, create_interaction
from tfctr.interactions.dlf import FUSIONS, DlfLayer
from tfctr.layers.block_fusion import AttentionFusion, GatePooling, MlpFusion
from tfctr.layers.dlf_blocks import DlfBlock, GatedResidual
from tfctr.layers.tokens import TokenMap

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
SMALL = {"tokens": 2, "rank": 3}
ALL = (*FUSIONS, "late")


def _drawn(layer: Any, seed: int = 0, scale: float = 0.3) -> Any:
    """The layer with every weight drawn at random, since biases of zero would hide mistakes."""
    generator = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(0.0, scale, weight.shape))
    return layer


# The paper's equations once more, in NumPy and float64, for one row at a time and with the N x N matrix really built.
# The numbers in comments are those of the equations.


def _relu(a: Any) -> Any:
    return np.maximum(a, 0.0)


def _softmax(a: Any) -> Any:
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _array(variable: Any) -> Any:
    return ops.convert_to_numpy(variable).astype("float64")


def _affine(x: Any, dense: Any) -> Any:
    return x @ _array(dense.kernel) + _array(dense.bias)


def _mapped(x: Any, layer: TokenMap | None) -> Any:
    return x if layer is None else _array(layer.kernel).T @ x


def _block(part: DlfBlock, x: Any, fields: Any) -> Any:
    vector = x.reshape(-1)
    if part.kind != "implicit":
        assert part.products is not None
        other = x if part.kind == "high" else _mapped(fields, part.base_map)
        vector = ((other @ x.T) @ _array(part.products.projection)).reshape(-1)  # equations 5 and 6
        if part.normalize:
            vector = vector / np.sqrt(2 * x.size / part.rank)
    for dense in part.block.dense:
        vector = _relu(_affine(vector, dense))
    return vector.reshape(part.tokens, -1)


def _naf(fuse: AttentionFusion, blocks: list[Any]) -> Any:
    d, number = blocks[0].shape[1], len(blocks)
    z = blocks
    for i, projection in enumerate(fuse.projections):
        q, k, v = zip(*(np.split(one @ _array(projection.kernel), 3, axis=1) for one in z), strict=True)  # 10
        z = []
        for m in range(number):
            others = [x for x in range(number) if x != m]
            heard = np.concatenate([_softmax(q[m] @ k[x].T / np.sqrt(d)) @ v[x] for x in others], axis=1)  # 11
            cross = _relu(_affine(heard, fuse.crosses[i * number + m]))  # 12
            own = _softmax(q[m] @ k[m].T / np.sqrt(d)) @ v[m]  # 13
            z.append(cross + own if fuse.self_attention else cross)
    return _relu(_affine(np.concatenate(z, axis=1), fuse.fuse))  # 14


def _layer(layer: DlfLayer, x: Any, fields: Any) -> Any:
    blocks = [_block(part, x, fields) for part in layer.parts]
    fuse = layer.fuse
    if isinstance(fuse, AttentionFusion):
        blocks.append(_naf(fuse, blocks))
    elif isinstance(fuse, MlpFusion):
        first, second = fuse.block.dense
        blocks.append(_relu(_affine(_relu(_affine(np.concatenate(blocks, axis=1), first)), second)))
    elif isinstance(fuse, GatePooling):
        gates = 1.0 / (1.0 + np.exp(-_array(fuse.gates)))
        blocks.append(sum(gate * block for gate, block in zip(gates, blocks, strict=True)))
    p = _mapped(x, layer.residual.map)
    gate = 1.0 if layer.residual.kernel is None else np.maximum(layer.epsilon, p @ _array(layer.residual.kernel))
    y = np.concatenate(blocks, axis=0) + gate * p  # 15 and 9
    return y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) if layer.normalize else y


OPTIONS: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in FUSIONS),
    {"hidden": [7]},
    {"gate": False},
    {"normalize": False},
    {"epsilon": 0.5},
    {"attention_layers": 2},
    {"fusion": "attention_pooling", "attention_layers": 2},
    {"blocks": ["high", "implicit"]},
    {"blocks": ["implicit"], "fusion": "concat"},
]


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layer_is_the_equations(options: dict[str, Any], count: int) -> None:
    # Three input tokens are the fields, as in the first layer; eight are as many as a layer gives to the next one.
    fields = X[0]
    x = np.random.default_rng(4).normal(size=(4, count, 5)).astype("float32") if count != 3 else fields
    layer = DlfLayer(**SMALL, **options)
    layer(x, fields)
    _drawn(layer)
    expected = np.stack(
        [_layer(layer, a.astype("float64"), b.astype("float64")) for a, b in zip(x, fields, strict=True)]
    )
    np.testing.assert_allclose(layer(x, fields), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ALL)
@pytest.mark.parametrize(("rli", "normalize"), [(True, True), (False, True), (True, False)])
def test_stack_is_the_equations(fusion: Any, rli: bool, normalize: bool) -> None:
    layer = Dlf(layers=3, rli=rli, fusion=fusion, normalize=normalize, **SMALL)
    layer(X)
    _drawn(layer, scale=0.2)
    rows = X.reshape(-1, 3, 5).astype("float64")
    expected = []
    for row in rows:
        fields = row / np.sqrt((row * row).mean()) if normalize else row
        ends = []
        for first in range(0, len(layer.stack), 3):
            x = fields
            for one in layer.stack[first : first + 3]:
                x = _layer(one, x, fields)
            ends.append(x.reshape(-1))
        expected.append(np.concatenate(ends))
    hidden = np.array(expected)
    np.testing.assert_allclose(np.reshape(layer.hidden(X), hidden.shape), hidden, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.reshape(layer(X), -1), _affine(hidden, layer.head)[:, 0], rtol=1e-4, atol=1e-4)


def test_low_block_by_hand() -> None:
    layer = DlfBlock("low", tokens=1, rank=1, normalize=False)
    layer.build((None, 2, 2), (None, 1, 2))
    layer.base_map.kernel.assign([[1.0, -1.0]])  # the one field and its opposite
    layer.products.projection.assign([[1.0], [-2.0]])
    layer.block.dense[0].kernel.assign([[1.0, 0.5], [0.0, 1.0]])
    layer.block.dense[0].bias.assign([1.0, 0.25])
    x = np.array([[[1.0, 2.0], [3.0, -1.0]]], "float32")
    # X^T Y = [-5, 4], whose products with [2, 3] and [-2, -3] are [2, -2]. The dense layer gives
    # [2, 1 - 2] + [1, .25] = [3, -.75] before ReLU.
    fields = np.array([[[2.0, 3.0]]], "float32")
    np.testing.assert_allclose(layer(x, fields), [[[3.0, 0.0]]])
    scaled = DlfBlock("low", tokens=1, rank=1)
    scaled.build((None, 2, 2), (None, 1, 2))
    scaled.set_weights(layer.get_weights())
    # Divided by sqrt(2 * 2 * 2 / 1) the products are [2, -2] / 2.83, and the dense layer gives [1.71, -0.10].
    np.testing.assert_allclose(scaled(x, fields), [[[1.0 + 2.0 / 8.0**0.5, 0.0]]], rtol=1e-6)


def test_gate_by_hand() -> None:
    layer = GatedResidual(tokens=1, epsilon=0.5)
    layer.build((None, 1, 2))
    layer.kernel.assign([[1.0, 0.0], [0.5, -1.0]])
    # [4, 2] W = [5, -2]: the second gate would be negative and is raised to epsilon.
    np.testing.assert_allclose(layer(np.array([[[4.0, 2.0]]], "float32")), [[[20.0, 1.0]]])
    assert layer.map is None
    plain = GatedResidual(tokens=3, gate=False)
    plain.build((None, 1, 2))
    plain.map.kernel.assign([[1.0, -1.0, 0.5]])
    np.testing.assert_allclose(plain(np.array([[[4.0, 2.0]]], "float32")), [[[4.0, 2.0], [-4.0, -2.0], [2.0, 1.0]]])
    assert len(plain.weights) == 1


def test_gate_is_never_below_epsilon() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4, 3)).astype("float32")
    layer = GatedResidual(tokens=4, epsilon=0.125)
    weight = ops.convert_to_numpy(layer(x)) / x
    assert weight.min() == pytest.approx(0.125, rel=1e-5)
    assert 0.3 < np.isclose(weight, 0.125).mean() < 0.7


def _built(**options: Any) -> Dlf:
    layer = Dlf(**{"layers": 2, **SMALL, **options})
    layer.build((None, 3, 5))
    return layer


@pytest.mark.slow
def test_ablations_remove_their_weights() -> None:
    full = _built()
    n, d, rank, fields = 2, 5, 3, 3
    count = 4 * n

    def products(tokens: int) -> int:
        return tokens * rank + tokens * rank * n * d + n * d

    def implicit(tokens: int) -> int:
        return tokens * d * n * d + n * d

    naf = 3 * d * d + 3 * (2 * d * d + d) + 3 * d * d + d
    gate = d * d
    sizes = [layer.count_params() for layer in full.stack]
    assert sizes == [
        2 * products(fields) + implicit(fields) + naf + gate + fields * count,
        2 * products(count) + implicit(count) + naf + gate + fields * count,
    ]
    assert full.count_params() == sum(sizes) + count * d + 1

    ungated = _built(gate=False)
    assert full.count_params() - ungated.count_params() == 2 * gate
    assert all(layer.residual.kernel is None for layer in ungated.stack)

    blind = _built(rli=False)
    assert [[part.kind for part in layer.parts] for layer in blind.stack] == [["high", "implicit"]] * 2
    smaller = 3 * d * d + 2 * (d * d + d) + 2 * d * d + d
    assert [layer.count_params() for layer in blind.stack] == [
        products(fields) + implicit(fields) + smaller + gate + fields * 3 * n,
        products(3 * n) + implicit(3 * n) + smaller + gate,
    ]

    concat = _built(fusion="concat")
    assert all(layer.fuse is None for layer in concat.stack)
    assert not any("naf" in weight.path for weight in concat.weights)
    expected = 2 * products(fields) + implicit(fields) + gate + fields * 3 * n
    assert concat.stack[0].count_params() == expected
    assert _built(fusion="gate_pooling").stack[0].count_params() == expected + 3 * n * d + fields * n
    assert _built(fusion="mlp").stack[0].count_params() == expected + 3 * d * d + d + d * d + d + fields * n
    assert _built(fusion="attention_pooling").count_params() == full.count_params()
    assert _built(attention_layers=2).count_params() - full.count_params() == 2 * (naf - 3 * d * d - d)

    late = _built(fusion="late")
    assert [[part.kind for part in layer.parts] for layer in late.stack] == [["low"]] * 2 + [["high"]] * 2 + [
        ["implicit"]
    ] * 2
    maps = (
        3 * (fields * n + 2 * gate) + fields * n
    )  # maps and gates of three residuals, and the map of the low block's base
    blocks = 2 * (products(fields) + products(n)) + implicit(fields) + implicit(n)
    assert late.count_params() == blocks + maps + 3 * n * d + 1


def test_streams_of_late_fusion_never_meet() -> None:
    layer = _drawn(_built(layers=3, fusion="late"))
    before = ops.convert_to_numpy(layer.hidden(X))
    for weight in layer.stack[3].weights:  # the first layer of the high stream
        weight.assign(ops.convert_to_numpy(weight) + 0.1)
    changed = np.abs(ops.convert_to_numpy(layer.hidden(X)) - before).max((0, 1)).reshape(3, -1) > 0
    np.testing.assert_array_equal(changed.any(1), [False, True, False])


@pytest.mark.parametrize(("kind", "degrees"), [("low", [2, 3, 4]), ("high", [2, 4, 8]), ("implicit", [1, 1, 1])])
def test_order_of_the_interactions(kind: Any, degrees: list[int]) -> None:
    # Each layer of low blocks raises the degree by one, each of high blocks doubles it (the paper's equations 2 and 4).
    fields = np.abs(X[0])
    x, twice = fields, 2 * fields
    for degree in degrees:
        block = DlfBlock(kind, **SMALL, normalize=False)
        block(x, fields)
        for weight in block.weights:  # all positive and without biases, so that ReLU does nothing
            weight.assign(np.abs(ops.convert_to_numpy(weight)) * ("bias" not in weight.path))
        x, twice = (ops.convert_to_numpy(block(*one)) for one in ((x, fields), (twice, 2 * fields)))
        np.testing.assert_allclose(twice, 2.0**degree * x, rtol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    layer = _built(layers=1, dropout=0.5, fusion="concat", gate=False, normalize=False)
    for weight in layer.trainable_weights:
        weight.assign(np.zeros(weight.shape) + 10.0 * ("bias" in weight.path))
    trained = ops.convert_to_numpy(layer.hidden(X, training=True))
    assert set(np.unique(trained)) == {0.0, 20.0}
    assert (trained == 0).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(layer.hidden(X), np.full((6, 4, 30), 10.0))


def _started(scale: float, **options: Any) -> tuple[Dlf, Any]:
    """A backbone as it starts, and fields of that scale for 64 rows."""
    keras.utils.set_random_seed(5)
    return Dlf(**SMALL, **options), np.random.default_rng(6).normal(0.0, scale, (64, 5, 4)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2, 4, 8, 12])
def test_depth_and_scale_do_not_matter_at_the_start(layers: int) -> None:
    logits = []
    for scale in (0.01, 0.1, 0.3, 1.0):
        layer, x = _started(scale, layers=layers, attention_layers=2)
        logits.append(ops.convert_to_numpy(layer(x)))
    assert 0.02 < logits[0].std() <= 0.5
    for one in logits[1:]:
        np.testing.assert_allclose(one, logits[0], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["naf", "late"])
def test_gradients_of_a_deep_stack_are_finite(fusion: Any) -> None:
    layer, _ = _started(1.0, layers=8, fusion=fusion)
    layer.build((None, 5, 4))
    for scale in (0.0, 1e-4, 1.0, 1e4):
        _, x = _started(scale)
        _, by_fields, by_weights = gradients(
            lambda x: ops.mean(ops.sigmoid(layer(x))), tensors(x), layer.trainable_variables
        )
        assert all(np.isfinite(ops.convert_to_numpy(one)).all() for one in (*by_fields, *by_weights))


def test_first_loss_where_one_field_is_a_large_number() -> None:
    layer, x = _started(0.01, layers=8)
    x[:, 0] *= np.random.default_rng(7).lognormal(5.0, 3.0, (64, 1))
    loss = keras.losses.binary_crossentropy(np.arange(64) % 2, layer(x), from_logits=True)
    assert float(ops.mean(loss)) < 1.0


def test_bare_equations_depend_on_the_scale() -> None:
    small, large = (ops.convert_to_numpy(_started(s, layers=4, normalize=False)[0](_started(s)[1])) for s in (0.01, 1))
    assert small.std() < 1e-3
    assert large.std() > 1e3


def test_a_number_keeps_its_size_among_the_fields() -> None:
    # One field is a number times a vector, as numeric features are; its size must still tell rows apart.
    layer, x = _started(1.0, layers=2)
    twice = x.copy()
    twice[:, 0] *= 2.0
    assert np.abs(ops.convert_to_numpy(layer(x)) - ops.convert_to_numpy(layer(twice))).mean() > 1e-2


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(ALL), st.sampled_from([(1, 1), (2, 3)]), st.integers(0, 2**32 - 1))
def test_leading_axes_are_rows(fusion: Any, leading: tuple[int, int], seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(*leading, 3, 5)).astype("float32")
    layer = Dlf(layers=2, fusion=fusion, **SMALL)
    nested = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(nested.reshape(-1), layer(x.reshape(-1, 3, 5)), rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        *({"fusion": fusion} for fusion in ALL),
        {"rli": False, "gate": False, "hidden": [4], "dropout": 0.1},
        {"attention_layers": 2, "normalize": False},
    ],
    ids=str,
)
def test_layer(options: dict[str, Any]) -> None:
    layer = Dlf(layers=2, **SMALL, **options)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


@pytest.mark.any_backend
def test_one_layer_alone() -> None:
    check_layer(DlfLayer(**SMALL), X, call_arguments={"base": X[..., :2, :]}, output_shape=(6, 4, 8, 5))


@pytest.mark.any_backend
def test_one_field_and_one_token() -> None:
    x = X[..., :1, :]
    check_layer(Dlf(layers=2, tokens=1, rank=1), x, output_shape=(6, 4))
    assert np.isfinite(ops.convert_to_numpy(Dlf(layers=2, tokens=3)(x))).all()


@pytest.mark.any_backend
def test_pieces() -> None:
    check_layer(GatedResidual(4), X, output_shape=(6, 4, 4, 5))
    check_layer(DlfBlock("low", 4, hidden=[6]), X, call_arguments={"base": X[..., :2, :]}, output_shape=(6, 4, 4, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "interaction dlf: `fusion` must be one of naf, concat, mlp, gate_pooling, attention_pool"),
        ({"epsilon": 0}, "interaction dlf: `epsilon` must be a positive number. Received: 0"),
        ({"gate": 1}, "interaction dlf: `gate` must be true or false. Received: 1"),
        ({"tokens": 0}, "interaction dlf: `tokens` must be a positive whole number. Received: 0"),
        ({"hidden": 512}, "interaction dlf: `hidden` must be a list of positive whole numbers. Received: 512"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interaction({"type": "dlf", **options})
    assert message in str(error.value)


def test_errors_of_the_parts() -> None:
    with pytest.raises(ValueError, match="`fusion` must be one of naf, concat, mlp, gate_pooling, attention_pooling"):
        DlfLayer(fusion="late")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`kind` must be one of low, high, implicit\. Received: 'deep'"):
        DlfBlock("deep")  # type: ignore[arg-type]
