from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.golden_cases import check, load, names
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tests.interests.test_golden import arranged
from tests.layer_checks import check_layer
from tfctr.interactions import Qin
from tfctr.interests import SparseTargetAttention, create_interest

FORMS: dict[str, dict[str, Any]] = {
    "relu": {},
    "softmax": {"activation": "softmax", "attention_dim": 5},
    "mean": {"activation": "mean"},
    "paper": {"output_projection": False},
    "two": {"sequences": 2, "attention_dim": 3},
    "two_mean": {"sequences": 2, "activation": "mean", "residual": False},
}
every_form = pytest.mark.parametrize("form", list(FORMS))


def built(width: int = WIDTH, **options: Any) -> SparseTargetAttention:
    layer = SparseTargetAttention(**options)
    layer.build({"sequence": {"events": (None, None, width)}})
    return layer


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def weights(layer: SparseTargetAttention, prefix: str = "") -> dict[str, Any]:
    found = {"query": layer.query, "key": layer.key, "value": layer.value, "output": layer.output_kernel}
    return {f"{prefix}{name}/kernel": (kernel, lambda array: array[None]) for name, kernel in found.items()}


@pytest.mark.golden
@pytest.mark.parametrize("name", names("qin_asta_*"))
def test_golden(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    default = setting["attention_dim"] == 2 * setting["item_dim"]
    layer = built(setting["item_dim"], attention_dim=None if default else setting["attention_dim"])

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"pooled": layer(arranged(inputs)[0])[:, 0]}

    check(case, forward, weights(layer))


@pytest.mark.golden
@pytest.mark.parametrize("name", names("qin_full_*"))
def test_golden_with_the_backbone(name: str) -> None:
    case = load(name)
    setting = case.hyperparameters
    attention = built(setting["item_dim"])
    backbone = Qin(layers=setting["num_layers"], rows=setting["num_rows"], dropout=0.0)
    width = setting["context_fields"] * setting["context_dim"] + 2 * setting["item_dim"]
    backbone.build((None, width))

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        pooled = attention(arranged(inputs)[0])[:, 0]
        context = ops.reshape(inputs["context"], (len(pooled), -1))
        x = ops.concatenate([context, inputs["target"], pooled], axis=-1)
        logit = backbone(x)[:, None]
        return {"pooled": pooled, "backbone_input": x, "logit": logit, "prob": ops.sigmoid(logit)}

    check(case, forward, {**weights(attention, "attention/"), **qin_weights(backbone, "backbone/")})


def qin_weights(backbone: Qin, prefix: str) -> dict[str, Any]:
    found = {"head/kernel": backbone.head.kernel, "head/bias": backbone.head.bias}
    for i, product in enumerate(backbone.products):
        found |= {f"layer{i}/kernel": product.kernel, f"layer{i}/bias": product.bias}
        found[f"layer{i}/prelu/alpha"] = product.act.alpha
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            found[f"layer{i}/bn/{name}"] = getattr(product.norm, name)
    return {prefix + name: weight for name, weight in found.items()}


def test_by_hand() -> None:
    """All matrices are the identity, so the weights are relu(t . x / sqrt(2)) and the values are the events."""
    layer = built(2, attention_dim=2)
    for kernel in layer.weights:
        kernel.assign(np.eye(2)[None])
    inputs = {
        "sequence": {
            "events": np.array([[[2.0, 0.0], [-1.0, 1.0], [9.0, 9.0]]], "float32"),
            "length": np.array([2], "int32"),
        },
        "candidate": {"target": np.array([[[1.0, 0.0], [0.0, 3.0], [-1.0, -1.0]]], "float32")},
    }
    root = np.sqrt(2)
    # t . x with the two real events is [2, -1], [0, 3] and [-2, 0] for the three candidates.
    expected = [[1 + 4 / root, 0], [-3 / root, 3 + 3 / root], [-1, -1]]
    np.testing.assert_allclose(numpy(layer(tensors(inputs)))[0], expected, rtol=1e-6)
    softmax = built(2, attention_dim=2, activation="softmax")
    softmax.set_weights(layer.get_weights())
    first = 1 / (1 + np.exp(-3 / root))
    np.testing.assert_allclose(
        numpy(softmax(tensors(inputs)))[0, 0], [1 + 2 * first - (1 - first), 1 - first], rtol=1e-5
    )
    mean = built(2, attention_dim=2, activation="mean")
    mean.set_weights([np.eye(2)[None]] * 2)
    np.testing.assert_allclose(numpy(mean(tensors(inputs)))[0], [[1.5, 0.5], [0.5, 3.5], [-0.5, -0.5]], rtol=1e-6)


