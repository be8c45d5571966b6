from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import gradients
from tests.golden_cases import check, compare, load, present
from tests.registration import registrations_undone
from tfctr.errors import UserError
from tfctr.losses import (
    LOSSES,
    BinaryCrossentropy,
    KlConsistency,
    Loss,
    RDrop,
    SelfEnsemble,
    TriBce,
    base,
    create_loss,
    tri_bce,
)


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


@pytest.mark.golden
def test_golden_from_logits() -> None:
    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"loss": SelfEnsemble()(*_flat(inputs["label"], inputs["logit1"], inputs["logit2"]))}

    check(load("self_ensemble_loss_logits"), forward, {}, ignored=TERMS)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["self_ensemble_loss_equal", "self_ensemble_loss_probs"])
def test_golden_from_probabilities(name: str) -> None:
    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"loss": SelfEnsemble()(*_flat(inputs["label"], _logit(inputs["p1"]), _logit(inputs["p2"])))}

    check(load(name), forward, {}, ignored=TERMS[:3])


@pytest.mark.golden
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


@pytest.mark.parametrize("loss", [BinaryCrossentropy(), SelfEnsemble(), SelfEnsemble(3), KlConsistency()])
def test_confident_and_wrong_still_learns(loss: SelfEnsemble) -> None:
    value, (gradient,), _ = gradients(lambda logits: loss([0.0], logits, [1.0]), ops.full((loss.passes, 1), 40.0))
    assert float(value) == pytest.approx(40.0, rel=1e-5)
    # The passes share a gradient of 1. A loss that is computed from probabilities would have none here.
    np.testing.assert_allclose(ops.sum(gradient), 1.0, rtol=1e-5)


@pytest.mark.parametrize("loss", [BinaryCrossentropy(), SelfEnsemble(), KlConsistency(), RDrop(2.0), TriBce()])
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


P, Q = 0.75, 0.4  # Two passes of one row with label 1.
PAIR = np.log(np.array([[P], [Q]]) / (1 - np.array([[P], [Q]]))).astype("float32")


def divergence(p: float, q: float) -> float:
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def test_consistency_losses_by_hand() -> None:
    mean = (P + Q) / 2
    kl = -np.log(mean) + divergence(mean, P) + divergence(mean, Q)
    np.testing.assert_allclose(KlConsistency()([1], PAIR, [1]), kl, rtol=1e-6)
    drop = -np.log(P) - np.log(Q) + 3 / 2 * (divergence(P, Q) + divergence(Q, P))
    np.testing.assert_allclose(RDrop(3.0)([1], PAIR, [1]), drop, rtol=1e-6)
    # Pass 1 is better than the mean, so its weight is 0. Pass 2 is worse: its weight is the difference of the losses.
    tri = -np.log(mean) + (np.log(mean) - np.log(Q)) * -np.log(Q)
    np.testing.assert_allclose(TriBce()([1], PAIR, [1]), tri, rtol=1e-6)


@pytest.mark.parametrize("loss", [KlConsistency(), RDrop(), TriBce()])
def test_equal_passes_leave_the_label_alone(loss: KlConsistency) -> None:
    logits = np.array([[0.3, -2.0], [0.3, -2.0]], "float32")
    once = float(BinaryCrossentropy()([1, 0], logits[:1], [1, 2]))
    assert float(loss([1, 0], logits, [1, 2])) == pytest.approx(once * (2 if isinstance(loss, RDrop) else 1), rel=1e-5)


def test_kl_is_self_ensemble_less_the_entropy_of_the_mean() -> None:
    mean = (P + Q) / 2
    entropy = -mean * np.log(mean) - (1 - mean) * np.log(1 - mean)
    difference = float(SelfEnsemble()([1], PAIR, [1]) - KlConsistency()([1], PAIR, [1]))
    assert difference == pytest.approx(2 * entropy, rel=1e-5)


