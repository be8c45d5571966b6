"""Adam that changes the rows of the batch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_positive, check_rate
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.registry import optimizer


@optimizer("lazy_adam")
class LazyAdam(RowOptimizer):
    """Adam on the rows of the batch; the moments of all other rows wait.

        m = beta_1 * m + (1 - beta_1) * g        v = beta_2 * v + (1 - beta_2) * g^2
        w = w - learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    t counts the steps of the optimizer, not those of the row. If every row is in every batch, it is Adam. Otherwise it
    is another method: Adam lets the moments of a row that is not read decay, and keeps moving it meanwhile.

    Args:
        learning_rate: A number, or a schedule of Keras.
        beta_1: The share of the first moment that is kept.
        beta_2: The share of the second moment that is kept.
        epsilon: A small number in the denominator.
        weight_decay: See `RowOptimizer`.
        l2: See `RowOptimizer`.
        name: The name of the optimizer.

    Example:
        >>> optimizer = LazyAdam(0.01)
        >>> optimizer.build([keras.Variable(ops.ones((1000, 16)))])
        >>> [tuple(one.shape) for one in optimizer.variables][-2:]
        [(1000, 16), (1000, 16)]

    References:
        Kingma and Ba, Adam (2015). The lazy form is that of `tf.contrib.opt.LazyAdamOptimizer`.
    """

    slots: ClassVar[dict[str, bool]] = {"momentum": False, "velocity": False}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        l2: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, l2, name)
        self.beta_1 = check_rate("beta_1", beta_1)
        self.beta_2 = check_rate("beta_2", beta_2)
        self.epsilon = check_positive("epsilon", epsilon)

    @override
    def update_rows(self, rows: Any, slots: Sequence[Any], gradient: Any, rate: Any) -> tuple[Any, Sequence[Any]]:
        momentum, velocity = slots
        steps = ops.cast(self.iterations + 1, rows.dtype)
        rate = rate * ops.sqrt(1 - ops.power(self.beta_2, steps)) / (1 - ops.power(self.beta_1, steps))
        momentum = momentum + (1 - self.beta_1) * (gradient - momentum)
        velocity = velocity + (1 - self.beta_2) * (ops.square(gradient) - velocity)
        return rows - rate * momentum / (ops.sqrt(velocity) + self.epsilon), (momentum, velocity)
