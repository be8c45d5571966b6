"""Optimizers and learning rates as an experiment file describes them."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tfctr.errors import UserError
from tfctr.optimizers import OPTIMIZERS, RowOptimizer, check_optimizer, create_optimizer, create_rate


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_makes_a_step(name: str) -> None:
    check_optimizer("training.embedding_optimizer", name, 0.1, tables=True)


def test_keeps_what_is_given() -> None:
    made = create_optimizer("optimizer", {"type": "adamw", "learning_rate": 0.2, "weight_decay": 0.3}, 0.1)
    assert isinstance(made, keras.optimizers.AdamW)
    assert float(made.learning_rate) == pytest.approx(0.2)
    assert made.weight_decay == 0.3
    assert made.epsilon == 1e-8
    assert float(create_optimizer("optimizer", "sgd", 0.1).learning_rate) == pytest.approx(0.1)


def test_rates_by_step() -> None:
    """Half of a cosine from 1 to 0 in ten steps, after a rise of two; a number stays."""
    cosine = create_rate("rate", {"type": "cosine_decay", "initial_learning_rate": 1.0, "decay_steps": 10}, 2)
    assert [float(cosine(step)) for step in (0, 5, 10)] == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
    assert [float(create_rate("rate", 0.1, 4)(step)) for step in (0, 1, 3, 9)] == pytest.approx([0.025, 0.05, 0.1, 0.1])


COSINE = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 10}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("adan", "training.optimizer: unknown type 'adan'. Allowed: adam, adamw"),
        ({"learning_rate": 1.0}, "training.optimizer: `type` is missing"),
        ({"type": "adam", "clipnorm": 1.0}, "training.optimizer adam: unknown argument 'clipnorm'. Allowed: learning_"),
        ({"type": "lazy_adam", "l2": 1.0}, "training.optimizer lazy_adam: unknown argument 'l2'"),
        ({"type": "adam", "beta_1": 1.0}, "training.optimizer adam: `beta_1` must be"),
        ({"type": "adam", "beta_2": "high"}, "training.optimizer adam: `beta_2` must be"),
        ({"type": "adam", "amsgrad": 1}, "training.optimizer adam: `amsgrad` must be"),
        ({"type": "adam", "epsilon": "small"}, "training.optimizer adam: `epsilon` must be a"),
        ({"type": "adam", "learning_rate": 0}, "training.optimizer.learning_rate: `learning_rate` must be a positive"),
        ({"type": "adam", "learning_rate": {"type": "cosine"}}, "training.optimizer.learning_rate: unknown type 'cosi"),
        ({"type": "adam", "learning_rate": COSINE | {"decay_steps": "all"}}, "`decay_steps` must be a"),
        ({"type": "adam", "learning_rate": COSINE | {"name": "x"}}, "unknown argument 'name'"),
        ({"type": "adam", "learning_rate": COSINE | {"initial_learning_rate": -1}}, "the rates must be numbers of at"),
        ({"type": "adam", "learning_rate": {"type": "cosine_decay"}}, "`initial_learning_rate`, `decay_steps` must be"),
        ({"type": "ftrl", "learning_rate_power": 1.0}, "training.optimizer ftrl: `learning_rate_power` needs to be"),
        ("lazy_adam", "training.optimizer: lazy_adam is for tables; name it as `embedding_optimizer`"),
        (3, "training.optimizer: must be a name or a mapping with `type`. Received: 3"),
    ],
)
def test_mistakes(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_optimizer("training.optimizer", config, 0.1, tables=False)
    assert message in str(error.value)


def test_a_new_optimizer_is_one_file_and_one_line() -> None:
    class Halving(RowOptimizer):
        def update_rows(self, rows: Any, slots: Any, gradient: Any, rate: Any) -> Any:
            return rows / 2, ()

    OPTIMIZERS["halving"] = Halving
    try:
        check_optimizer("training.embedding_optimizer", "halving", 0.1, tables=True)
    finally:
        del OPTIMIZERS["halving"]
