"""Learning rates: a number or a schedule of Keras, warmed up, and lowered by the plateau of a training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.errors import UserError, user_errors
from tfctr.layers.arguments import check_count, check_flag, check_not_negative, check_number, check_positive
from tfctr.layers.export import tfctr_export
from tfctr.layers.registry import arguments_of, create, without

SCHEDULES: dict[str, type[keras.optimizers.schedules.LearningRateSchedule]] = {
    "cosine_decay": keras.optimizers.schedules.CosineDecay,
    "cosine_decay_restarts": keras.optimizers.schedules.CosineDecayRestarts,
    "exponential_decay": keras.optimizers.schedules.ExponentialDecay,
    "inverse_time_decay": keras.optimizers.schedules.InverseTimeDecay,
    "piecewise_constant_decay": keras.optimizers.schedules.PiecewiseConstantDecay,
    "polynomial_decay": keras.optimizers.schedules.PolynomialDecay,
}
"""The schedules by the name that a configuration uses."""

RateConfig = float | Mapping[str, Any]
"""A number, or `{"type": schedule, argument: value, ...}`."""


@tfctr_export
class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a step.

        rate(t) = min(1, (t + 1) / warmup_steps) * schedule(t)
        rate(t) = min(1, (t + 1) / warmup_steps) * max(number * factor, min(number, minimum))

    A number is lowered by the plateau of a training, whose `factor` it is; a schedule lowers itself.

    Args:
        base: A number, or a schedule of Keras.
        warmup_steps: Steps in which the rate rises from zero.
        minimum: A number falls no lower.
    """

    def __init__(self, base: Any, warmup_steps: int = 0, minimum: float = 0.0) -> None:
        super().__init__()
        self.base = keras.saving.deserialize_keras_object(base) if isinstance(base, Mapping) else base
        self.warmup_steps = warmup_steps
        self.minimum = minimum
        # A training sets it before every epoch, so it is in no checkpoint.
        self._factor = keras.Variable(1.0, trainable=False, name="factor", dtype="float32")

    def lower(self, factor: float) -> None:
        """Set what a number is multiplied by."""
        self._factor.assign(factor)

    @override
    def __call__(self, step: Any) -> Any:
        if callable(self.base):
            rate = ops.cast(self.base(step), "float32")
        else:
            rate = ops.maximum(self.base * self._factor, min(self.base, self.minimum))
        if self.warmup_steps:
            rate = rate * ops.minimum((ops.cast(step, "float32") + 1) / self.warmup_steps, 1.0)
        return rate

    @override
    def get_config(self) -> dict[str, Any]:
        base = keras.saving.serialize_keras_object(self.base) if callable(self.base) else self.base
        return {"base": base, "warmup_steps": self.warmup_steps, "minimum": self.minimum}


_SMALLEST, _LARGEST = 1e-30, 1000.0
"""Where a rate must lie: beyond them float32 overflows, or a step throws all weights away."""
_LAST_STEP = 2**31 - 2
"""Keras counts steps in an int32."""
_FLOORS = ("alpha", "end_learning_rate", "values")
"""The arguments of schedules that say how far the rate falls."""


def create_rate(
    where: str,
    config: RateConfig,
    warmup_steps: int = 0,
    minimum: float = 0.0,
    divided_by: str | None = None,
) -> Rate:
    """Make the learning rate that a configuration describes.

    Args:
        where: The key, for the messages.
        config: A number, or a mapping with `type` and the arguments of a schedule of Keras.
        warmup_steps: See `Rate`.
        minimum: See `Rate`.
        divided_by: An optimizer that divides by the rate, which then must not become 0.

    Raises:
        UserError: for an unknown schedule or argument, and for values that make no rate.
    """
    if not isinstance(config, Mapping):
        with user_errors(where):
            return Rate(check_positive("learning_rate", config), warmup_steps, minimum)
    schedule = create(where, SCHEDULES, config, _checked)
    with user_errors(f"{where} {config['type']}"):
        _check_rates(schedule, divided_by)
    return Rate(schedule, warmup_steps, minimum)


