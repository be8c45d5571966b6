"""Some rows of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfctr.data.log import checked_rows
from tfctr.data.sources import Rows
from tfctr.features.columns import Column
from tfctr.features.parsing import dense, outcomes, ragged
from tfctr.features.spec import FeatureFile

SAMPLE = 20_000
"""So many rows are enough for what is measured again and again."""


def counted(file: FeatureFile, paths: Sequence[str], title: str) -> Iterator[Rows]:
    """The rows of a split that count: those of a weight above 0.

    Args:
        file: The feature file.
        paths: The files of the split.
        title: What is done with the rows, for the progress.
    """
    for rows in checked_rows(file, paths, title, both_classes=False):
        if file.weight is not None:
            weights = dense(ragged(rows.columns[file.weight]), outcomes(file)[file.weight]).numpy()
            chosen = np.flatnonzero(weights > 0)
            rows = replace(
                rows, columns={name: taken(one, chosen) for name, one in rows.columns.items()}, serialized=None
            )
        if len(rows):
            yield rows


def spread(pieces: Iterator[Rows], total: int) -> Iterator[Rows]:
    """At most `SAMPLE` of the rows of a split that has `total`, evenly spread over it, in pieces as they come."""
    before, stride = 0, -(-total // SAMPLE)
    for rows in pieces:
        chosen = np.arange(-before % stride, len(rows), stride)
        before += len(rows)
        if len(chosen):
            columns = {name: taken(column, chosen) for name, column in rows.columns.items()}
            yield replace(rows, columns=columns, serialized=None)


def taken(column: Column, rows: npt.NDArray[np.int64]) -> Column:
    """A column of other rows."""
    starts = np.cumsum(column.lengths) - column.lengths
    lengths = column.lengths[rows]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = np.repeat(starts[rows], lengths) + within
    flat = column.flat.take(pa.array(index)) if isinstance(column.flat, pa.Array) else column.values[index]
    return Column(flat, lengths)
