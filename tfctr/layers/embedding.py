"""The look-up of rows in a trained table."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.export import tfctr_export

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@tfctr_export
class Embedding(keras.layers.Embedding):
    """`keras.layers.Embedding` that reads the rows it returns, and not the table.

        y = table[index]

    The layer of Keras reads the table as a tensor. In a TensorFlow graph without XLA, that copies the whole table in
    each step, once an optimizer has written single rows of it.

    Args: those of `keras.layers.Embedding`.

    Call arguments:
        inputs: int `[...]`, rows of the table.

    Output shape: `[..., output_dim]`.

    Example:
        >>> tuple(Embedding(100, 8)(ops.ones((4, 5), "int32")).shape)
        (4, 5, 8)
    """

    @override
    def call(self, inputs: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        rows = tf.gather(self._embeddings.value, ops.cast(inputs, "int32"))
        return ops.cast(rows, self.compute_dtype)
