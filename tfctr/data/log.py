"""Reads a log, of any format, and checks every row on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tfctr.console import track
from tfctr.data.sources import Rows, read
from tfctr.errors import UserError
from tfctr.features.columns import Column
from tfctr.features.row_checks import ColumnRule, SplitCheck
from tfctr.features.spec import FeatureFile
from tfctr.storage import parent


def checked_rows(
    file: FeatureFile,
    paths: Sequence[str | Path],
    title: str,
    training: bool = False,
    both_classes: bool = True,
    limit: int | None = None,
    labelled: bool = True,
    keys: Mapping[str, ColumnRule] | None = None,
) -> Iterator[Rows]:
    """The rows of a split, file after file, each checked before it is given out.

    Args:
        file: The feature file.
        paths: Files of one format.
        title: What is done with the rows, for the progress.
        training: Whether it is the training split, which must have every column.
        both_classes: Whether labels of one class only are refused.
        limit: How many rows are read; None reads all. Some first rows say nothing of the split as a whole.
        labelled: Whether every row must have its labels, and the split what training needs.
        keys: Columns that are read beside those that the feature file names.

    Raises:
        UserError: what is wrong, in which row of which file.
    """
    check = SplitCheck(file, parent(paths[0]), labelled, keys)
    for rows in track(read(paths, check.rules, file.csv), title, size=len):
        left = None if limit is None else limit - check.rows
        some = rows if left is None else _first_rows(rows, left)
        fault = check.add(some.columns)
        if fault is not None:
            raise UserError(f"{some.where(fault.row)}: {fault.problem}")
        yield some
        if check.rows == limit:
            return
    check.finish(training, both_classes)


def _first_rows(rows: Rows, count: int) -> Rows:
    """The first of some rows."""
    columns = {
        name: Column(column.flat[: int(column.lengths[:count].sum())], column.lengths[:count])
        for name, column in rows.columns.items()
    }
    return replace(rows, columns=columns, serialized=None if rows.serialized is None else rows.serialized[:count])
