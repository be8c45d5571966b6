"""The labels of a feature file: which columns they are, what they may hold, how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, RootModel

from tfctr.errors import UserError
from tfctr.features.kinds.base import INT64_MISSING
from tfctr.features.yaml_file import Name


class Labels(RootModel[dict[Name, Name]]):
    """The label columns by task, int64 of 0 or 1 in every row.

    One task is possible so far. Nothing outside this class depends on that.
    """

    model_config = ConfigDict(frozen=True)

    root: dict[Name, Name] = Field(min_length=1, max_length=1, description="task -> column; one task")

    dtype: ClassVar[str] = "int64"
    values: ClassVar[tuple[int, ...]] = (0, 1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in the order of the tasks."""
        return tuple(self.root.values())

    @property
    def evaluated(self) -> str:
        """The column that metrics are computed of: the first task's."""
        return self.columns[0]

    def parsing_spec(self, required: bool = False) -> dict[str, Any]:
        """The tf.io parsing spec of the columns.

        Args:
            required: Whether a record without a label is an error of the parser; otherwise it reads as missing.
        """
        import tensorflow as tf

        default = None if required else INT64_MISSING
        return {column: tf.io.FixedLenFeature([], tf.int64, default) for column in self.columns}

    def read(self, columns: Mapping[str, Any]) -> Any:
        """The labels float32 [N] of parsed columns int64 [N]."""
        import tensorflow as tf

        return tf.cast(columns[self.evaluated], tf.float32)

    def check_record(self, where: str, record: Mapping[str, list[Any]]) -> None:
        """Refuse a record whose label is missing or neither 0 nor 1.

        Args:
            where: Which record, for the message.
            record: The values by column.

        Raises:
            UserError: what is wrong, and where.
        """
        for column in self.columns:
            label = record.get(column, [])
            if len(label) != 1 or label[0] not in self.values:
                received = label[0] if label else "nothing"
                raise UserError(f"{where}: {column} must be 0 or 1. Received: {received}")

    def check_columns(self, columns: Mapping[str, Any]) -> None:
        """Refuse NumPy columns [N] in which a label is missing or neither 0 nor 1.

        Raises:
            UserError: the column, the first such row and its label.
        """
        for column in self.columns:
            bad = np.flatnonzero(~np.isin(columns[column], self.values))
            if bad.size:
                label = columns[column][bad[0]]
                received = "nothing" if label == INT64_MISSING else label
                raise UserError(f"column '{column}': labels must be 0 or 1. Received: {received} in row {bad[0] + 1}")
