"""Tables and projections that turn model inputs into E-wide fields; one layer, shared by both towers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.features.kinds.base import Feature
from tfctr.features.kinds.fields import Elapsed, FieldSpec, FrozenRow, Linear, Lookup, Table
from tfctr.features.spec import FeatureFile
from tfctr.layers.arguments import check_positive
from tfctr.layers.embedding import Embedding
from tfctr.layers.export import tfctr_export


@tfctr_export
class FeatureEmbeddings(keras.layers.Layer):
    """Embeds every feature into fields of width E, whatever its kind: the kinds say what their fields are made of.

    A look-up is a row of a table, or the mean over the rows of several values. A linear field is value * w + b. A
    frozen row is a given vector, projected. A table of another width is projected to E without bias.

    Tables and w start with one small standard deviation, so that no number outweighs the other fields at first.

    Args:
        features: The feature file, as a dict or a `FeatureFile`.
        table_rows: Rows of the trained tables, by the feature that owns one.
        frozen_shapes: [rows, width] by frozen table.
        start: The standard deviation that tables and w start with.
    """

    def __init__(
        self,
        features: FeatureFile | dict[str, Any],
        table_rows: dict[str, int],
        frozen_shapes: dict[str, tuple[int, int]],
        start: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file = features if isinstance(features, FeatureFile) else FeatureFile.model_validate(features)
        self.table_rows = dict(table_rows)
        self.frozen_shapes = {name: tuple(shape) for name, shape in frozen_shapes.items()}
        self.start = check_positive("start", start)
        self.width = self.file.embedding_dimension
        self.fields: dict[str, FieldSpec] = {}
        self.looked_up: list[Table] = []
        self.tables: dict[str, Embedding] = {}
        self.projections: dict[str, keras.layers.Dense] = {}
        self.frozen_tables: dict[str, Any] = {}
        # A bias feature has no field: the scorer adds its logit.
        features_with_fields = [feature for feature in self.file.features if feature.side != "bias"]
        for feature in features_with_fields:
            for field in feature.kind.fields(feature):
                self._add_field(field)
        for feature in features_with_fields:
            for elapsed in feature.kind.request_fields(feature):
                self._add_table(elapsed.table)

    def rows(self, table: Table) -> int:
        """How many rows a trained table has."""
        return self.table_rows[table.name] if table.rows is None else table.rows

    def _add_field(self, field: FieldSpec) -> None:
        self.fields[field.input] = field
        match field:
            case Lookup():
                self._add_table(field.table)
            case Linear():
                self._add_projection(field.input, use_bias=True, kernel_initializer=self._initializer())
            case FrozenRow():
                self._add_projection(field.vectors)

    def _add_table(self, table: Table) -> None:
        if table.name in self.tables:
            return
        width = table.width or self.width
        self.looked_up.append(table)
        self.tables[table.name] = Embedding(
            self.rows(table),
            width,
            embeddings_initializer=self._initializer(),
            name=table.name,
            dtype=self.dtype_policy,
        )
        if width != self.width:
            self._add_projection(table.name)

    def _initializer(self) -> keras.initializers.Initializer:
        """A new one for each weight; the draw follows `keras.utils.set_random_seed`."""
        return keras.initializers.RandomNormal(stddev=self.start)

    def _add_projection(self, name: str, use_bias: bool = False, **options: Any) -> None:
        if name not in self.projections:
            self.projections[name] = keras.layers.Dense(
                self.width, use_bias=use_bias, name=f"{name}_projection", dtype=self.dtype_policy, **options
            )

    def build(self, input_shape: Any = None) -> None:
        """Creates every table and projection, used or not, so that a checkpoint always fits."""
        for table in self.tables.values():
            table.build()
        for field in self.fields.values():
            match field:
                case Lookup():
                    width = self.tables[field.table.name].output_dim
                    projection = self.projections.get(field.table.name)
                case Linear():
                    width, projection = field.size or 1, self.projections[field.input]
                case FrozenRow():
                    width, projection = self.frozen_shapes[field.vectors][1], self.projections[field.vectors]
                    self._build_frozen(field)
            if projection is not None and not projection.built:
                projection.build((None, width))
        self.built = True

    def _build_frozen(self, field: FrozenRow) -> None:
        if field.vectors not in self.frozen_tables:
            # The feature file says how it is stored, not the dtype policy. Similarities are always computed in float32.
            self.frozen_tables[field.vectors] = self.add_weight(
                name=field.vectors,
                shape=self.frozen_shapes[field.vectors],
                initializer="zeros",
                trainable=False,
                dtype=field.dtype,
                autocast=False,
            )

    def field(self, name: str, value: Any) -> Any:
        """The field of one model input: indices [...] (or [..., M]) or numbers [...] (or [..., n]) to [..., E]."""
        field = self.fields[name]
        match field:
            case Lookup():
                rows = self.tables[field.table.name](value)
                return self._projected(field.table, _mean_of_values(rows, value) if field.pooled else rows)
            case Linear():
                numbers = ops.cast(value, self.compute_dtype)
                return self.projections[name](ops.expand_dims(numbers, -1) if field.size is None else numbers)
            case FrozenRow():
                return self.content(field.vectors, value)

    def fields_of(self, feature: Feature, inputs: dict[str, Any]) -> list[Any]:
        """The fields of one feature, each [..., E], from the model inputs by name."""
        return [self.field(field.input, inputs[field.input]) for field in feature.kind.fields(feature)]

    def elapsed(self, elapsed: Elapsed, now: Any, since: Any) -> Any:
        """The field [..., E] of the seconds between two times int64 [...]."""
        known = ops.logical_and(ops.greater(now, 0), ops.greater(since, 0))
        seconds = ops.where(known, ops.maximum(now - since, 0), 0)
        buckets = ops.where(known, ops.digitize(seconds + 1, list(elapsed.boundaries)) + 1, 0)
        return self._projected(elapsed.table, self.tables[elapsed.table.name](buckets))

    def _projected(self, table: Table, rows: Any) -> Any:
        """Rows of a trained table, projected to E where they are of another width."""
        return self.projections[table.name](rows) if table.name in self.projections else rows

    def vectors(self, table: str, rows: Any) -> Any:
        """Vectors of a frozen table: rows [...] to float32 [..., width]."""
        return ops.cast(ops.take(self.frozen_tables[table], rows, axis=0), "float32")

    def content(self, table: str, rows: Any, raw: bool = False) -> Any:
        """Vectors of a frozen table in the compute dtype, projected to E or as they are: [...] to [..., E or width]."""
        vectors = self.vectors(table, rows)
        return ops.cast(vectors, self.compute_dtype) if raw else self.projections[table](vectors)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Fields by name, for use as a layer of its own: {name: ids} to {name: [..., E]}."""
        return {name: self.field(name, value) for name, value in inputs.items()}

    @override
    def compute_output_shape(self, input_shape: dict[str, Any]) -> dict[str, Any]:
        wide = {name for name, field in self.fields.items() if field.has_value_axis}
        return {name: (*(s[:-1] if name in wide else s), self.width) for name, s in input_shape.items()}

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal layer, the frozen vectors (weights) excepted."""
        return {
            **super().get_config(),
            "features": self.file.model_dump(mode="json", exclude_unset=True),
            "table_rows": self.table_rows,
            "frozen_shapes": {name: list(shape) for name, shape in self.frozen_shapes.items()},
            "start": self.start,
        }


def _mean_of_values(rows: Any, indices: Any) -> Any:
    """The mean [..., E] over the rows [..., M, E] of real values."""
    real = ops.cast(ops.not_equal(indices, 0), rows.dtype)
    return ops.einsum("...md,...m->...d", rows, real) / ops.maximum(ops.sum(real, -1, keepdims=True), 1)
