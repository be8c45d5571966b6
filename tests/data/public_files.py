"""Small files in the layouts of public data sets, and the impressions that they must become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data.helpers import write_movielens

Rows = list[dict[str, Any]]
CONFIGS = Path(__file__).parents[2] / "configs"
REPEATED = 12
"""How often each row stands in the files: more often than any `min_count` asks."""


@dataclass(frozen=True)
class PublicFiles:
    """The files of a data set.

    Attributes:
        write: Writes them into a directory.
        features: The feature file, in `configs`.
        rows: The impressions by split, worked out by hand, each of which stands there `REPEATED` times; a data set that
            is split at random has them all under `all`.
    """

    write: Callable[[Path], object]
    features: str
    rows: Mapping[str, Rows]


def _movielens(directory: Path) -> None:
    times = (f"{user}::{item}::{rating}::{100 * n}\n" for n in range(REPEATED) for user, item, rating in _RATINGS)
    write_movielens(directory, ratings="".join(times))


_RATINGS = ((1, 1, 5), (1, 2, 3), (1, 11, 2), (2, 12, 4))
_WOMAN = {"user_id": 1, "gender": "F", "age": 25, "occupation": 7}
_MAN = {"user_id": 2, "gender": "M", "age": 56, "occupation": 0}

PUBLIC_FILES: dict[str, PublicFiles] = {
    "movielens-1m-ctr": PublicFiles(
        _movielens,
        "movielens-ctr.yaml",
        {
            "all": [
                _WOMAN | {"item_id": 1, "year": 1981, "genres": "Drama", "label": 1},
                _WOMAN | {"item_id": 11, "year": 1999, "genres": "Comedy|Drama", "label": 0},
                _MAN | {"item_id": 12, "year": None, "genres": "Horror", "label": 1},
            ]
        },
    ),
}
"""The data sets that are a build file alone, by name."""
