"""Follow the regularized leader, on the rows of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_not_negative
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.registry import optimizer


@optimizer("lazy_ftrl")
class LazyFtrl(RowOptimizer):
    """FTRL-proximal on the rows of the batch: sparse weights of rare ids.

        n' = n + g^2,    s = (sqrt(n') - sqrt(n)) / learning_rate,    z = z + g - s * w
        w = (sign(z) * l1 - z) / (sqrt(n') / learning_rate + 2 * l2) where |z| > l1, else 0

    On rows that the batch reads it is `keras.optimizers.Ftrl` with its default power. Keras also sets all others to 0
    in the first step; here they keep what they started with until they are read.

    Args:
        learning_rate: A number, or a schedule of Keras.
        initial_accumulator_value: What n starts with.
        l1_regularization_strength: l1.
        l2_regularization_strength: l2 of the formula, which pulls the sum of all steps; `l2` is a penalty on each.
        weight_decay: See `RowOptimizer`.
        l2: See `RowOptimizer`.
        name: The name of the optimizer.

    Example:
        >>> LazyFtrl(0.1, l1_regularization_strength=0.5).get_config()["l1_regularization_strength"]
        0.5

    References:
        McMahan et al., Ad click prediction: a view from the trenches (2013), algorithm 1.
    """

    slots: ClassVar[dict[str, bool]] = {"accumulator": False, "linear": False}
    divides_by_rate: ClassVar[bool] = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        weight_decay: float | None = None,
        l2: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, l2, name)
        self.initial_accumulator_value = check_not_negative("initial_accumulator_value", initial_accumulator_value)
        self.l1_regularization_strength = check_not_negative("l1_regularization_strength", l1_regularization_strength)
        self.l2_regularization_strength = check_not_negative("l2_regularization_strength", l2_regularization_strength)

    @override
    def start(self, slot: str) -> float:
        return self.initial_accumulator_value if slot == "accumulator" else 0.0

    @override
    def update_rows(self, rows: Any, slots: Sequence[Any], gradient: Any, rate: Any) -> tuple[Any, Sequence[Any]]:
        before, linear = slots
        accumulator = before + ops.square(gradient)
        linear = linear + gradient - (ops.sqrt(accumulator) - ops.sqrt(before)) / rate * rows
        beyond = ops.clip(linear, -self.l1_regularization_strength, self.l1_regularization_strength) - linear
        return beyond / (ops.sqrt(accumulator) / rate + 2 * self.l2_regularization_strength), (accumulator, linear)
