"""Optimizers made from a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfctr.errors import UserError, user_errors
from tfctr.layers.arguments import check_flag, check_number, check_rate
from tfctr.layers.registry import arguments_of, create, without
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.rates import RateConfig, create_rate
from tfctr.optimizers.registry import OPTIMIZERS

OptimizerConfig = str | Mapping[str, Any]
"""The name of an optimizer, or `{"type": name, "learning_rate": ..., argument: value, ...}`."""

# The training clips all gradients together, takes the best epoch's weights and has the loss in float32. The penalty is
# a key of the model.
_hide = without(
    "name", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "gradient_accumulation_steps",
    "use_ema", "ema_momentum", "ema_overwrite_frequency", "l2",
)  # fmt: skip


def create_optimizer(
    where: str,
    config: OptimizerConfig,
    learning_rate: RateConfig,
    warmup_steps: int = 0,
    minimum: float = 0.0,
    l2: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Make the optimizer that a configuration describes.

    Args:
        where: The key, for the messages.
        config: Its name, or a mapping with `type` and its arguments.
        learning_rate: The rate, where the configuration has none of its own.
        warmup_steps: Steps in which the rate rises from zero.
        minimum: Where a plateau lowers the rate, it falls no lower.
        l2: The penalty on the rows of a batch, for an optimizer that leaves all others alone.

    Raises:
        UserError: for an unknown optimizer or argument, and for values with which it makes no step.
    """

    def complete(made: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
        arguments = _hide(made, arguments)
        own = arguments.pop("learning_rate", None)
        _check_values(made, arguments)
        rate = create_rate(f"{where}.learning_rate", learning_rate if own is None else own, warmup_steps, minimum)
        # 1e-8 is what PyTorch, and so every published run, has.
        more = {"epsilon": 1e-8} if made in (keras.optimizers.Adam, keras.optimizers.AdamW) else {}
        more |= {"l2": l2} if issubclass(made, RowOptimizer) else {}
        return {**more, **arguments, "learning_rate": rate}

    return create(where, OPTIMIZERS, config, complete)


def _check_values(made: type[Any], arguments: Mapping[str, Any]) -> None:
    """Check what the optimizers of Keras take without looking."""
    defaults = arguments_of(made)
    for name, value in arguments.items():
        if isinstance(defaults[name], bool):
            check_flag(name, value)
        elif name in ("beta_1", "beta_2", "rho", "momentum"):
            check_rate(name, value)
        elif value is not None or defaults[name] is not None:
            check_number(name, value)


def check_optimizer(where: str, config: OptimizerConfig, learning_rate: RateConfig, tables: bool) -> None:
    """Let an optimizer make a step, so that a mistake is told before any data is read.

    Args:
        where: The key, for the messages.
        config: See `create_optimizer`.
        learning_rate: See `create_optimizer`.
        tables: Whether it is to train tables; an optimizer of tables trains nothing else.

    Raises:
        UserError: what is wrong with it.
    """
    made = create_optimizer(where, config, learning_rate)
    if isinstance(made, RowOptimizer) and not tables:
        raise UserError(f"{where}: {OPTIMIZERS.name_of(type(made))} is for tables; name it as `embedding_optimizer`")
    weight = keras.Variable(ops.ones((2, 2)), name="tried")
    with user_errors(f"{where} {OPTIMIZERS.name_of(type(made))}"):
        made.build([weight])
        made.apply([ops.ones((2, 2))])
        if not all(map(math.isfinite, ops.convert_to_numpy(weight).ravel())):
            raise ValueError("with these arguments the first step makes weights that are no numbers")
