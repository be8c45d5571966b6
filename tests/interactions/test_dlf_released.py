from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.golden_cases import GoldenCase, check, load, present
from tests.layer_checks import check_layer, check_padding
from tfctr.interactions import DlfReleased
from tfctr.interactions.dlf_released import DlfReleasedLayer
from tfctr.layers.dlf_released_block import DlfReleasedBlock
from tfctr.layers.tokens import TokenMap

X = np.random.default_rng(3).normal(size=(6, 4, 3, 8)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
SMALL = {"product_tokens": 2, "linear_tokens": 3, "rank": 4, "hidden": [5]}
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")

# The source has no licence, so none of its cases are committed. Their names are written here, so that `present` can
# warn of those that are absent.
BLOCKS = ["dlf_attention_block", "dlf_fm_block", "dlf_fm_block_x0"]
LAYERS = [
    *("dlf_layer_first", "dlf_layer_next"),
    *("dlf_att_layer_first", "dlf_att_layer_first_scale_flag", "dlf_att_layer_next"),
]
STACKS = ["dlf_stack_l2", "dlf_att_stack_l2"]


def _block_weights(block: DlfReleasedBlock) -> dict[str, Any]:
    found = {"norm/gamma": block.norm.gamma, "norm/beta": block.norm.beta}
    for i, dense in enumerate(block.block.dense):
        found |= {f"dense{i}/kernel": dense.kernel, f"dense{i}/bias": dense.bias}
    for i, norm in enumerate(block.block.norms):
        found |= {f"bn{i}/{name}": getattr(norm, name) for name in STATISTICS}
    if block.heads is None:
        return {**found, "projection": block.products.projection}
    return {**found, **{f"{name}/kernel": getattr(block, name).kernel for name in ("query", "key", "value")}}


def _layer_weights(layer: DlfReleasedLayer) -> dict[str, Any]:
    found = {"norm/gamma": layer.norm.gamma, "norm/beta": layer.norm.beta}
    blocks = {"fm_high": layer.high, "fm_low": layer.low, "att": layer.attention}
    for name, block in blocks.items():
        if block is not None:
            found |= {f"{name}/{key}": weight for key, weight in _block_weights(block).items()}
    maps = {"compress": layer.linear, "x0": layer.base_map, "residual": layer.residual}
    return {**found, **{f"{name}/kernel": one.kernel for name, one in maps.items() if one is not None}}


def _layer_options(case: GoldenCase) -> dict[str, Any]:
    options = case.hyperparameters
    return {
        "product_tokens": options["fm_tokens"],
        "linear_tokens": options["compress_tokens"],
        "rank": options["rank"],
        "heads": options.get("num_heads", 2),
        "hidden": [options["hidden"]],
    }


@pytest.mark.golden
@pytest.mark.parametrize("name", present(BLOCKS))
def test_golden_block(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    heads = options.get("num_heads")
    rank = options.get("rank", 1)
    layer = DlfReleasedBlock(options["tokens_out"], rank=rank, heads=heads, hidden=[options["hidden"]])
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"], inputs.get("x0"))}, _block_weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", present(["dlf_linear_compress"]))
def test_golden_linear_map(name: str) -> None:
    case = load(name)
    layer = TokenMap(case.hyperparameters["tokens_out"])
    layer.build(case["in/x"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"])}, {"kernel": layer.kernel})


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", present(LAYERS))
def test_golden_layer(name: str) -> None:
    case = load(name)
    layer = DlfReleasedLayer(attention_tokens=case.hyperparameters.get("att_tokens"), **_layer_options(case))
    fields = "x0" if "in/x0" in case.tensors else "x"
    layer.build(case["in/x"].shape, case[f"in/{fields}"].shape)
    check(case, lambda inputs: {"y": layer(inputs["x"], inputs[fields])}, _layer_weights(layer))


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", present(STACKS))
def test_golden_stack(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    layer = DlfReleased(
        layers=options["num_layers"],
        head_hidden=[options["head_hidden"]],
        attention=options["attention"],
        attention_tokens=options.get("att_tokens", 1),
        **_layer_options(case),
    )
    layer.build(case["in/emb"].shape)
    (dense,), (norm,) = layer.block.dense, layer.block.norms
    weights = {
        "head/dense0/kernel": dense.kernel,
        "head/dense0/bias": dense.bias,
        "head/dense1/kernel": layer.head.kernel,
        "head/dense1/bias": layer.head.bias,
        **{f"head/bn0/{name}": getattr(norm, name) for name in STATISTICS},
    }
    for i, one in enumerate(layer.stack):
        weights |= {f"layer{i}/{key}": weight for key, weight in _layer_weights(one).items()}

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        logit = layer(inputs["emb"])[:, None]
        return {"logit": logit, "prob": ops.sigmoid(logit), "tokens": layer.tokens(inputs["emb"])}

    check(case, forward, weights)


def test_attention_block_by_hand() -> None:
    # Two tokens of width 2 and one head. The scores are not scaled, and the tokens are joined into a vector feature by
    # feature, not token by token.
    layer = DlfReleasedBlock(tokens=1, heads=1, hidden=[])
    layer.build((None, 2, 2))
    layer.query.kernel.assign(np.zeros((2, 2)))  # equal weights: both tokens become the mean of the values
    layer.value.kernel.assign([[1.0, 0.0], [0.0, 2.0]])
    layer.block.dense[0].kernel.assign([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    x = np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")
    # Both tokens are the mean of [1, 4] and [3, 8], [2, 6]. Feature by feature this is [2, 2, 6, 6], and normalized
    # [-1, -1, 1, 1].
    np.testing.assert_allclose(layer(x), [[[-1.0, 1.0]]], rtol=1e-5)


def _formula(n: int, f: int, d: int, product: int, linear: int, rank: int, h: int, attention: int | None = None) -> int:
    total = linear + 2 * product + (attention or 0)
    count = n * linear + 2 * d + (n * total if n != total else 0) + (f * n if f != n else 0)
    count += 2 * (n * rank + 2 * n * rank + n * rank * h + h + 2 * h + h * product * d + product * d)
    if attention:
        count += 3 * d * d + 2 * n * d + n * d * h + h + 2 * h + h * attention * d + attention * d
    return count


@pytest.mark.parametrize(("tokens", "total"), [(5, 1_850), (12, 2_676)])
def test_parameters_of_a_layer(tokens: int, total: int) -> None:
    layer = DlfReleasedLayer(product_tokens=4, linear_tokens=4, rank=3, hidden=[16])
    layer.build((None, tokens, 8), (None, 5, 8))
    assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) == total
    assert _formula(tokens, 5, 8, 4, 4, 3, 16) == total


@pytest.mark.slow
@pytest.mark.parametrize("attention", [False, True])
def test_parameters_with_the_released_settings(attention: bool) -> None:
    # The sizes of Frappe: ten fields of width 64.
    layer = DlfReleased(attention=attention)
    with keras.StatelessScope():  # gives the shapes of the weights without drawing values
        layer.build((None, 10, 64))
    more = 32 if attention else None
    total = 128 if attention else 96
    expected = [_formula(n, 10, 64, 32, 32, 24, 512, more) for n in (10, total, total)]
    assert [sum(int(np.prod(weight.shape)) for weight in one.trainable_weights) for one in layer.stack] == expected
    head = total * 64 * 512 + 512 + 2 * 512 + 512 + 1
    assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) == sum(expected) + head


@pytest.mark.slow
@pytest.mark.parametrize("attention", [False, True])
def test_padding_candidates_change_nothing(attention: bool) -> None:
    layer = DlfReleased(layers=2, head_hidden=[6], attention=attention, attention_tokens=2, **SMALL)
    check_padding(layer, X, MASK)


def test_dropout_acts_in_training_only() -> None:
    layer = DlfReleased(layers=1, head_hidden=[64], dropout=0.5, **SMALL)
    layer(X)
    layer.block.norms[0].beta.assign(np.full(64, 10.0))
    assert float(ops.mean(ops.cast(layer.hidden(X, training=True) == 0, "float32"))) == pytest.approx(0.5, abs=0.1)
    assert not ops.convert_to_numpy(layer.hidden(X) == 0).any()


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.sampled_from([(1, 1), (2, 3)]), st.booleans(), st.integers(0, 2**32 - 1))
def test_leading_axes_are_rows(leading: tuple[int, int], attention: bool, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(*leading, 3, 8)).astype("float32")
    layer = DlfReleased(layers=2, head_hidden=[6], attention=attention, attention_tokens=2, **SMALL)
    nested = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(nested.reshape(-1), layer(x.reshape(-1, 3, 8)), rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("attention", [False, True])
def test_layer(attention: bool) -> None:
    layer = DlfReleased(layers=2, head_hidden=[6], attention=attention, attention_tokens=2, **SMALL)
    assert (layer.eats, layer.wide) == ("fields", False)
    # The gradient of a bias before a batch normalization is zero but for rounding errors.
    unmoved = ["dense0/bias", "block/dense0/bias"]
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4), unmoved=unmoved)


@pytest.mark.any_backend
@pytest.mark.parametrize("heads", [None, 2])
def test_block(heads: int | None) -> None:
    layer = DlfReleasedBlock(2, rank=4, heads=heads, hidden=[5])
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4, 2, 8), unmoved=["dense0/bias"])


@pytest.mark.any_backend
def test_one_layer_alone() -> None:
    layer = DlfReleasedLayer(2, 3, 2, rank=4, hidden=[5])
    check_layer(layer, X, call_arguments={"base": X[..., :2, :]}, output_shape=(6, 4, 9, 8), unmoved=["dense0/bias"])


@pytest.mark.slow
def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"`heads` must divide the width 8 of the tokens\. Received: 3"):
        DlfReleased(attention=True, heads=3, **SMALL)(X)
    DlfReleased(attention=False, heads=3, **SMALL)(X)
    with pytest.raises(ValueError, match="`heads` must divide the width 8 of the tokens"):
        DlfReleasedBlock(2, heads=3)(X)
