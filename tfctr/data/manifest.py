"""Writes the files beside the records that describe a data set: items.csv and dataset.json."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tfctr
from tfctr.console import error_console
from tfctr.data.staging import ITEMS, MANIFEST
from tfctr.errors import UserError


@dataclass
class SplitCount:
    """What is counted while a split is written."""

    rows: int = 0
    positives: int = 0
    requests: int = 0
    users: set[int] = field(default_factory=set)

    def describe(self) -> dict[str, int]:
        """The counts as they stand in the manifest."""
        return {"rows": self.rows, "positives": self.positives, "requests": self.requests, "users": len(self.users)}


def write_items(directory: Path, items: Iterable[tuple[int | str | None, ...]], *more: str) -> None:
    """Writes items.csv in UTF-8: item_id, title, genres, year (empty when unknown), and the columns named by `more`."""
    with (directory / ITEMS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item_id", "title", "genres", "year", *more])
        writer.writerows(items)


def provenance(path: Path) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file."""
    with path.open("rb") as file:
        return {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Writes dataset.json: what the data set was made from and how; the version of the package is added."""
    text = json.dumps({"format": 1, "tfctr": tfctr.__version__, **content}, indent=2, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def warn_of_one_class(manifest: dict[str, Any]) -> None:
    """Warns of a training split that nothing can be learned from."""
    train = manifest["splits"]["train"]
    if train["positives"] in (0, train["rows"]):
        error_console().print(
            f"warning: all {train['rows']:,} labels of train are {min(train['positives'], 1)}; look at `label`"
        )


def require_rows(counts: dict[str, int], advice: Callable[[str], str]) -> None:
    """Raises a `UserError` for a data set with an empty split, which no pipeline can read.

    Args:
        counts: Rows by split.
        advice: Says of a split what to do.
    """
    for split, rows in counts.items():
        if rows == 0:
            raise UserError(f"the {split} split would be empty (rows: {counts}); {advice(split)}")
