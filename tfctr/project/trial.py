"""Which columns of a log can't be read as a feature file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfctr.data.sources import read, split_files
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features.row_checks import ColumnRule, column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.table_format import TableFormat


def unreadable(data: Path, file: FeatureFile, limit: int) -> dict[str, str]:
    """Why columns can't be read, by column. Formats differ in what they make of a type, so each column is tried.

    Args:
        data: The directory with train/, valid/ and test/.
        file: The feature file.
        limit: How many rows of each split are read, about.
    """
    found: dict[str, str] = {}
    for split in SPLITS:
        paths = split_files(data, split)
        for name, rule in column_rules(file).items():
            why = _refusal(paths, name, rule, file.csv, limit)
            if why is not None:
                found.setdefault(rule.column, why)
    return found


def _refusal(paths: Sequence[str], name: str, rule: ColumnRule, tables: TableFormat, limit: int) -> str | None:
    seen = 0
    try:
        for rows in read(paths, {name: rule}, tables):
            if not rule.history and (rows.columns[name].lengths > 1).any():
                return "has several values in one row; join them by | in one text"
            seen += len(rows)
            if seen >= limit:
                break
    except UserError as error:
        return str(error)
    return None
