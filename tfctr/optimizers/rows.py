"""Gradients of single rows of a table, on the TensorFlow backend; the others have dense gradients only.

A look-up of n ids has the gradient of n rows, of which several may be of one id. What an optimizer needs is their sum.
"""

from __future__ import annotations

from typing import Any

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    class SummedRows(tf.IndexedSlices):
        """The gradient of rows, in which the first axis names every row as often as the batch reads it.

        It is still the same gradient for whoever adds up the values of equal indices, since all but one are zero.

        Attributes:
            values: The sum of a row's gradients `[n, d]` in the place of its representative, zero elsewhere.
            representatives: The place `[n]` of each row's representative.
        """

        def __init__(self, values: Any, indices: Any, representatives: Any) -> None:
            super().__init__(values, indices)
            self.representatives = representatives

        def scaled(self, factor: Any) -> SummedRows:
            """The same gradient times a factor."""
            return SummedRows(self.values * factor, self.indices, self.representatives)


def is_of_rows(gradient: Any) -> bool:
    """Whether a gradient is that of single rows."""
    return keras.backend.backend() == "tensorflow" and isinstance(gradient, tf.IndexedSlices)


def densified(gradient: Any) -> Any:
    """The gradient of the whole table."""
    return tf.convert_to_tensor(gradient) if is_of_rows(gradient) else gradient


def summed(gradient: Any, places: Any) -> SummedRows:
    """Add up the gradients of equal rows.

    Every place of the batch writes itself into the entry of its row; the one that is found there afterwards represents
    the row. It takes no sorting, works under XLA, and costs what the batch costs, however long the table is. What
    earlier batches have left in other entries is never read.

    Args:
        gradient: `tf.IndexedSlices` of n rows.
        places: An int32 variable `[rows of the table]`, of any content.
    """
    if isinstance(gradient, SummedRows):
        return gradient
    count = tf.shape(gradient.indices)[0]
    places.scatter_update(tf.IndexedSlices(tf.range(count), gradient.indices))
    representatives = tf.gather(places, gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, representatives, count)
    return SummedRows(values, gradient.indices, representatives)


def read(table: Any, rows: SummedRows) -> Any:
    """The rows `[n, d]` of a table that a gradient is for."""
    return tf.gather(table, rows.indices)


def write(table: Any, rows: SummedRows, values: Any) -> None:
    """Put new rows into a table. A row that the batch reads twice is written twice, with one value."""
    table.scatter_update(tf.IndexedSlices(values, rows.indices))


def totals(rows: SummedRows) -> Any:
    """The whole gradient `[n, d]` of the row in each place."""
    return tf.gather(rows.values, rows.representatives)