def check_learning_rate(where: str, config: RateConfig) -> None:
    """Make a learning rate, and refuse a number with which no training gets anywhere.

    Args:
        where: The key, for the messages.
        config: See `create_rate`.

    Raises:
        UserError: what is wrong with it.
    """
    create_rate(where, config)
    if not isinstance(config, Mapping) and not _SMALLEST <= config <= _LARGEST:
        raise UserError(
            f"{where}: `learning_rate` must be a number from {_SMALLEST:g} to {_LARGEST:,.0f}. Received: {config!r}"
        )


def _check_rates(schedule: keras.optimizers.schedules.LearningRateSchedule, divided_by: str | None) -> None:
    """Ask a schedule for its rates where they can be wrong."""
    for step in _telling_steps(schedule.get_config()):
        rate = float(schedule(step))
        if not 0 <= rate <= _LARGEST:
            raise ValueError(
                f"the rate must be a number from 0 to {_LARGEST:,.0f} in every step. "
                f"Received: {rate:g} in step {step:,}"
            )
        if divided_by is not None and rate < _SMALLEST:
            floors = [f"`{name}`" for name in _FLOORS if name in arguments_of(type(schedule))]
            remedy = f"keep it above 0 by {floors[0]}" if step and floors else "keep it above 0 in every step"
            raise ValueError(
                f"the rate is {rate:g} in step {step:,}, and {divided_by} divides by the rate; {remedy}, "
                "or choose another optimizer"
            )


def _telling_steps(arguments: Mapping[str, Any]) -> list[int]:
    """The first steps, and those around each place where a schedule with these arguments ends, bends or jumps."""
    ends = [0, 1000, *arguments.get("boundaries", ())]
    if "decay_steps" in arguments:
        warm = arguments.get("warmup_steps", 0)
        ends += [warm, *(warm + times * arguments["decay_steps"] for times in (1, 2, 10))]
    if "first_decay_steps" in arguments:
        # Of longer periods the last rate is ever nearer to the floor.
        end, length = 0, arguments["first_decay_steps"]
        for _ in range(10):
            end, length = end + length, length * arguments["t_mul"]
            ends.append(end)
    near = {min(max(end, 0), _LAST_STEP - 1) for end in ends}
    return sorted({max(int(end) + more, 0) for end in near for more in (-1, 0, 1)})


def _checked(made: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Check what the schedules of Keras take without looking."""
    defaults = arguments_of(made)
    return {
        name: _checked_value(name, value, defaults[name]) for name, value in without("name")(made, arguments).items()
    }


def _checked_value(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        return check_flag(name, value)
    if value is None and default is None:
        return None
    if name == "boundaries":
        return _checked_boundaries(name, value)
    if name == "values":
        return [check_not_negative(f"{name}[{place}]", one) for place, one in enumerate(_checked_list(name, value))]
    if name.endswith("_steps"):
        # Where there is a default, it is 0.
        check = check_positive if default is inspect.Parameter.empty else check_not_negative
        if check(name, value) > _LAST_STEP:
            raise ValueError(f"`{name}` must be at most {_LAST_STEP:,}. Received: {value!r}")
        return value
    if name == "t_mul" and check_number(name, value) < 1:
        # The periods would have an end, behind which the rate of Keras is no number.
        raise ValueError(f"`{name}` must be a number of at least 1. Received: {value!r}")
    # Keras computes in the type of what it is given, and so in whole numbers from a rate of 1.
    return check_not_negative(name, value)


def _checked_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"`{name}` must be a list of numbers. Received: {value!r}")
    return list(value)


def _checked_boundaries(name: str, value: Any) -> list[int]:
    steps = [check_count(f"{name}[{place}]", one, 0) for place, one in enumerate(_checked_list(name, value))]
    if any(later <= earlier for earlier, later in pairwise(steps)) or steps[-1] > _LAST_STEP:
        raise ValueError(f"`{name}` must ascend, to at most {_LAST_STEP:,}. Received: {value!r}")
    return steps
