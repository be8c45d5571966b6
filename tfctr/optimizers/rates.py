"""Learning rates: a number or a schedule of Keras, warmed up, and lowered by the plateau of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.errors import user_errors
from tfctr.layers.arguments import check_flag, check_number, check_positive
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


def create_rate(where: str, config: RateConfig, warmup_steps: int = 0, minimum: float = 0.0) -> Rate:
    """Make the learning rate that a configuration describes.

    Args:
        where: The key, for the messages.
        config: A number, or a mapping with `type` and the arguments of a schedule of Keras.
        warmup_steps: See `Rate`.
        minimum: See `Rate`.

    Raises:
        UserError: for an unknown schedule or argument, and for values that make no rate.
    """
    if not isinstance(config, Mapping):
        with user_errors(where):
            return Rate(check_positive("learning_rate", config), warmup_steps, minimum)
    schedule = create(where, SCHEDULES, config, _checked)
    with user_errors(where):
        rates = [float(schedule(step)) for step in (0, 1, 1000)]
        if not all(0 <= rate < math.inf for rate in rates):
            raise ValueError(f"the rates must be numbers of at least 0. Received, for steps 0, 1 and 1,000: {rates}")
    return Rate(schedule, warmup_steps, minimum)


def _checked(made: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Check what the schedules of Keras take without looking."""
    arguments = without("name")(made, arguments)
    for name, value in arguments.items():
        if isinstance(arguments_of(made)[name], bool):
            check_flag(name, value)
        elif value is not None:
            for number in value if isinstance(value, list | tuple) else [value]:
                check_number(name, number)
    return arguments
