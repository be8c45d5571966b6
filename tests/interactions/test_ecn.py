from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.layer_checks import check_layer, check_padding
from tfctr.errors import UserError
from tfctr.interactions import Ecn, Fcn, create_interaction
from tfctr.interactions.ecn import SelfMaskCross
from tfctr.losses import TriBce

X = np.random.default_rng(3).normal(size=(6, 4, 3, 8)).astype("float32")
MASK = np.arange(4)[None, :] < np.array([4, 3, 1, 4, 2, 4])[:, None]
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def _weights(layer: Ecn) -> dict[str, Any]:
    found = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    for i, cross in enumerate(layer.crosses):
        found |= {f"layer{i}/kernel": cross.kernel, f"layer{i}/bias": cross.bias}
        if cross.norm is not None:
            found |= {f"layer{i}/norm/{name}": getattr(cross.norm, name) for name in STATISTICS[:2]}
        if cross.batch_norm is not None:
            found |= {f"layer{i}/bn/{name}": getattr(cross.batch_norm, name) for name in STATISTICS}
    return found


@pytest.mark.golden
@pytest.mark.parametrize("name", names("ecn_*", "lcn_*"))
def test_golden(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    heads = options["num_heads"]
    layer = Ecn(
        options["num_layers"],
        heads,
        "exponential" if name.startswith("ecn") else "linear",
        layer_norm=options["layer_norm"],
        batch_norm=options["batch_norm"],
    )
    layer.build((None, 1, options["input_dim"] * heads))

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        hidden = layer.crossed(inputs["x"])
        return {"hidden": hidden, "logit_per_head": layer.head(hidden)}

    check(case, forward, _weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("fcn_*"))
def test_golden_fcn(name: str) -> None:
    case = load(name)
    options = case.hyperparameters
    norms = {"layer_norm": options["layer_norm"], "batch_norm": options["batch_norm"]}
    layer = Fcn(
        options["num_heads"],
        exponential={"layers": options["exponential_layers"], **norms},
        linear={"layers": options["linear_layers"], **norms},
    )
    layer.build(case["in/emb"].shape)
    weights = {
        f"{part}/{key}": weight
        for part, network in (("exponential", layer.exponential), ("linear", layer.linear))
        for key, weight in _weights(network).items()
    }
    loss = TriBce(over="branches", mean="logit")

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        branches = layer.branch_logits(inputs["emb"])
        logits = {"": layer(inputs["emb"]), "_exponential": branches[0], "_linear": branches[1]}
        found = {f"logit{part}": logit[:, None] for part, logit in logits.items()}
        found |= {f"prob{part}": ops.sigmoid(logit)[:, None] for part, logit in logits.items()}
        found["loss"] = loss(inputs["label"][:, 0], branches, np.ones(len(case["in/label"])))
        return {**found, "head_vectors": layer.exponential.head_vectors(inputs["emb"])}

    check(case, forward, weights)


def test_by_hand() -> None:
    layer = SelfMaskCross(layer_norm=False)
    x, base = np.array([[[1.0, 4.0]]], "float32"), np.array([[[-1.0, 3.0]]], "float32")
    layer.build(x.shape)
    layer.kernel.assign([[-2.0], [1.0]])
    layer.bias.assign([-0.5, 1.0])
    # g = -2 + 4 = 2 and m = 2, so [g; g m] + b is [1.5, 5].
    np.testing.assert_allclose(layer(x, x), [[[2.5, 24.0]]], rtol=1e-6)
    np.testing.assert_allclose(layer(x, base), [[[-0.5, 19.0]]], rtol=1e-6)


def test_the_mask_closes() -> None:
    layer = SelfMaskCross(layer_norm=False)
    layer.build((None, 1, 2))
    layer.kernel.assign([[1.0], [0.0]])
    layer.bias.assign([0.0, 0.0])
    x = np.array([[[-3.0, 5.0]]], "float32")
    # g = -3 is masked in the second half, and 9 - 3 = 6 is left in the first.
    np.testing.assert_allclose(layer(x, x), [[[6.0, 5.0]]], rtol=1e-6)


def test_a_head_has_the_halves_of_its_slice_of_every_field() -> None:
    fields = np.arange(16.0).reshape(1, 2, 8)
    vectors = ops.convert_to_numpy(Ecn(heads=2).head_vectors(fields))
    expected = [[0, 1, 8, 9, 2, 3, 10, 11], [4, 5, 12, 13, 6, 7, 14, 15]]
    np.testing.assert_array_equal(vectors[0], expected)


@pytest.mark.parametrize(("growth", "degree"), [("exponential", 8), ("linear", 4)])
def test_the_degree_of_three_layers(growth: Any, degree: int) -> None:
    """Where the mask is closed and b is 0, a layer has one product more: the degree is 2^L, or L + 1."""
    layer = Ecn(3, growth=growth, layer_norm=False, batch_norm=False)
    layer.build((None, 1, 2))
    for cross in layer.crosses:
        cross.kernel.assign([[-1.0], [0.0]])
        cross.bias.assign([0.0, 0.0])
    x = np.array([[[1e4, 1.0]]])
    one, twice = (abs(ops.convert_to_numpy(layer.hidden(scale * x))[0, 0]) for scale in (1.0, 2.0))
    assert twice / one == pytest.approx(2.0**degree, rel=0.01)


def test_parameters_as_logged() -> None:
    """A public run on MovieLens-1M: seven fields of width 16, and tables of 9,751 rows in all."""
    layer = Ecn(layers=2)
    layer.build((None, 7, 16))
    assert sum(int(np.prod(one.shape)) for one in layer.trainable_weights) == 169_125 - 9_751 * 16


def test_parameters_of_both_networks() -> None:
    layer = Fcn(heads=2, exponential={"layers": 2}, linear={"layers": 3})
    layer.build((None, 7, 16))
    # For each layer D^2 / 2 + D, a shift and a scale of each half and of each head; two heads.
    dim = 7 * 16 // 2
    expected = 5 * (dim**2 // 2 + dim + 2 * dim // 2 + 2 * 2) + 2 * (dim + 1)
    assert sum(int(np.prod(one.shape)) for one in layer.trainable_weights) == expected


def test_the_logit_is_the_mean_of_the_networks() -> None:
    layer = Fcn(heads=2)
    logits = layer(X)
    branches = ops.convert_to_numpy(layer.branch_logits(X))
    assert branches.shape == (layer.branches, 6, 4)
    np.testing.assert_allclose(logits, branches.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(branches[0], layer.exponential(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(branches[1], layer.linear(X), rtol=1e-5, atol=1e-6)
    assert (len(layer.exponential.crosses), len(layer.linear.crosses)) == (3, 4)


@pytest.mark.parametrize("heads", [1, 2])
def test_padding_candidates_change_nothing(heads: int) -> None:
    layer = Fcn(heads=heads, exponential={"layers": 1, "dropout": 0.0}, linear={"layers": 1, "dropout": 0.0})
    check_padding(layer, X, MASK)


def test_dropout_acts_in_training_only() -> None:
    layer = Ecn(layers=1, dropout=0.5)
    layer(X)
    vectors = layer.head_vectors(X)
    assert float(np.mean(np.equal(layer.crossed(vectors, training=True), 0.0))) == pytest.approx(0.5, abs=0.1)
    assert not np.equal(layer.crossed(vectors), 0.0).any()


@pytest.mark.any_backend
@pytest.mark.parametrize("growth", ["exponential", "linear"])
def test_layer(growth: Any) -> None:
    layer = Ecn(layers=2, heads=2, growth=growth)
    assert (layer.eats, layer.wide) == ("fields", False)
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4))


@pytest.mark.any_backend
def test_fcn_layer() -> None:
    layer = Fcn(exponential={"layers": 1}, linear={"layers": 1, "batch_norm": False})
    check_layer(layer, X, call_arguments={"mask": MASK}, output_shape=(6, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of 6: of 3 heads, each in two halves\. Received: 8"):
        Ecn(heads=3)(X)
    with pytest.raises(UserError, match="`growth` must be one of exponential, linear"):
        create_interaction({"type": "ecn", "growth": "square"})
    with pytest.raises(ValueError, match="`linear` must not have `heads`, which this backbone decides"):
        Fcn(linear={"heads": 2})
    with pytest.raises(UserError, match=r"`exponential` must be a mapping of arguments of Ecn\. Received: 3"):
        create_interaction({"type": "fcn", "exponential": 3})
    with pytest.raises(ValueError, match=r"`layers` must be a positive whole number\. Received: 0"):
        Fcn(exponential={"layers": 0})
