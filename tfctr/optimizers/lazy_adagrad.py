"""Adagrad on the rows of the batch, with a number for each coordinate or one for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_not_negative, check_positive
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.registry import optimizer


@optimizer("lazy_adagrad")
class LazyAdagrad(RowOptimizer):
    """Adagrad on the rows of the batch, which are the only ones that Adagrad changes.

        s = s + g^2        w = w - learning_rate * g / sqrt(s + epsilon)

    It is `keras.optimizers.Adagrad` of the dense gradient, for what the batch costs.

    Args:
        learning_rate: A number, or a schedule of Keras.
        initial_accumulator_value: What s starts with.
        epsilon: A small number in the denominator.
        weight_decay: See `RowOptimizer`.
        l2: See `RowOptimizer`.
        name: The name of the optimizer.

    Example:
        >>> LazyAdagrad(0.1).get_config()["initial_accumulator_value"]
        0.1

    References:
        Duchi et al., Adaptive subgradient methods for online learning and stochastic optimization (2011).
    """

    slots: ClassVar[dict[str, bool]] = {"accumulator": False}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        l2: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, l2, name)
        self.initial_accumulator_value = check_not_negative("initial_accumulator_value", initial_accumulator_value)
        self.epsilon = check_positive("epsilon", epsilon)

    @override
    def start(self, slot: str) -> float:
        return self.initial_accumulator_value

    def squares(self, gradient: Any) -> Any:
        """What a gradient adds to the accumulator."""
        return ops.square(gradient)

    @override
    def update_rows(self, rows: Any, slots: Sequence[Any], gradient: Any, rate: Any) -> tuple[Any, Sequence[Any]]:
        accumulator = slots[0] + self.squares(gradient)
        return rows - rate * gradient / ops.sqrt(accumulator + self.epsilon), (accumulator,)


@optimizer("rowwise_adagrad")
class RowwiseAdagrad(LazyAdagrad):
    """Adagrad with one number a row: the memory of a table's optimizer shrinks by the width of the table.

        s = s + mean_j g_j^2        w = w - learning_rate * g / sqrt(s + epsilon)

    Arguments are those of `LazyAdagrad`.

    Example:
        >>> optimizer = RowwiseAdagrad(0.1)
        >>> optimizer.build([keras.Variable(ops.ones((1000, 16)))])
        >>> tuple(optimizer.variables[-1].shape)
        (1000, 1)

    References:
        Mudigere et al., Software-hardware co-design for fast and scalable training of deep learning recommendation
        models (2022), section 4.1.
    """

    slots: ClassVar[dict[str, bool]] = {"accumulator": True}

    @override
    def squares(self, gradient: Any) -> Any:
        return ops.mean(ops.square(gradient), axis=tuple(range(1, len(gradient.shape))), keepdims=True)
