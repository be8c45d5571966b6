"""Optimizers and learning rates as an experiment file describes them."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tfctr.errors import UserError
from tfctr.optimizers import (
    OPTIMIZERS,
    RowOptimizer,
    check_learning_rate,
    check_optimizer,
    create_optimizer,
    create_rate,
)


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
        ({"type": "adam", "beta_1": 1.0}, "training.optimizer adam: `beta_1` must be"),
        ({"type": "adam", "beta_2": "high"}, "training.optimizer adam: `beta_2` must be"),
        ({"type": "adam", "amsgrad": 1}, "training.optimizer adam: `amsgrad` must be"),
        ({"type": "adam", "epsilon": "small"}, "training.optimizer adam: `epsilon` must be a"),
        ({"type": "adam", "learning_rate": 0}, "training.optimizer.learning_rate: `learning_rate` must be a positive"),
        ({"type": "adam", "learning_rate": {"type": "cosine"}}, "training.optimizer.learning_rate: unknown type 'cosi"),
        ({"type": "adam", "learning_rate": COSINE | {"decay_steps": "all"}}, "`decay_steps` must be a"),
        ({"type": "adam", "learning_rate": COSINE | {"name": "x"}}, "unknown argument 'name'"),
        ({"type": "adam", "learning_rate": COSINE | {"initial_learning_rate": -1}}, "`initial_learning_rate` must be"),
        ({"type": "adam", "learning_rate": {"type": "cosine_decay"}}, "`initial_learning_rate`, `decay_steps` must be"),
        ({"type": "ftrl", "learning_rate_power": 1.0}, "training.optimizer ftrl: `learning_rate_power` must be a"),
        ("lazy_adam", "training.optimizer: lazy_adam is for tables; name it as `embedding_optimizer`"),
        (3, "training.optimizer: must be a name or a mapping with `type`. Received: 3"),
    ],
)
def test_mistakes(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_optimizer("training.optimizer", config, 0.1, tables=False)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "lazy_adm",
            "embedding_optimizer: unknown type 'lazy_adm'. Allowed: adam, adamw, nadam, adamax, lamb, lion, adaf",
        ),
        ({"type": "lazy_adam", "l2": 1.0}, "embedding_optimizer lazy_adam: unknown argument 'l2'"),
        ({"type": "lazy_sgd", "learning_rte": 0.1}, "embedding_optimizer lazy_sgd: unknown argument 'learning_rte'"),
    ],
)
def test_mistakes_of_tables(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_optimizer("embedding_optimizer", config, 0.1, tables=True)
    assert str(error.value).startswith(message)


def test_only_what_may_train_all_weights_is_listed_for_them() -> None:
    with pytest.raises(UserError) as error:
        check_optimizer("optimizer", "adm", 0.1, tables=False)
    assert str(error.value).endswith(" rmsprop, ftrl, sgd")
    with pytest.raises(UserError, match="lazy_adam"):
        check_optimizer("embedding_optimizer", "adm", 0.1, tables=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "adam", "epsilon": 0}, "optimizer adam: `epsilon` must be a positive number. Received: 0"),
        ({"type": "adagrad", "epsilon": -1e-7}, "optimizer adagrad: `epsilon` must be a positive number"),
        ({"type": "adafactor", "epsilon_1": 0}, "optimizer adafactor: `epsilon_1` must be a positive number"),
        ({"type": "adam", "epsilon": 1e-60}, "optimizer adam: with these arguments a step makes weights that are no"),
        ({"type": "lazy_ftrl", "initial_accumulator_value": 0}, "optimizer lazy_ftrl: with these arguments a step m"),
        ({"type": "adafactor", "clip_threshold": 0}, "optimizer adafactor: with these arguments a step makes weights"),
        ({"type": "adam", "weight_decay": -0.1}, "optimizer adam: `weight_decay` must be a number of at least 0"),
        ({"type": "adamw", "weight_decay": -0.1}, "optimizer adamw: `weight_decay` must be a number of at least 0"),
        ({"type": "adamw", "weight_decay": 100}, "`weight_decay` times the learning rate must be less than 2"),
        ({"type": "lazy_sgd", "weight_decay": 100}, "`weight_decay` times the learning rate must be less than 2"),
        ({"type": "ftrl", "beta": -5}, "optimizer ftrl: `beta` must be a number of at least 0. Received: -5"),
        ({"type": "ftrl", "learning_rate_power": 0.5}, "`learning_rate_power` must be a number of at most 0"),
        ({"type": "adagrad", "initial_accumulator_value": 1e40}, "must be a number of at most 1e+30 in size"),
        ({"type": "sgd", "momentum": -0.5}, "optimizer sgd: `momentum` must be at least 0 and less than 1"),
    ],
)
def test_values_with_which_no_step_descends(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_optimizer("optimizer", config, 0.1, tables=True)
    assert message in str(error.value)


def test_an_accumulator_may_start_at_zero_beside_a_penalty() -> None:
    config = {"type": "lazy_ftrl", "initial_accumulator_value": 0, "l2_regularization_strength": 0.1}
    check_optimizer("embedding_optimizer", config, 0.1, tables=True)


def test_an_optimizer_that_ascends_is_told() -> None:
    class Ascending(RowOptimizer):
        def update_rows(self, rows: Any, slots: Any, gradient: Any, rate: Any) -> Any:
            return rows + rate * gradient, ()

    OPTIMIZERS["ascending"] = Ascending
    try:
        with pytest.raises(UserError, match="optimizer ascending: with these arguments a step ascends"):
            check_optimizer("optimizer", "ascending", 0.1, tables=True)
    finally:
        del OPTIMIZERS["ascending"]


def schedule(name: str, **arguments: Any) -> dict[str, Any]:
    own = {} if name == "piecewise_constant_decay" else {"initial_learning_rate": 0.1}
    return {"type": name, **own, **arguments}


# Each with the step in which it is 0, or so near to it that its inverse is no float32.
TO_ZERO = [
    (schedule("cosine_decay", decay_steps=30), 30, "`alpha`"),
    (schedule("cosine_decay", decay_steps=70_000, warmup_target=0.2, warmup_steps=900), 70_899, "`alpha`"),
    (schedule("cosine_decay_restarts", first_decay_steps=70_000), 69_999, "`alpha`"),
    (schedule("cosine_decay_restarts", first_decay_steps=5000), 34_999, "`alpha`"),
    (schedule("polynomial_decay", decay_steps=5000, end_learning_rate=0), 5000, "`end_learning_rate`"),
    (schedule("piecewise_constant_decay", boundaries=[10, 5000], values=[0.1, 0.01, 0]), 5001, "`values`"),
    (schedule("exponential_decay", decay_steps=1, decay_rate=0.9), 999, "in every step"),
    (
        schedule("cosine_decay", decay_steps=30, warmup_steps=9, warmup_target=0.1, initial_learning_rate=0),
        0,
        "above 0",
    ),
]


@pytest.mark.parametrize(("config", "step", "remedy"), TO_ZERO)
def test_a_rate_that_reaches_zero_is_refused_where_it_is_a_divisor(config: Any, step: int, remedy: str) -> None:
    for name in ("ftrl", "lazy_ftrl"):
        with pytest.raises(UserError) as error:
            check_optimizer("embedding_optimizer", name, config, tables=True, rate_where="learning_rate")
        message = str(error.value)
        assert message.startswith(f"learning_rate {config['type']}: the rate is ")
        assert f"in step {step:,}, and {name} (embedding_optimizer) divides by the rate; keep it above 0" in message
        assert remedy in message
        check_optimizer("embedding_optimizer", name, config | above_zero(config), tables=True)
    check_optimizer("embedding_optimizer", "lazy_adam", config, tables=True)


def above_zero(config: dict[str, Any]) -> dict[str, Any]:
    """What the message says to do."""
    return {
        "cosine_decay": {"alpha": 0.01, "initial_learning_rate": 0.1},
        "cosine_decay_restarts": {"alpha": 0.01},
        "polynomial_decay": {"end_learning_rate": 0.01},
        "piecewise_constant_decay": {"values": [0.1, 0.01, 0.001]},
        "exponential_decay": {"decay_rate": 0.99},
    }[config["type"]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            schedule("piecewise_constant_decay", boundaries=[5000], values=[1, -1]),
            "`values[1]` must be a number of at le",
        ),
        (schedule("piecewise_constant_decay", boundaries=[50, 10], values=[1, 2, 3]), "`boundaries` must ascend"),
        (schedule("piecewise_constant_decay", boundaries=[10, 10], values=[1, 2, 3]), "`boundaries` must ascend"),
        (schedule("piecewise_constant_decay", boundaries=10, values=[1, 2]), "`boundaries` must be a list of numbers"),
        (schedule("piecewise_constant_decay", boundaries=[], values=[1]), "`boundaries` must be a list of numbers"),
        (
            schedule("piecewise_constant_decay", boundaries=["a"], values=[1, 2]),
            "`boundaries[0]` must be a whole number",
        ),
        (schedule("piecewise_constant_decay", boundaries=[2], values=[1]), "length of boundaries should be 1 less"),
        (schedule("cosine_decay", decay_steps=[10]), "`decay_steps` must be a positive number. Received: [10]"),
        (schedule("cosine_decay", decay_steps=None), "`decay_steps` must be a positive number. Received: None"),
        (schedule("exponential_decay", decay_steps=0, decay_rate=0.5), "`decay_steps` must be a positive number"),
        (schedule("exponential_decay", decay_steps=10**40, decay_rate=0.5), "`decay_steps` must be at most 2,147,483"),
        (
            schedule("cosine_decay", decay_steps=9, initial_learning_rate=[0.1]),
            "`initial_learning_rate` must be a numb",
        ),
        (schedule("cosine_decay", decay_steps=9, initial_learning_rate=None), "`initial_learning_rate` must be a numb"),
        (schedule("cosine_decay", decay_steps=9, initial_learning_rate=1e30), "Received: 1e+30 in step 0"),
        (schedule("inverse_time_decay", decay_steps=5000, decay_rate=-0.5), "`decay_rate` must be a number of at lea"),
        (schedule("exponential_decay", decay_steps=5000, decay_rate=10), "a number from 0 to 1,000 in every step"),
        (schedule("polynomial_decay", decay_steps=5000, end_learning_rate=-1), "`end_learning_rate` must be a number"),
        (
            schedule("cosine_decay_restarts", first_decay_steps=5000, t_mul=0.5),
            "`t_mul` must be a number of at least 1",
        ),
        (1e30, "`learning_rate` must be a number from 1e-30 to 1,000. Received: 1e+30"),
        (1e-50, "`learning_rate` must be a number from 1e-30 to 1,000. Received: 1e-50"),
    ],
)
def test_mistakes_of_rates(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_learning_rate("rate", config)
    assert str(error.value).startswith("rate")
    assert message in str(error.value)


def test_a_whole_number_is_a_rate_like_others() -> None:
    """Keras computes a schedule in the type of its first rate, in whole numbers too."""
    cosine = create_rate("rate", schedule("cosine_decay", decay_steps=10, initial_learning_rate=1))
    assert float(cosine(5)) == pytest.approx(0.5)
    steps = create_rate("rate", schedule("piecewise_constant_decay", boundaries=[3], values=[1, 0.5]))
    assert [float(steps(step)) for step in (0, 3, 4)] == [1.0, 1.0, 0.5]


def test_the_key_that_was_written_is_told() -> None:
    own = {"type": "adam", "learning_rate": {"type": "cosine"}}
    with pytest.raises(UserError, match=r"^training\.optimizer\.learning_rate: unknown type 'cosine'"):
        check_optimizer("training.optimizer", own, 0.1, tables=False, rate_where="training.learning_rate")
    with pytest.raises(UserError, match=r"^training\.learning_rate: unknown type 'cosine'"):
        check_optimizer(
            "training.optimizer", "adam", {"type": "cosine"}, tables=False, rate_where="training.learning_rate"
        )


def test_a_new_optimizer_is_one_file_and_one_line() -> None:
    class Halving(RowOptimizer):
        def update_rows(self, rows: Any, slots: Any, gradient: Any, rate: Any) -> Any:
            return rows / 2, ()

    OPTIMIZERS["halving"] = Halving
    try:
        check_optimizer("training.embedding_optimizer", "halving", 0.1, tables=True)
    finally:
        del OPTIMIZERS["halving"]
