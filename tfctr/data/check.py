"""Checks a directory of impressions, anyone's, against its feature file before time is spent on it."""

import csv
from pathlib import Path

from tfctr.data.log import checked_rows
from tfctr.data.sources import split_files
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features.assets import given_files, given_tables, given_vocabularies
from tfctr.features.spec import FeatureFile
from tfctr.storage import exists, local_copy

_ITEMS = "items.csv"


def check_dataset(
    directory: str | Path, file: FeatureFile, limit: int | None = None
) -> tuple[dict[str, int], list[str]]:
    """Reads impressions and refuses the first that the feature file does not allow.

    Rows and splits must be what training, evaluation and the pipeline ask of them: see `tfctr.features.row_checks`.

    Args:
        directory: Holds train/, valid/ and test/, the files that the feature file names, and perhaps items.csv.
        file: The feature file.
        limit: How many rows of each split are read; None reads all.

    Returns:
        The number of rows read, by split, and the columns that the feature file does not name.

    Raises:
        UserError: What is wrong, in which row of which file.
    """
    if not exists(directory) or Path(directory).is_file():
        raise UserError(f"{directory}: no such directory")
    with local_copy(directory, only=[*given_files(file), _ITEMS]) as given:
        given_vocabularies(file, given)
        given_tables(file, given)
        _check_items(given / _ITEMS)
    counts, unread = dict.fromkeys(SPLITS, 0), set[str]()
    for split in SPLITS:
        paths = split_files(directory, split)
        for rows in checked_rows(file, paths, f"Checking {split}", training=split == "train", limit=limit):
            counts[split] += len(rows)
            unread |= rows.unread()
    return counts, sorted(unread)


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
