"""The neuron formats: the released code's outputs, the parameter counts of its logs, and examples by hand."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests import golden_cases
from tests.layer_checks import check_layer
from tfctr.errors import UserError
from tfctr.interactions import create_interaction
from tfctr.interactions.neuron import FORMATS, Neuron, QuadraticNeuron

# All parameters in the published logs, at D = 624 with three layers and no activation. They include the embeddings of
# 910,747 ids of width 16.
EMBEDDINGS = 910_747 * 16
PUBLISHED = {
    "T1": 17_665_053, "T2": 17_634_753, "T3": 15_742_577, "T4": 15_742_577, "T5": 16_912_577, "T6": 17_665_053,
    "T7": 18_082_577, "T8": 18_082_577, "T9": 15_742_577, "T10": 16_912_577, "T11": 15_742_577, "T12": 16_327_577,
    "T13": 16_327_577, "T14": 15_742_577, "T15": 15_157_577, "T16": 16_912_577, "T17": 16_912_577, "T18": 18_080_705,
    "T19": 15_742_577, "T20": 15_742_577, "T21": 15_742_577, "T22": 15_744_449, "T23": 16_912_577, "T24": 16_912_577,
    "T25": 15_743_513, "T26": 16_912_577, "T27": 16_912_577, "T28": 16_912_577, "T29": 16_912_577, "T30": 16_912_577,
}  # fmt: skip
every_format = pytest.mark.parametrize("name", list(FORMATS))


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", golden_cases.names("qnn_neuron_*"))
def test_golden(name: str) -> None:
    case = golden_cases.load(name)
    given = case.hyperparameters
    post = given["post_activation"]
    layer = Neuron(
        given["neuron"],
        layers=given["num_layers"],
        activation=None if post == "none" else post,
        dropout=0.0,
        compressed_dim=given.get("width", 100),
    )
    layer.build((None, given["input_dim"]))
    weights: dict[str, Any] = {"head/kernel": layer.head.kernel, "head/bias": layer.head.bias}
    if layer.compress is not None:
        weights["compress/kernel"] = layer.compress.kernel
    for i, neuron in enumerate(layer.neurons):
        for key, dense in (("linear", neuron.linear), ("linear2", neuron.second)):
            if dense is not None:
                weights |= {f"layer{i}/{key}/kernel": dense.kernel, f"layer{i}/{key}/bias": dense.bias}
        if FORMATS[neuron.format].bilinear:
            weights[f"layer{i}/bilinear/tensor"] = neuron.tensor
            weights[f"layer{i}/bilinear/bias"] = neuron.tensor_bias
        if FORMATS[neuron.format].alpha:
            weights[f"layer{i}/alpha"] = neuron.alpha

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"logit": layer(inputs["x"])[:, None], "hidden": layer.hidden(inputs["x"])}

    golden_cases.check(case, forward, weights)


@pytest.mark.golden
def test_every_format_has_golden_numbers() -> None:
    checked = {golden_cases.load(name).hyperparameters["neuron"] for name in golden_cases.names("qnn_neuron_*")}
    # T26 to T30 are in the released code and its logs but not in the paper, and have no golden cases.
    assert set(FORMATS) - checked == {"T26", "T27", "T28", "T29", "T30"}


@pytest.mark.slow
@every_format
def test_parameters_are_those_of_the_published_logs(name: str) -> None:
    layer = Neuron(name)
    layer.build((None, 624))
    assert layer.count_params() + EMBEDDINGS == PUBLISHED[name]


X = np.array([[2.0, -1.0, 3.0, 0.5]], "float32")


def by_hand(name: str, matrix: np.ndarray, bias: np.ndarray) -> np.ndarray:
    layer = QuadraticNeuron(name)
    layer.build((None, 4))
    layer.linear.kernel.assign(matrix)
    layer.linear.bias.assign(bias)
    result: np.ndarray = ops.convert_to_numpy(layer(X))[0]
    return result


def test_three_formats_by_hand() -> None:
    # W x + b = 2 x + [1, 1, -7, 0] = [5, -1, -1, 1].
    matrix, bias = 2 * np.eye(4), np.array([1.0, 1.0, -7.0, 0.0])
    np.testing.assert_allclose(by_hand("T9", matrix, bias), [12.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(by_hand("T19", matrix, bias), [12.0, -1.0, 3.0, 1.0])
    # The halves are a = [5, -1] and b = [-1, 1], and the result is [a * b; b].
    np.testing.assert_allclose(by_hand("T14", matrix, bias), [-5.0, -1.0, -1.0, 1.0])


# h1 = W x + b = [5, -1, -1, 1] and h2 = x, so that their ReLUs are [5, 0, 0, 1] and [2, 0, 3, 0.5].
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T26", [2 * 7 / 2 + 2, -1, 3 * 3 / 2 + 3, 0.5 * 1.5 / 2 + 0.5]),
        ("T27", [4 * 7 / 2 + 2, -1, 9 * 3 / 2 + 3, 0.25 * 1.5 / 2 + 0.5]),
        ("T28", [2 * 29 / 2 + 2, -1, 3 * 9 / 2 + 3, 0.5 * 1.25 / 2 + 0.5]),
        ("T29", [2 * 9 / 2 + 2, -1, 3 * 9 / 2 + 3, 0.5 * 1.25 / 2 + 0.5]),
        ("T30", [(10 + 8) / 2 + 2, -1, 27 / 2 + 3, (0.5 + 0.125) / 2 + 0.5]),
    ],
)
def test_the_formats_without_golden_numbers_by_hand(name: str, expected: list[float]) -> None:
    matrix = np.concatenate([2 * np.eye(4), np.eye(4)], axis=1)
    bias = np.array([1.0, 1.0, -7.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(by_hand(name, matrix, bias), expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["T1", "T7", "T12", "T18", "T22", "T25"])
def test_layer_checks(name: str) -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 2, 6)).astype("float32")
    check_layer(QuadraticNeuron(name), inputs, output_shape=[3, 2, 6])


@pytest.mark.any_backend
def test_backbone_checks() -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 2, 6)).astype("float32")
    layer = Neuron("T6", layers=2, activation="relu", batch_norm=True, compressed_dim=4)
    # The gradient of a bias before a normalization is zero but for rounding errors.
    check_layer(layer, inputs, output_shape=[3, 2], unmoved=["bilinear_bias", "linear/bias"])


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match=r"neuron: `format` must be one of T1, T2.*Received: 'T31'"):
        create_interaction({"type": "neuron", "format": "T31"})
    with pytest.raises(ValueError, match="T11 needs an even number of inputs"):
        QuadraticNeuron("T11").build((None, 5))
    with pytest.raises(ValueError, match="T13 needs an even number of inputs"):
        Neuron("T13").build((None, 7))
