import numpy as np
import pytest

from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import Mlp

X = np.random.default_rng(3).normal(size=(6, 4, 10)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": [8, 4], "batch_norm": True, "dropout": 0.2},
        {"hidden": [8], "activation": "prelu"},
        {"hidden": [8], "activation": "dice"},
        {"hidden": []},
    ],
)
def test_layer(options: dict[str, object]) -> None:
    # The gradient of a bias before a normalization is zero but for rounding errors.
    check_layer(Mlp(**options), X, output_shape=(6, 4), unmoved=["dense0/bias", "dense1/bias"])
    check_layer(Mlp(**options), X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=["/bias"], xla=False)


def test_by_hand() -> None:
    layer = Mlp(hidden=[2])
    layer.build((None, 2))
    (hidden,) = layer.block.dense
    hidden.kernel.assign([[1.0, -1.0], [2.0, 1.0]])
    hidden.bias.assign([0.5, 0.0])
    layer.head.kernel.assign([[2.0], [3.0]])
    layer.head.bias.assign([-1.0])
    # relu([1 + 2 + .5, -1 + 1]) = [3.5, 0];  relu([-1 + 0 + .5, 1 + 0]) = [0, 1]
    logits = layer(np.array([[1.0, 1.0], [-1.0, 0.0]], "float32"))
    np.testing.assert_allclose(logits, [6.0, 2.0], rtol=1e-6)


def test_eats_flat() -> None:
    assert Mlp().eats == "flat"


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"activation": "dice"}])
def test_padding_candidates_change_nothing(options: dict[str, object]) -> None:
    layer = Mlp(hidden=[8], **options)
    layer.build(X.shape)
    check_padding(layer, X, MASK)
