"""First-order weights: what each feature adds to the logit by itself, for backbones that are wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.features.kinds.fields import FieldSpec, FrozenRow, Linear, Lookup, Table
from tfctr.features.spec import FeatureFile
from tfctr.layers.embedding import Embedding
from tfctr.layers.export import tfctr_export


@tfctr_export
class FirstOrderWeights(keras.layers.Layer):
    """The linear part of a wide model: sum_f w_f[id], without a bias, which the backbone has.

    A look-up has a weight for each index, summed over several values; a linear field has w * value. Frozen vectors and
    histories have no first-order weights. All weights start at zero.

    Args:
        features: The feature file, as a dict or a `FeatureFile`.
        table_rows: Rows of the tables by feature that owns one.

    Call arguments:
        inputs: Model inputs by name, all with the same leading axes; those without weights are passed over.

    Output shape: the leading axes: [B] for a user's inputs, [B, C] for candidates', [B, 1 or C] for a request's.
    """

    def __init__(self, features: FeatureFile | dict[str, Any], table_rows: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = features if isinstance(features, FeatureFile) else FeatureFile.model_validate(features)
        self.table_rows = dict(table_rows)
        self.fields: dict[str, FieldSpec] = {}
        self.tables: dict[str, Embedding] = {}
        self.slopes: dict[str, keras.layers.Dense] = {}
        for feature in self.file.features:
            if feature.place not in ("bias", "sequence"):
                for field in feature.kind.fields(feature):
                    self._add_field(field)

    def _add_field(self, field: FieldSpec) -> None:
        name = field.input
        match field:
            case Lookup(table=table):
                rows = self.table_rows[table.name] if table.rows is None else table.rows
                self.tables[name] = Embedding(
                    rows, 1, embeddings_initializer="zeros", name=name, dtype=self.dtype_policy
                )
            case Linear():
                self.slopes[name] = keras.layers.Dense(
                    1, use_bias=False, kernel_initializer="zeros", name=name, dtype=self.dtype_policy
                )
            case FrozenRow():
                return
        self.fields[name] = field

    def looked_up(self) -> list[tuple[Table, Any]]:
        """The weights of look-ups, each with the table of its feature's embeddings."""
        return [
            (field.table, self.tables[name].embeddings)
            for name, field in self.fields.items()
            if field.table is not None
        ]

    def build(self, input_shape: Any = None) -> None:
        """Create every weight, used or not, so that a checkpoint always fits."""
        for table in self.tables.values():
            table.build()
        for name, slope in self.slopes.items():
            slope.build((None, self.fields[name].size or 1))
        self.built = True

    @override
    def call(self, inputs: dict[str, Any]) -> Any:
        terms = [self._term(self.fields[name], value) for name, value in inputs.items() if name in self.fields]
        return sum(terms[1:], terms[0]) if terms else ops.zeros((), dtype=self.compute_dtype)

    def _term(self, field: FieldSpec, value: Any) -> Any:
        if field.input in self.slopes:
            numbers = ops.cast(value, self.compute_dtype)
            numbers = numbers if field.has_value_axis else ops.expand_dims(numbers, -1)
            return ops.squeeze(self.slopes[field.input](numbers), -1)
        weights = ops.squeeze(self.tables[field.input](value), -1)
        if field.has_value_axis:
            return ops.sum(weights * ops.cast(ops.not_equal(value, 0), weights.dtype), axis=-1)
        return weights

    @override
    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": self.file.model_dump(mode="json", exclude_unset=True),
            "table_rows": self.table_rows,
        }
