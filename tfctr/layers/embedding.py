"""The look-up of rows in a trained table."""

from __future__ import annotations

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.replicas import local


@tfctr_export
class Embedding(ConfiguredLayer):
    """Rows of a trained table: y = table[index].

    Unlike `keras.layers.Embedding` it reads the rows that it returns and not the table. In a TensorFlow graph without
    XLA, that one copies the whole table in each step once an optimizer has written single rows of it, and under a
    half-precision policy it casts the whole table.

    Args:
        input_dim: The rows of the table.
        output_dim: Its width.
        embeddings_initializer: How it starts, see `ConfiguredLayer`; by default as the layer of Keras.
        embeddings_regularizer: The penalty on the whole table.

    Call arguments:
        inputs: int `[...]`, indices of rows.

    Output shape: `[..., output_dim]`.

    Example:
        >>> tuple(Embedding(100, 8)(ops.ones((4, 5), "int32")).shape)
        (4, 5, 8)
    """

    weight_kinds = ("embeddings",)

    def __init__(self, input_dim: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_dim = check_count("input_dim", input_dim)
        self.output_dim = check_count("output_dim", output_dim)

    @override
    def build(self, input_shape: Shape | None = None) -> None:
        shape = (self.input_dim, self.output_dim)
        self.embeddings = self.make_weight("embeddings", shape, "uniform", kind="embeddings", autocast=False)
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        table, indices = local(self.embeddings.value), ops.cast(inputs, "int32")
        # A variable of TensorFlow can read rows alone; those of other backends are tensors.
        rows = table.sparse_read(indices) if hasattr(table, "sparse_read") else ops.take(table, indices, axis=0)
        return ops.cast(rows, self.compute_dtype)

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)
