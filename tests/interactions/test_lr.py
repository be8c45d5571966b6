import numpy as np
import pytest

from tests.layer_checks import check_layer
from tests.workbench import Workbench
from tfctr.interactions import Lr
from tfctr.models import ModelConfig

X = np.random.default_rng(3).normal(size=(6, 4, 3, 5)).astype("float32")
LINEAR = np.random.default_rng(4).normal(size=(6, 4)).astype("float32")
FACTS = [("item_id", "candidate", "table"), ("history", "history", "interest"), ("price", "candidate", "number")]


def test_by_hand() -> None:
    layer = Lr()
    layer.build(X.shape)
    layer.bias.assign(0.5)
    np.testing.assert_allclose(layer(X, linear=LINEAR), LINEAR + 0.5, rtol=1e-6)
    with_history = Lr(FACTS)
    with_history.build(X.shape)
    with_history.weights_of_fields.kernel.assign(np.array([[0.0, 2.0, 0.0, 0.0, -1.0]]).T)
    np.testing.assert_allclose(
        with_history(X, linear=LINEAR), LINEAR + 2 * X[..., 1, 1] - X[..., 1, 4], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.tensorflow
def test_only_fields_without_first_order_weights_have_others(workbench: Workbench) -> None:
    layer = workbench.model(ModelConfig(interaction={"type": "lr"})).scorer.interaction
    chosen = [layer.get_config()["fields"][place] for place in layer.places]
    assert {source for _, _, source in chosen} == {"interest", "vector", "elapsed"}


@pytest.mark.any_backend
def test_layer() -> None:
    assert (Lr.eats, Lr.wide) == ("fields", True)
    check_layer(Lr(FACTS), X, call_arguments={"linear": LINEAR}, output_shape=(6, 4))
