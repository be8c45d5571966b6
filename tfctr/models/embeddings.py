"""Tables and projections that turn model inputs into E-wide fields; one layer, shared by both towers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfctr.features.inputs import AGE_BUCKETS, hour_name, weekday_name
from tfctr.features.spec import Categorical, EventTime, FeatureFile, Frozen, Numeric
from tfctr.layers.export import tfctr_export

_HOURS, _WEEKDAYS = 25, 8


@tfctr_export
class FeatureEmbeddings(keras.layers.Layer):
    """Embeds every feature into a field of width E.

    Categorical: a row of its table (a multi-valued one: the mean over its real tokens). Numeric: value * w + b, or a
    row when bucketized. Frozen: its vector, projected. A table of another width is projected to E without bias.

    Args:
        features: The feature file, as a dict or a `FeatureFile`.
        table_rows: Rows of the tables by feature that owns one.
        frozen_shapes: [rows, width] by frozen table.
        embedding_l2: Adds embedding_l2 / 2 * sum of squares of every trainable table to the loss.
    """

    def __init__(
        self,
        features: FeatureFile | dict[str, Any],
        table_rows: dict[str, int],
        frozen_shapes: dict[str, tuple[int, int]],
        embedding_l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file = features if isinstance(features, FeatureFile) else FeatureFile.model_validate(features)
        self.table_rows = dict(table_rows)
        self.frozen_shapes = {name: tuple(shape) for name, shape in frozen_shapes.items()}
        self.embedding_l2 = embedding_l2
        self.width = self.file.embedding_dimension
        self.tables: dict[str, keras.layers.Embedding] = {}
        self.projections: dict[str, keras.layers.Dense] = {}
        self.frozen_tables: dict[str, Any] = {}
        for path, name, feature in self.file.walk():
            # A bias feature is no field: its logit is the scorer's.
            if not path.startswith("bias."):
                self._add_feature(name, feature)
        if self.file.timestamp is not None:
            self._add_table(hour_name(self.file.timestamp), _HOURS, self.width)
            self._add_table(weekday_name(self.file.timestamp), _WEEKDAYS, self.width)
        for sequence, entry in self.file.sequences.items():
            if entry.time_field is not None:
                self._add_table(f"{sequence}_recency", AGE_BUCKETS, self.width)

    def _add_feature(self, name: str, feature: Any) -> None:
        if isinstance(feature, Categorical):
            owner, resolved = self.file.resolve(name)
            if owner == name:
                self._add_table(name, self.table_rows[name], resolved.dimension or self.width)
        elif isinstance(feature, EventTime):
            self._add_table(name, AGE_BUCKETS, self.width)
        elif isinstance(feature, Numeric) and feature.transform == "bucketize":
            self._add_table(name, self.table_rows[name], self.width)
        elif isinstance(feature, Numeric):
            self.projections[name] = keras.layers.Dense(self.width, name=f"{name}_projection", dtype=self.dtype_policy)
        elif isinstance(feature, Frozen):
            self._add_projection(name)

    def _add_table(self, name: str, rows: int, width: int) -> None:
        self.tables[name] = keras.layers.Embedding(
            rows,
            width,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=len(self.tables)),
            # The literature's penalty carries a half that Keras leaves out.
            embeddings_regularizer=keras.regularizers.L2(self.embedding_l2 / 2) if self.embedding_l2 else None,
            name=name,
            dtype=self.dtype_policy,
        )
        if width != self.width:
            self._add_projection(name)

    def _add_projection(self, name: str) -> None:
        self.projections[name] = keras.layers.Dense(
            self.width, use_bias=False, name=f"{name}_projection", dtype=self.dtype_policy
        )

    def build(self, input_shape: Any = None) -> None:
        """Creates every table and projection, used or not, so that a checkpoint always fits."""
        for name, shape in self.frozen_shapes.items():
            # Stored as the feature file says, whatever the policy; similarities are always float32.
            dtype = self.file.frozen_features()[name].dtype
            self.frozen_tables[name] = self.add_weight(
                name=name, shape=shape, initializer="zeros", trainable=False, dtype=dtype, autocast=False
            )
        for table in self.tables.values():
            table.build()
        for name, projection in self.projections.items():
            if name in self.frozen_shapes:
                width = self.frozen_shapes[name][1]
            else:
                width = self.tables[name].output_dim if name in self.tables else 1
            projection.build((None, width))
        self.built = True

    def field(self, name: str, value: Any) -> Any:
        """The field of one feature: ids [...] (or [..., M], or floats [...]) to [..., E]."""
        if name not in self.tables and name in self.projections and name not in self.frozen_shapes:
            return self.projections[name](ops.expand_dims(ops.cast(value, self.compute_dtype), -1))
        if name in self.frozen_shapes:
            return self.projections[name](self.vectors(name, value))
        owner, multi_valued = name, False
        if name not in self.tables:
            owner, _ = self.file.resolve(name)
        if name in {found for _, found, _ in self.file.walk()}:
            feature = self.file.feature(name)
            multi_valued = isinstance(feature, Categorical) and feature.max_values is not None
        rows = self.tables[owner](value)
        if multi_valued:
            real = ops.cast(ops.not_equal(value, 0), rows.dtype)
            rows = ops.einsum("...md,...m->...d", rows, real) / ops.maximum(ops.sum(real, -1, keepdims=True), 1)
        return self.projections[owner](rows) if owner in self.projections else rows

    def vectors(self, table: str, rows: Any) -> Any:
        """Vectors of a frozen table: rows [...] to float32 [..., width]."""
        return ops.cast(ops.take(self.frozen_tables[table], rows, axis=0), "float32")

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Fields by name, for use as a layer of its own: {name: ids} to {name: [..., E]}."""
        return {name: self.field(name, value) for name, value in inputs.items()}

    def compute_output_shape(self, input_shape: dict[str, Any]) -> dict[str, Any]:
        """See `call`."""
        multi = {n for _, n, f in self.file.walk() if isinstance(f, Categorical) and f.max_values is not None}
        return {n: (*(s[:-1] if n in multi else s), self.width) for n, s in input_shape.items()}

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal layer, the frozen vectors (weights) excepted."""
        return {
            **super().get_config(),
            "features": self.file.model_dump(mode="json", exclude_unset=True),
            "table_rows": self.table_rows,
            "frozen_shapes": {name: list(shape) for name, shape in self.frozen_shapes.items()},
            "embedding_l2": self.embedding_l2,
        }
