"""Stochastic gradient descent on the rows of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.registry import optimizer


@optimizer("lazy_sgd")
class LazySGD(RowOptimizer):
    """Gradient descent without momentum, which keeps nothing beside the weights: w = w - learning_rate * g.

    Without penalty and decay it is `keras.optimizers.SGD`; with them, those count for the rows of the batch alone.

    Args:
        learning_rate: A number, or a schedule of Keras.
        weight_decay: See `RowOptimizer`.
        l2: See `RowOptimizer`.
        name: The name of the optimizer.

    Example:
        >>> float(LazySGD(0.5).learning_rate)
        0.5
    """

    @override
    def update_rows(self, rows: Any, slots: Sequence[Any], gradient: Any, rate: Any) -> tuple[Any, Sequence[Any]]:
        return rows - rate * gradient, ()
