"""What optimizers of tables have in common: they read and write the rows of the batch, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_not_negative
from tfctr.layers.registry import arguments_of
from tfctr.layers.replicas import beside, local
from tfctr.optimizers import rows as of_rows


class RowOptimizer(keras.optimizers.Optimizer):
    """An optimizer that changes the rows of a table that a batch reads, and leaves all others as they are.

    What it costs follows the batch and not the table. A row that stands several times in a batch is changed once, by
    the sum of its gradients. A subclass names its `slots` and writes `update_rows`.

    On TensorFlow, the gradient of a look-up names its rows, under XLA or not. Where a gradient is dense (on other
    backends, or if a loss reads the whole table), the rows of the batch are those with a gradient that is not zero.

    Args:
        learning_rate: A number, or a schedule of Keras.
        weight_decay: Each row of the batch is lowered by `learning_rate * weight_decay` times itself; None for none.
        l2: The lambda of a penalty lambda / 2 * |w|^2 on the rows of the batch, each counted once.
        name: The name of the optimizer.

    Attributes:
        slots: What is kept for each row: name -> its initial value, and whether it is one number rather than a row.
        divides_by_rate: Whether it divides by the learning rate, which a schedule then must keep above 0.
    """

    slots: ClassVar[dict[str, bool]] = {}
    divides_by_rate: ClassVar[bool] = False

    def __init__(
        self, learning_rate: Any = 0.001, weight_decay: float | None = None, l2: float = 0.0, name: str | None = None
    ) -> None:
        # Keras would decay the whole table.
        super().__init__(learning_rate=learning_rate, name=name or type(self).__name__)
        self.row_decay = check_not_negative("weight_decay", weight_decay or 0.0)
        self.l2 = check_not_negative("l2", l2)

    def start(self, slot: str) -> float:
        """The value that a slot starts with."""
        return 0.0

    def update_rows(self, rows: Any, slots: Sequence[Any], gradient: Any, rate: Any) -> tuple[Any, Sequence[Any]]:
        """Return new rows and new slots.

        Args:
            rows: `[n, d]`.
            slots: each `[n, d]`, or `[n, 1]` for one number a row, in the order of `slots`.
            gradient: `[n, d]`, of the whole batch for the row.
            rate: the learning rate.
        """
        raise NotImplementedError

    @override
    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self._kept = [[self._slot(variable, slot) for slot in self.slots] for variable in variables]
        if keras.backend.backend() == "tensorflow":
            # Not among the optimizer's variables: what they hold means nothing after the step. One for all tables would
            # be copied for each of them by XLA.
            self._places = [
                keras.Variable(ops.zeros(variable.shape[:1], "int32"), trainable=False, name="places", dtype="int32")
                for variable in variables
            ]

    def _slot(self, variable: Any, slot: str) -> Any:
        start = keras.initializers.Constant(self.start(slot))
        if not self.slots[slot]:
            return self.add_variable_from_reference(variable, name=slot, initializer=start)
        shape = (variable.shape[0], *[1] * (len(variable.shape) - 1))
        return self.add_variable(shape, initializer=start, dtype=variable.dtype, name=f"{variable.name}_{slot}")

    @override
    def get_config(self) -> dict[str, Any]:
        of_keras = super().get_config()
        own = {name: getattr(self, name) for name in arguments_of(type(self)) if name not in of_keras}
        kept = {name: of_keras[name] for name in ("learning_rate", "name")}
        return {**own, **kept, "weight_decay": self.row_decay or None}

    def sum_of(self, gradient: Any, variable: Any) -> Any:
        """The same gradient of a variable, in which the values of equal rows are added up."""
        if not of_rows.is_of_rows(gradient):
            return gradient
        return of_rows.summed(gradient, local(self._places[self._get_variable_index(variable)].value))

    @override
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        slots = self._kept[self._get_variable_index(variable)]
        if of_rows.is_of_rows(gradient):
            found = self.sum_of(gradient, variable)
            tables = [variable, *(beside(slot.value, variable) for slot in slots)]
            new = self._changed([of_rows.read(table, found) for table in tables], of_rows.totals(found), rate)
            for table, values in zip(tables, new, strict=True):
                of_rows.write(table, found, values)
            return
        old = [ops.convert_to_tensor(variable), *map(ops.convert_to_tensor, slots)]
        axes = tuple(range(1, len(variable.shape)))
        read = ops.any(ops.not_equal(gradient, 0), axis=axes, keepdims=True)
        for table, before, after in zip([variable, *slots], old, self._changed(old, gradient, rate), strict=True):
            self.assign(table, ops.where(read, after, before))

    def _changed(self, old: Sequence[Any], gradient: Any, rate: Any) -> list[Any]:
        rows, *slots = old
        gradient = ops.cast(gradient, rows.dtype)
        if self.l2:
            gradient = gradient + self.l2 * rows
        new, kept = self.update_rows(rows, slots, gradient, rate)
        if self.row_decay:
            new = new - rate * self.row_decay * rows
        return [new, *kept]
