from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import gradients
from tests.golden_cases import check, compare, load
from tfctr.errors import UserError
from tfctr.losses import BinaryCrossentropy, SelfEnsemble, create_loss


def _entropy(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -(labels * np.log(p) + (1 - labels) * np.log1p(-p))


def _direct(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """The paper's formula on probabilities, in float64."""
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    mean = p.mean(0)
    rows = _entropy(labels, mean) + sum(_entropy(mean, one) for one in p)
    return float((rows * weights).sum() / weights.sum())


def _flat(label: Any, first: Any, second: Any) -> tuple[Any, Any, Any]:
    return (
        ops.reshape(label, (-1,)),
        ops.stack([ops.reshape(first, (-1,)), ops.reshape(second, (-1,))]),
        np.ones(len(label)),
    )


def _logit(p: Any) -> Any:
    return ops.log(p) - ops.log1p(-p)


TERMS = ["term_label", "term_soft1", "term_soft2", "p1", "p2"]


def test_golden_from_logits() -> None:
    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"loss": SelfEnsemble()(*_flat(inputs["label"], inputs["logit1"], inputs["logit2"]))}

    check(load("self_ensemble_loss_logits"), forward, {}, ignored=TERMS)


@pytest.mark.parametrize("name", ["self_ensemble_loss_equal", "self_ensemble_loss_probs"])
def test_golden_from_probabilities(name: str) -> None:
    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"loss": SelfEnsemble()(*_flat(inputs["label"], _logit(inputs["p1"]), _logit(inputs["p2"])))}

    check(load(name), forward, {}, ignored=TERMS[:3])


def test_golden_saturated() -> None:
    # Probabilities of exactly 0 and 1 are infinite logits: their logarithms are floored at -100, as in the reference.
    case = load("self_ensemble_loss_saturated")
    with np.errstate(divide="ignore"):
        logits = [np.log(p) - np.log1p(-p) for p in (case["in/p1"].astype("float64"), case["in/p2"].astype("float64"))]
    assert np.isinf(logits).any()
    loss = SelfEnsemble()(*_flat(case["in/label"], *(x.astype("float32") for x in logits)))
    compare(case, "out/loss", loss)


def test_by_hand() -> None:
    # p = 1/2 in both passes: log 2 for the label, and twice the entropy log 2.
    zeros = np.zeros((2, 3), "float32")
    np.testing.assert_allclose(SelfEnsemble()(np.array([0, 1, 1]), zeros, np.ones(3)), 3 * np.log(2), rtol=1e-6)
    # p = 3/4 for label 1, 1/4 for label 1 with weight 3.
    logits = np.array([[np.log(3), -np.log(3)]], "float32")
    expected = (np.log(4 / 3) + 3 * np.log(4)) / 4
    np.testing.assert_allclose(BinaryCrossentropy()([1, 1], logits, [1, 3]), expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 20), st.floats(0.1, 8.0), st.integers(0, 2**32 - 1))
def test_self_ensemble_is_the_formula(passes: int, rows: int, spread: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (passes, rows)).astype("float32").clip(-12, 12)
    labels, weights = generator.integers(0, 2, rows), generator.random(rows) + 0.1
    value = float(SelfEnsemble(passes)(labels, logits, weights))
    assert value == pytest.approx(_direct(labels, logits, weights), rel=2e-5)


@pytest.mark.parametrize("loss", [BinaryCrossentropy(), SelfEnsemble(), SelfEnsemble(3)])
def test_confident_and_wrong_still_learns(loss: SelfEnsemble) -> None:
    value, (gradient,), _ = gradients(lambda logits: loss([0.0], logits, [1.0]), ops.full((loss.passes, 1), 40.0))
    assert float(value) == pytest.approx(40.0, rel=1e-5)
    # The mean's gradient is shared by the passes; a loss on probabilities would have none at all here.
    np.testing.assert_allclose(ops.sum(gradient), 1.0, rtol=1e-5)


@pytest.mark.parametrize("loss", [BinaryCrossentropy(), SelfEnsemble()])
def test_rows_without_weight_do_not_count(loss: SelfEnsemble) -> None:
    logits = np.random.default_rng(0).normal(size=(loss.passes, 5)).astype("float32")
    labels, weights = np.array([0, 1, 0, 1, 1.0]), np.array([1, 2, 0, 0.5, 0])
    poisoned = ops.array(np.where(weights > 0, logits, np.nan).astype("float32"))
    unlabelled = np.where(weights > 0, labels, np.nan)
    value, (gradient,), _ = gradients(lambda one: loss(unlabelled, one, weights), poisoned)
    gradient = ops.convert_to_numpy(gradient)
    kept = weights > 0
    np.testing.assert_allclose(value, loss(labels[kept], logits[:, kept], weights[kept]), rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert (gradient[:, ~kept] == 0).all()
    assert float(loss(labels, logits, np.zeros(5))) == 0.0


def test_half_precision_logits_give_a_float32_loss() -> None:
    assert SelfEnsemble()([1.0], ops.ones((2, 1), "bfloat16"), [1.0]).dtype == "float32"


def test_config_round_trip() -> None:
    for loss in (BinaryCrossentropy(), SelfEnsemble(3)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()


def test_create() -> None:
    assert create_loss("binary_crossentropy").passes == 1
    assert create_loss({"type": "self_ensemble"}).passes == 2
    assert create_loss({"type": "self_ensemble", "passes": 3}).passes == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("hinge", "loss: unknown type 'hinge'. Allowed: binary_crossentropy, self_ensemble"),
        ({"passes": 2}, "loss: `type` is missing. Allowed: binary_crossentropy, self_ensemble"),
        ({"type": "self_ensemble", "pases": 2}, "loss self_ensemble: unknown argument 'pases'. Allowed: passes"),
        ({"type": "binary_crossentropy", "passes": 2}, "unknown argument 'passes'. Allowed: none"),
        ({"type": "self_ensemble", "passes": 1}, "at least 2. Received: 1"),
        ({"type": ["a"]}, "unknown type"),
        (3, "must be a name or a mapping"),
    ],
)
def test_create_errors(config: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        create_loss(config)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_wrong_number_of_passes() -> None:
    with pytest.raises(ValueError, match=r"`logits` must be \[2, n\]"):
        SelfEnsemble()([1.0], np.zeros((1, 1)), [1.0])
