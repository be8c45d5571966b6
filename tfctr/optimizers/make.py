"""Optimizers made from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.errors import UserError, user_errors
from tfctr.layers.arguments import check_flag, check_not_negative, check_number, check_positive, check_rate
from tfctr.layers.registry import arguments_of, create, without
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.rates import RateConfig, check_learning_rate, create_rate
from tfctr.optimizers.registry import OPTIMIZERS, divides_by_rate

OptimizerConfig = str | Mapping[str, Any]
"""The name of an optimizer, or `{"type": name, "learning_rate": ..., argument: value, ...}`."""

# The training clips all gradients together, takes the best epoch's weights and has the loss in float32. The penalty is
# a key of the model.
_hide = without(
    "name", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "gradient_accumulation_steps",
    "use_ema", "ema_momentum", "ema_overwrite_frequency", "l2",
)  # fmt: skip


_MOST = 1 + 1e-6
"""What a weight of 1 may become that shall not grow."""
_LARGEST = 1e30
"""A larger argument overflows in float32 sooner or later."""


def create_optimizer(
    where: str,
    config: OptimizerConfig,
    learning_rate: RateConfig,
    warmup_steps: int = 0,
    minimum: float = 0.0,
    l2: float = 0.0,
    tables: bool = True,
    rate_where: str = "learning_rate",
) -> keras.optimizers.Optimizer:
    """Make the optimizer that a configuration describes.

    Args:
        where: The key, for the messages.
        config: Its name, or a mapping with `type` and its arguments.
        learning_rate: The rate, where the configuration has none of its own.
        warmup_steps: Steps in which the rate rises from zero.
        minimum: Where a plateau lowers the rate, it falls no lower.
        l2: The penalty on the rows of a batch, for an optimizer that leaves all others alone.
        tables: Whether it is to train tables; an optimizer of tables trains nothing else.
        rate_where: The key of `learning_rate`, for the messages.

    Raises:
        UserError: for an unknown optimizer or argument, and for values with which it makes no step.
    """

    def complete(made: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
        arguments = _hide(made, arguments)
        arguments.pop("learning_rate", None)
        _check_values(made, arguments)
        divided_by = f"{OPTIMIZERS.name_of(made)} ({where})" if divides_by_rate(made) else None
        # 1e-8 is what PyTorch, and so every published run, has.
        more = {"epsilon": 1e-8} if made in (keras.optimizers.Adam, keras.optimizers.AdamW) else {}
        more |= {"l2": l2} if issubclass(made, RowOptimizer) else {}
        key, rate = _rate_of(where, config, rate_where, learning_rate)
        return {**more, **arguments, "learning_rate": create_rate(key, rate, warmup_steps, minimum, divided_by)}

    return create(where, _allowed(where, config, tables), config, complete)


def _rate_of(where: str, config: OptimizerConfig, shared_where: str, shared: RateConfig) -> tuple[str, RateConfig]:
    """The rate of an optimizer, its own or the shared one, after its key."""
    own = config.get("learning_rate") if isinstance(config, Mapping) else None
    return (shared_where, shared) if own is None else (f"{where}.learning_rate", own)


def _allowed(where: str, config: OptimizerConfig, tables: bool) -> Mapping[str, type[keras.optimizers.Optimizer]]:
    if tables:
        return OPTIMIZERS
    name = config.get("type") if isinstance(config, Mapping) else config
    allowed = {other: made for other, made in OPTIMIZERS.items() if not issubclass(made, RowOptimizer)}
    if isinstance(name, str) and name in OPTIMIZERS and name not in allowed:
        raise UserError(f"{where}: {name} is for tables; name it as `embedding_optimizer`")
    return allowed


def _check_values(made: type[Any], arguments: Mapping[str, Any]) -> None:
    """Check what the optimizers of Keras take without looking."""
    defaults = arguments_of(made)
    for name, value in arguments.items():
        if isinstance(defaults[name], bool):
            check_flag(name, value)
        elif name in ("beta_1", "beta_2", "rho", "momentum"):
            check_rate(name, value)
        elif value is not None or defaults[name] is not None:
            _check_size(name, value, defaults[name])


def _check_size(name: str, value: Any, default: Any) -> None:
    """Check that a number has the sign of its default, which is the only one with which an optimizer descends."""
    if name.startswith("epsilon"):
        # It stands in a denominator beside what is 0 where gradients are.
        check_positive(name, value)
    elif isinstance(default, int | float) and default < 0:
        if check_number(name, value) > 0:
            raise ValueError(f"`{name}` must be a number of at most 0. Received: {value!r}")
    else:
        check_not_negative(name, value)
    if abs(value) > _LARGEST:
        raise ValueError(f"`{name}` must be a number of at most {_LARGEST:g} in size. Received: {value!r}")


def check_optimizer(
    where: str, config: OptimizerConfig, learning_rate: RateConfig, tables: bool, rate_where: str = "learning_rate"
) -> None:
    """Let an optimizer make two steps, so that a mistake is told before any data is read.

    Args:
        where: The key, for the messages.
        config: See `create_optimizer`.
        learning_rate: See `create_optimizer`.
        tables: See `create_optimizer`.
        rate_where: See `create_optimizer`.

    Raises:
        UserError: what is wrong with it.
    """
    made = create_optimizer(where, config, learning_rate, tables=tables, rate_where=rate_where)
    check_learning_rate(*_rate_of(where, config, rate_where, learning_rate))
    with user_errors(f"{where} {OPTIMIZERS.name_of(type(made))}"):
        _try_steps(made)


def _try_steps(made: keras.optimizers.Optimizer) -> None:
    ones, zeros = np.ones((2, 2), "float32"), np.zeros((2, 2), "float32")
    # Gradients of 0 are everywhere in a table, and in the layers behind a ReLU.
    partly = np.eye(2, dtype="float32")
    starts, gradients = (ones, ones, ones, zeros), (ones, zeros, partly, zeros)
    weights = [keras.Variable(start, name=f"tried_{place}") for place, start in enumerate(starts)]
    made.build(weights)
    for _ in range(2):
        made.apply([ops.convert_to_tensor(gradient) for gradient in gradients])
        for kept in (*weights, *made.variables):
            if not np.isfinite(ops.convert_to_numpy(kept)).all():
                raise ValueError(
                    "with these arguments a step makes weights that are no numbers, where a gradient is 0 or not; "
                    "no denominator may be 0 (`epsilon`, `initial_accumulator_value`), and nothing may overflow"
                )
        along, still, *_ = map(ops.convert_to_numpy, weights)
        if (along > _MOST).any() or (abs(still) > _MOST).any():
            raise ValueError(
                "with these arguments a step ascends, or lets weights grow that have no gradient; `weight_decay` times "
                "the learning rate must be less than 2"
            )
