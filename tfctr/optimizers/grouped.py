"""One optimizer of several: dense weights have one, tables may have others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.export import tfctr_export
from tfctr.layers.replicas import summed
from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.rates import Rate
from tfctr.optimizers.rows import densified, is_of_rows


@tfctr_export
class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """Optimizers for groups of weights, whose gradients are clipped together.

        g = g * min(1, clip_norm / |g|)        |g|^2 = the sum of squares over all weights of the model

    The gradients of a row that a batch reads several times are added up before, so that |g| is the norm of the gradient
    that acts. (Keras takes the norm of the parts.) So are those of several devices.

    Args:
        dense: The optimizer of all weights that have no other.
        tables: Weight, by its path -> its optimizer, which may be that of several.
        clip_norm: The largest norm of the gradients of all groups; None for no clipping.
        name: The name of the optimizer.
    """

    def __init__(
        self,
        dense: keras.optimizers.Optimizer,
        tables: Mapping[str, keras.optimizers.Optimizer] | None = None,
        clip_norm: float | None = None,
        name: str = "grouped",
    ) -> None:
        super().__init__(keras.optimizers.OptimizerMap(dense, dict(tables or {})), name=name)
        self.dense = dense
        self.tables = dict(tables or {})
        self.clip_norm = clip_norm
        for one in self.optimizers:
            # It would add up the gradients of all devices once more.
            one._all_reduce_sum_gradients = _as_they_are

    @property
    @override
    def learning_rate(self) -> Any:
        """The present rate of the dense weights."""
        return self.dense.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        # What callbacks of Keras do, ReduceLROnPlateau and LearningRateScheduler.
        raise ValueError(
            "`learning_rate` can't be set: it is that of several optimizers. Lower all of them with `lower`, or in a "
            "training by `training.plateau_factor` or a schedule as `training.learning_rate`. "
            f"Received: {value!r}"
        )

    def lower(self, factor: float) -> None:
        """Multiply the rates that are numbers by a factor, which replaces the one before."""
        for one in self.optimizers:
            if isinstance(one._learning_rate, Rate):
                one._learning_rate.lower(factor)

    def leaves_rows(self, path: str) -> bool:
        """Whether the optimizer of a weight leaves the rows alone that a batch does not read."""
        return isinstance(self.tables.get(path, self.dense), RowOptimizer)

    @override
    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        weights = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(weights)
        found = [self._summed(gradient, weight) for gradient, weight in zip(summed(grads), weights, strict=True)]
        groups: dict[int, list[tuple[Any, Any]]] = {}
        for gradient, weight in zip(self._clipped(found), weights, strict=True):
            if gradient is not None:
                groups.setdefault(self._var_to_optimizer_idx[self._var_key(weight)], []).append((gradient, weight))
        for index, pairs in groups.items():
            self.optimizers[index].apply(*map(list, zip(*pairs, strict=True)))
        self._iterations.assign_add(1)

    def _summed(self, gradient: Any, weight: Any) -> Any:
        own = self._optimizer_map(weight)
        return own.sum_of(gradient, weight) if isinstance(own, RowOptimizer) else densified(gradient)

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        if self.clip_norm is None:
            return gradients
        parts = [one.values if is_of_rows(one) else one for one in gradients if one is not None]
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(part, "float32"))) for part in parts))
        factor = self.clip_norm / ops.maximum(norm, self.clip_norm)
        return [one if one is None else _scaled(one, factor) for one in gradients]

    @override
    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        # One optimizer may be that of several tables, and must be one again.
        different = list(dict.fromkeys(self.tables.values()))
        return {
            "dense": serialize(self.dense),
            "optimizers": [serialize(one) for one in different],
            "tables": {path: different.index(one) for path, one in self.tables.items()},
            "clip_norm": self.clip_norm,
            "name": self.name,
        }

    @classmethod
    @override
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GroupedOptimizer:
        read = keras.saving.deserialize_keras_object
        made = [read(one, custom_objects=custom_objects) for one in config["optimizers"]]
        return cls(
            read(config["dense"], custom_objects=custom_objects),
            {path: made[index] for path, index in config["tables"].items()},
            config["clip_norm"],
            config["name"],
        )


def _as_they_are(gradients_and_weights: list[Any]) -> list[Any]:
    return gradients_and_weights


def _scaled(gradient: Any, factor: Any) -> Any:
    if is_of_rows(gradient):
        return gradient.scaled(ops.cast(factor, gradient.values.dtype))
    return gradient * ops.cast(factor, gradient.dtype)
