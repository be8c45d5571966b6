"""The labels of a feature file: which columns they are, what they may hold, how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, RootModel

from tfctr.features.columns import INT64_MISSING, Column, Fault
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

    def read(self, columns: Mapping[str, Any]) -> Any:
        """The labels float32 [N] of parsed columns int64 [N]."""
        import tensorflow as tf

        return tf.cast(columns[self.evaluated], tf.float32)

    def faults(self, columns: Mapping[str, Column], required: bool = True) -> Iterator[Fault]:
        """The first row whose label is missing where it is required, and the first whose label is neither 0 nor 1."""
        for name in self.columns:
            column = columns[name]
            missing = column.lengths == 0 if required else np.zeros(len(column.lengths), bool)
            missing[column.rows[column.values == INT64_MISSING]] = True  # nan, where a CSV writes it
            if missing.any():
                yield Fault(int(missing.argmax()), f"{name} must be 0 or 1. Received: nothing")
            yield from column.first(~np.isin(column.values, self.values), f"{name} must be 0 or 1")
