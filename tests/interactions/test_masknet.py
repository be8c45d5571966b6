from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer
from tfctr.interactions import MaskNet
from tfctr.interactions.masknet import FieldNormalization, MaskBlock

X = np.random.default_rng(3).normal(size=(6, 4, 3, 4)).astype("float32")
FLAT = X.reshape(6, 4, 12)


def _block_weights(block: MaskBlock) -> dict[str, Any]:
    found = {"hidden/kernel": block.dense.kernel}
    for i, dense in enumerate(block.mask.dense):
        found |= {f"mask{i}/kernel": dense.kernel, f"mask{i}/bias": dense.bias}
    if block.norm is not None:
        found |= {"norm/gamma": block.norm.gamma, "norm/beta": block.norm.beta}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("masknet_block_*"))
def test_golden_block(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = MaskBlock(options["output_dim"], options["reduction_ratio"], options["layer_norm"])
    layer.build(case["in/hidden"].shape, case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["hidden"], inputs["x"])}, _block_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("masknet_*_full"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    parallel = options["type"] == "parallel"
    layer = MaskNet(
        options["type"],
        hidden=options["hidden"],
        **({"blocks": options["parallel_blocks"], "block_units": options["block_dim"]} if parallel else {}),
        ratio=options["reduction_ratio"],
        embedding_norm=options["embedding_layer_norm"],
        layer_norm=options["layer_norm"],
    )
    layer.build(case["in/emb"].shape)
    dense = {"head": layer.head}
    if parallel:
        last = len(options["hidden"])
        dense = {f"dnn/dense{last}": layer.head}
        dense |= {f"dnn/dense{i}": one for i, one in enumerate(layer.perceptron.dense)}
    weights: dict[str, Any] = {}
    for key, one in dense.items():
        weights |= {f"{key}/kernel": one.kernel, f"{key}/bias": one.bias}
    for i, block in enumerate(layer.blocks):
        weights |= {f"block{i}/{key}": weight for key, weight in _block_weights(block).items()}
    if layer.norm is not None:
        weights |= {f"embedding_norm/{key}": (getattr(layer.norm, key), np.ravel) for key in ("gamma", "beta")}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, weights)


def test_block_by_hand() -> None:
    layer = MaskBlock(units=1, ratio=0.5, layer_norm=False)
    x, v = np.array([[1.0, 2.0, 3.0]], "float32"), np.array([[5.0, -2.0]], "float32")
    layer.build(v.shape, x.shape)
    inside, outside = layer.mask.dense
    inside.kernel.assign([[1.0], [1.0], [-0.5]])  # relu(1 + 2 - 1.5 + .5) = 2, one unit: half of the two of v
    inside.bias.assign([0.5])
    outside.kernel.assign([[1.0, 3.0]])
    outside.bias.assign([1.0, -4.0])  # the mask [3, 2]
    layer.dense.kernel.assign([[1.0], [2.0]])
    np.testing.assert_allclose(layer(v, x), [[15.0 - 8.0]], rtol=1e-6)
    layer.dense.kernel.assign([[-1.0], [0.0]])
    np.testing.assert_allclose(layer(v, x), [[0.0]])


def test_each_field_is_normalized_by_itself() -> None:
    layer = FieldNormalization()
    layer.build((None, 2, 2))
    layer.gamma.assign([1.0, 2.0, 3.0, 4.0])
    layer.beta.assign([0.0, 0.0, 1.0, 1.0])
    y = layer(np.array([[[1.0, 3.0], [900.0, 500.0]]], "float32"))
    np.testing.assert_allclose(y, [[[-1.0, 2.0], [4.0, -3.0]]], rtol=1e-4)


def test_masks_read_the_raw_embeddings() -> None:
    """A normalized vector does not depend on the scale of a field, but its mask does."""
    layer = MaskNet("serial", hidden=[5, 5], layer_norm=False)
    one, twice = layer(X), layer(2 * X)
    assert not np.allclose(one, twice, rtol=1e-2)
    for block in layer.blocks:
        block.mask.dense[-1].kernel.assign(np.zeros(block.mask.dense[-1].kernel.shape))
        block.mask.dense[-1].bias.assign(np.ones(block.mask.dense[-1].bias.shape))
    np.testing.assert_allclose(layer(X), layer(2 * X), rtol=1e-3, atol=1e-4)


def test_parameters_with_the_published_settings() -> None:
    # FuxiCTR logs 571,691 parameters for Frappe: 53,890 in embeddings of width 10, and the rest in the backbone.
    layer = MaskNet(
        "parallel", hidden=[400, 400, 400], blocks=3, block_units=50, ratio=2, embedding_norm=False, dropout=0.1
    )
    layer.build((None, 10, 10))
    assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) == 571_691 - 53_890


@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_dropout_acts_in_training_only(structure: Any) -> None:
    layer = MaskNet(structure, hidden=[200], activation=None, dropout=0.5)
    layer(X)
    assert np.mean(ops.convert_to_numpy(layer.hidden(X, training=True)) == 0) == pytest.approx(0.5, abs=0.1)
    assert (ops.convert_to_numpy(layer.hidden(X)) != 0).all()


@pytest.mark.any_backend
@pytest.mark.parametrize("options", [{"structure": "serial"}, {"structure": "parallel", "embedding_norm": False}])
def test_layer(options: dict[str, Any]) -> None:
    layer = MaskNet(**options, hidden=[6, 5], blocks=2, block_units=4, ratio=0.5)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, output_shape=(6, 4))


@pytest.mark.any_backend
def test_block() -> None:
    layer = MaskBlock(5, ratio=2, layer_norm=False, activation="prelu")
    check_layer(layer, X[..., 0, :], call_arguments={"embeddings": FLAT}, output_shape=(6, 4, 5))


def test_a_mask_has_at_least_one_unit() -> None:
    layer = MaskBlock(2, ratio=0.01)
    layer(FLAT, FLAT)
    assert layer.mask.dense[0].units == 1


def test_padding_is_finite() -> None:
    assert np.isfinite(MaskNet(hidden=[4])(np.zeros((2, 3, 4), "float32"))).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="`structure` must be one of serial, parallel"):
        MaskNet("both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`hidden` must not be empty for the serial structure"):
        MaskNet(hidden=[])
    with pytest.raises(ValueError, match=r"`ratio` must be a positive number\. Received: 0"):
        MaskNet(ratio=0)
    with pytest.raises(ValueError, match="`blocks` must be a positive whole number"):
        MaskNet("parallel", blocks=0)
