"""The labels of impressions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.log import LogFile, column_of, place, require
from tfctr.data.build.spec import LABEL_WANTED, Label
from tfctr.errors import UserError


def labels_of(rows: pa.Table, label: Label, files: Sequence[LogFile]) -> npt.NDArray[np.int64]:
    """The label [m] of each impression.

    Args:
        rows: The rows of the log that are impressions.
        label: What the build file says of it.
        files: The files of the log.

    Raises:
        UserError: a row without a label, or with another one than 0 or 1 where there is no rule.
    """
    if label.given is None or label.given[0] != "present":
        require(rows, label.column, files, "is missing, so the row has no label; leave such rows out by `impressions`")
    values = column_of(rows, label.column)
    if label.given is not None:
        return label.holds(values, label.column).astype(np.int64)
    labels = _zero_or_one(values)
    bad = labels < 0
    if bad.any():
        row = int(bad.argmax())
        value = values[row].as_py()
        shown = repr(value) if isinstance(value, str) else value
        raise UserError(f"{place(rows, row, files)}: column '{label.column}' is {shown}; {LABEL_WANTED}")
    return labels


def _zero_or_one(values: pa.Array) -> npt.NDArray[np.int64]:
    """What values [m] are: 0, 1, or -1 for all else."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = pc.index_in(values, pa.array(["0", "1"], kind))
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.full(len(values), -1, np.int64)
    numbers = values.to_numpy(zero_copy_only=False)
    return np.select([numbers == 0, numbers == 1], [0, 1], -1).astype(np.int64)
