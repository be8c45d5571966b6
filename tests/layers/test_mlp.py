import keras
import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, compare, load
from tests.layer_checks import check_layer
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.prelu import PReLU

X = np.random.default_rng(3).normal(size=(6, 3, 5)).astype("float32")


@pytest.mark.golden
@pytest.mark.parametrize(("name", "shared"), [("trap_prelu_shared", True), ("trap_prelu_per_channel", False)])
def test_prelu_golden(name: str, shared: bool) -> None:
    case = load(name)
    layer = PReLU(shared=shared)
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"])}, {"alpha": layer.alpha})


def test_prelu_starts_at_a_quarter() -> None:
    np.testing.assert_allclose(PReLU()(np.array([[-4.0, 2.0]], "float32")), [[-1.0, 2.0]])


@pytest.mark.any_backend
@pytest.mark.parametrize("shared", [True, False])
def test_prelu_layer(shared: bool) -> None:
    check_layer(PReLU(shared=shared), X, output_shape=X.shape)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"hidden": [7, 4]}, 4),
        ({"hidden": [7], "output": 2, "batch_norm": True, "dropout": 0.3}, 2),
        ({"hidden": [], "output": 2}, 2),
        ({"hidden": [7, 4], "activation": "prelu", "batch_norm": True}, 4),
        ({"hidden": [7], "activation": "dice"}, 7),
        ({"hidden": [7], "activation": None}, 7),
    ],
)
def test_layer(options: dict[str, object], width: int) -> None:
    check_layer(MlpBlock(**options), X, output_shape=(6, 3, width), unmoved=["/bias"])


def test_order_is_linear_normalization_activation_dropout() -> None:
    block = MlpBlock([4], batch_norm=True, dropout=0.5)
    block.build((None, 5))
    rows = X.reshape(-1, 5)
    block.norms[0].beta.assign(np.full(4, 3.0))
    y = ops.convert_to_numpy(block(rows, training=True))
    normal = rows @ ops.convert_to_numpy(block.dense[0].kernel)
    normal = (normal - normal.mean(0)) / np.sqrt(normal.var(0) + 1e-5) + 3.0
    kept = y != 0
    np.testing.assert_allclose(y[kept], 2 * np.maximum(normal, 0)[kept], rtol=1e-4, atol=1e-5)
    assert 0.2 < kept.mean() < 0.8


def test_no_layers_are_the_identity() -> None:
    np.testing.assert_array_equal(MlpBlock([])(X), X)
    assert MlpBlock([]).compute_output_shape((None, 3, 5)) == (None, 3, 5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`output` must be a positive whole number"):
        MlpBlock([3], output=0)


@pytest.mark.parametrize("fans", [None, (300, 500)])
def test_xavier_normal_is_not_truncated(fans: tuple[int, int] | None) -> None:
    keras.utils.set_random_seed(0)
    shape = (300, 500) if fans is None else (4, 300, 500)
    draw = ops.convert_to_numpy(xavier_normal(fans)(shape))
    std = np.sqrt(2 / 800)
    assert draw.std() == pytest.approx(std, rel=0.01)
    assert (np.abs(draw) > 2 * std).mean() == pytest.approx(0.0455, abs=0.003)


@pytest.mark.golden
def test_xavier_normal_golden_deviation() -> None:
    case = load("trap_initialisers")
    fan_out, fan_in = (int(size) for size in case["in/shape"][0][:2])  # row 0: a dense kernel, stored (out, in)
    keras.utils.set_random_seed(0)
    many = ops.convert_to_numpy(xavier_normal((fan_in, fan_out))((100_000 // (fan_in * fan_out) + 1, fan_in, fan_out)))
    expected = case["out/std"][:1]
    compare(case, "out/std", many.std()[None], expected=expected, atol=0.01 * float(expected[0]))


def test_layers_of_a_block_start_differently() -> None:
    block = MlpBlock([5, 5])
    block.build((None, 5))
    first, second = (ops.convert_to_numpy(dense.kernel) for dense in block.dense)
    assert not np.allclose(first, second)
