"""First-order weights: what each feature adds to the logit by itself, for backbones that are wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfctr.features.inputs import hour_name, weekday_name
from tfctr.features.spec import Categorical, FeatureFile, Frozen, Numeric
from tfctr.layers.export import tfctr_export

_HOURS, _WEEKDAYS = 25, 8


@tfctr_export
class FirstOrderWeights(keras.layers.Layer):
    """The linear part of a wide model: sum_f w_f[id], without a bias, which the backbone has.

    Categorical: a weight for each id, summed over several values. Numeric: w * value. Frozen vectors and histories have
    no first-order weights. All weights start at zero.

    Args:
        features: The feature file, as a dict or a `FeatureFile`.
        table_rows: Rows of the tables by feature that owns one.

    Call arguments:
        inputs: Model inputs by name, all with the same leading axes; those without weights are passed over.

    Output shape: the leading axes: [B] for a user's or a request's inputs, [B, C] for candidates'.
    """

    def __init__(self, features: FeatureFile | dict[str, Any], table_rows: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = features if isinstance(features, FeatureFile) else FeatureFile.model_validate(features)
        self.table_rows = dict(table_rows)
        self.tables: dict[str, keras.layers.Embedding] = {}
        self.slopes: dict[str, keras.layers.Dense] = {}
        for side in ("user", "candidate", "context"):
            for name, feature in self.file.side(side).items():
                self._add_feature(name, feature)
        if self.file.timestamp is not None:
            self._add_table(hour_name(self.file.timestamp), _HOURS)
            self._add_table(weekday_name(self.file.timestamp), _WEEKDAYS)

    def _add_feature(self, name: str, feature: Any) -> None:
        if isinstance(feature, Categorical):
            self._add_table(name, self.table_rows[self.file.resolve(name)[0]])
        elif isinstance(feature, Numeric) and feature.transform == "bucketize":
            self._add_table(name, self.table_rows[name])
        elif not isinstance(feature, Frozen):
            self.slopes[name] = keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", name=name, dtype=self.dtype_policy
            )

    def _add_table(self, name: str, rows: int) -> None:
        self.tables[name] = keras.layers.Embedding(
            rows, 1, embeddings_initializer="zeros", name=name, dtype=self.dtype_policy
        )

    def build(self, input_shape: Any = None) -> None:
        """Create every weight, used or not, so that a checkpoint always fits."""
        for table in self.tables.values():
            table.build()
        for slope in self.slopes.values():
            slope.build((None, 1))
        self.built = True

    def call(self, inputs: dict[str, Any]) -> Any:
        """The sum over the features; see the class."""
        terms = [
            self._term(name, value) for name, value in inputs.items() if name in self.tables or name in self.slopes
        ]
        return sum(terms[1:], terms[0]) if terms else ops.zeros((), dtype=self.compute_dtype)

    def _term(self, name: str, value: Any) -> Any:
        if name in self.slopes:
            value = ops.cast(value, self.compute_dtype)
            return ops.squeeze(self.slopes[name](ops.expand_dims(value, -1)), -1)
        weights = ops.squeeze(self.tables[name](value), -1)
        feature = self.file.feature(name) if name in {found for _, found, _ in self.file.walk()} else None
        if isinstance(feature, Categorical) and feature.max_values is not None:
            real = ops.cast(ops.not_equal(value, 0), weights.dtype)
            return ops.sum(weights * real, axis=-1)
        return weights

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal layer."""
        return {
            **super().get_config(),
            "features": self.file.model_dump(mode="json", exclude_unset=True),
            "table_rows": self.table_rows,
        }