@pytest.mark.parametrize("loss", [KlConsistency(), RDrop(), TriBce()])
def test_gradients_are_those_of_finite_differences(loss: KlConsistency) -> None:
    """No factor of the formula is held constant in its gradient."""
    logits = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    _, (gradient,), _ = gradients(lambda one: loss([1.0, 0.0, 1.0], one, [1.0, 2.0, 0.5]), ops.array(logits))
    for place in np.ndindex(2, 3):
        step = np.zeros_like(logits)
        step[place] = 1e-2
        values = [float(loss([1.0, 0.0, 1.0], logits + sign * step, [1.0, 2.0, 0.5])) for sign in (1, -1)]
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("loss", [KlConsistency(), RDrop(), TriBce()])
def test_consistency_losses_stay_finite(loss: KlConsistency) -> None:
    extreme = ops.array([[80.0, -80.0, 500.0], [-80.0, -80.0, 500.0]])
    value, (gradient,), _ = gradients(lambda one: loss([1.0, 1.0, 0.0], one, [1.0, 1.0, 1.0]), extreme)
    assert np.isfinite(float(value))
    assert np.isfinite(ops.convert_to_numpy(gradient)).all()


@pytest.mark.golden
@pytest.mark.parametrize("name", present(["fcn_loss_h2_deep2_shallow2"]))
def test_tri_bce_golden(name: str) -> None:
    """The published loss value from the published logits. There, the network itself gives the fused logit."""
    case = load(name)
    labels, ones = case["in/label"][:, 0], np.ones(7, "float32")
    losses = [
        BinaryCrossentropy()(labels, case[f"out/{key}"].T, ones)
        for key in ("logit", "logit_exponential", "logit_linear")
    ]
    compare(case, "out/loss", tri_bce(losses[0], ops.stack(losses[1:])))


def test_half_precision_logits_give_a_float32_loss() -> None:
    assert SelfEnsemble()([1.0], ops.ones((2, 1), "bfloat16"), [1.0]).dtype == "float32"


def test_config_round_trip() -> None:
    for loss in (BinaryCrossentropy(), SelfEnsemble(3), KlConsistency(), RDrop(2.0), TriBce()):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()


def test_create() -> None:
    assert create_loss("binary_crossentropy").passes == 1
    assert create_loss({"type": "self_ensemble"}).passes == 2
    assert create_loss({"type": "self_ensemble", "passes": 3}).passes == 3


def test_a_new_loss_is_one_class() -> None:
    names = list(LOSSES)
    with registrations_undone(LOSSES):

        @base.loss("focal")
        class Focal(Loss):
            def __init__(self, gamma: float = 2.0) -> None:
                super().__init__()
                self.gamma = gamma

            def rows(self, labels: Any, logits: Any) -> Any:
                p = ops.sigmoid(logits[0])
                right = labels * p + (1.0 - labels) * (1.0 - p)
                return -((1.0 - right) ** self.gamma) * ops.log(right)

        made = create_loss({"type": "focal", "gamma": 1.0})
        assert type(made) is Focal
        assert made.passes == 1
        value, (gradient,), _ = gradients(lambda logits: made([1.0], logits, [1.0]), ops.zeros((1, 1)))
        assert float(value) == pytest.approx(0.5 * np.log(2))
        assert float(gradient[0, 0]) < 0
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
        assert again.get_config() == made.get_config() == {"gamma": 1.0}
        with pytest.raises(UserError, match=r"loss focal: unknown argument 'alpha'\. Allowed: gamma"):
            create_loss({"type": "focal", "alpha": 1.0})
    assert list(LOSSES) == names


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("hinge", "loss: unknown type 'hinge'. Allowed: binary_crossentropy, self_ensemble, kl, r_drop, tri_bce"),
        ({"passes": 2}, "loss: `type` is missing. Allowed: binary_crossentropy, self_ensemble, kl, r_drop, tri_bce"),
        ({"type": "self_ensemble", "pases": 2}, "loss self_ensemble: unknown argument 'pases'. Allowed: passes"),
        ({"type": "binary_crossentropy", "passes": 2}, "unknown argument 'passes'. Allowed: none"),
        ({"type": "r_drop", "alpha": -1}, "`alpha` must be a number of at least 0. Received: -1"),
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