@every_form
def test_an_empty_history_gives_the_target(form: str) -> None:
    layer = randomize(built(**FORMS[form]))
    inputs = make_inputs()
    expected = inputs["candidate"]["target"][1] if layer.residual else np.zeros((5, WIDTH))
    for training in (False, True):
        np.testing.assert_array_equal(numpy(layer(tensors(inputs), training=training))[1], expected)


def test_a_sequence_of_its_own_reads_nothing_of_the_others() -> None:
    """Two sequences, each with its slice of the width and its matrices, equal two modules side by side."""
    layer = randomize(built(sequences=2, attention_dim=3))
    inputs = make_inputs()
    outputs = []
    for i in range(2):
        own = randomize(built(WIDTH // 2, attention_dim=3))
        own.set_weights([weight[i : i + 1] for weight in layer.get_weights()])
        part = slice(i * WIDTH // 2, (i + 1) * WIDTH // 2)
        sequence = {**inputs["sequence"], "events": inputs["sequence"]["events"][..., part]}
        target = inputs["candidate"]["target"][..., part]
        outputs.append(numpy(own(tensors({"sequence": sequence, "candidate": {"target": target}}))))
    np.testing.assert_allclose(numpy(layer(tensors(inputs))), np.concatenate(outputs, -1), rtol=1e-5, atol=1e-6)


def test_more_matches_make_a_larger_output() -> None:
    layer = randomize(built(residual=False))
    inputs = make_inputs(batch=2, lengths=[7, 7])
    events = inputs["sequence"]["events"]
    events[:] = events[:1, :1]
    output = {}
    for length in (2, 6):
        inputs["sequence"]["length"][:] = length
        output[length] = numpy(layer(tensors(inputs)))
    assert np.abs(output[2]).max() > 0
    np.testing.assert_allclose(output[6], 3 * output[2], rtol=1e-5, atol=1e-6)


def test_the_state_of_mean_pooling_does_not_grow() -> None:
    sequence = tensors(make_inputs(length=30)["sequence"])
    shapes = {form: built(**FORMS[form]).encode(sequence) for form in ("relu", "mean", "two")}
    assert {key: tuple(value.shape) for key, value in shapes["relu"].items()} == {
        "length": (3,),
        "key": (3, 1, 30, 16),
        "value": (3, 1, 30, 16),
    }
    assert {key: tuple(value.shape) for key, value in shapes["mean"].items()} == {
        "length": (3,),
        "value": (3, 1, 1, 16),
    }
    assert tuple(shapes["two"]["key"].shape) == (3, 2, 30, 3)


@pytest.mark.parametrize("activation", ["relu", "softmax", "mean"])
def test_dropout_acts_in_training_only(activation: str) -> None:
    inputs = tensors(make_inputs(length=30, lengths=[30, 30, 30]))
    layer = randomize(built(activation=activation, dropout=0.5, seed=1))
    first, second = (numpy(layer(inputs, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    plain = built(activation=activation)
    plain.set_weights(layer.get_weights())
    np.testing.assert_array_equal(numpy(layer(inputs)), numpy(plain(inputs)))


@pytest.mark.any_backend
@every_form
def test_layer(form: str) -> None:
    keras.utils.set_random_seed(0)
    layer = create_interest({"type": "asta", **FORMS[form]})
    check_layer(layer, make_inputs(), output_shape=[3, 5, WIDTH])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "tanh"}, "`activation` must be one of relu, softmax, mean. Received: 'tanh'"),
        ({"sequences": 0}, "`sequences` must be a positive whole number"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and less than 1"),
        ({"sequences": 3}, "`sequences` must divide the width 8 of the events. Received: 3"),
        ({"output_projection": False, "attention_dim": 4}, "`attention_dim` must be 8, the width of a sequence"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(**arguments)
