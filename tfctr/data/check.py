"""Checks a directory of impressions, anyone's, against its feature file before time is spent on it."""

import csv
from itertools import islice
from pathlib import Path

from tfctr.console import track
from tfctr.data.splits import SPLITS, split_records
from tfctr.errors import UserError
from tfctr.features.assets import given_tables, given_vocabularies
from tfctr.features.records import located_records
from tfctr.features.row_checks import SplitCheck, columns_of, record_values
from tfctr.features.spec import FeatureFile

_BATCH = 1024


def check_dataset(directory: Path, file: FeatureFile, limit: int | None = None) -> tuple[dict[str, int], list[str]]:
    """Reads impressions and refuses the first that the feature file does not allow.

    Rows and splits must be what training, evaluation and the pipeline ask of them: see `tfctr.features.row_checks`.

    Args:
        directory: Holds train/, valid/ and test/, the files that the feature file names, and perhaps items.csv.
        limit: How many records of each split are read; None reads all.

    Returns:
        The number of records read, by split, and the columns that the feature file does not name.

    Raises:
        UserError: What is wrong, in which record of which file.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory")
    given_vocabularies(file, directory)
    given_tables(file, directory)
    _check_items(directory / "items.csv")
    unread: set[str] = set()
    counts = {split: _check_split(directory / split, file, limit, unread) for split in SPLITS}
    return counts, sorted(unread)


def _check_split(directory: Path, file: FeatureFile, limit: int | None, unread: set[str]) -> int:
    paths = split_records(directory.parent, directory.name)
    check = SplitCheck(file, str(directory))
    records = islice(track(located_records(paths), f"Checking {directory.name}"), limit)
    while batch := list(islice(records, _BATCH)):
        values = []
        try:
            for where, record in batch:
                values.append(record_values(where, record, check.rules, unread))
        finally:
            # Also after an error: a fault of an earlier record is told before it.
            fault = check.add(columns_of(values, check.rules))
            if fault is not None:
                raise UserError(f"{batch[fault.row][0]}: {fault.problem}")
    if not check.rows or check.rows != limit:  # some first rows say nothing of the split as a whole
        check.finish(training=directory.name == "train")
    return check.rows


def _check_items(path: Path) -> None:
    if not path.is_file():
        return
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if "item_id" not in (reader.fieldnames or ()):
                raise UserError(f"{path}: the column item_id is missing; its first line must name the columns")
            for row in reader:
                item, line = row["item_id"], reader.line_num
                if item in lines:
                    raise UserError(f"{path}, line {line}: item {item} is there twice, first in line {lines[item]}")
                lines[item] = line
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from None
