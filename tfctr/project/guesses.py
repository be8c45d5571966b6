"""What columns are by what they are called, where nobody says it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# In lower case and letters alone; the first that is there is taken.
_NAMES: dict[str, tuple[str, ...]] = {
    "label": ("label", "click", "clicked", "isclick", "isclicked", "target"),
    "user": ("userid", "user", "uid", "memberid", "customerid"),
    "item": ("itemid", "item", "adid", "movieid", "productid", "articleid", "videoid"),
    "timestamp": ("timestamp", "time", "ts", "unixtime", "eventtime", "requesttime"),
    "request": ("requestid", "request", "impressionid"),
    "weight": ("weight", "sampleweight", "importance"),
}
_POSITIONS = ("position", "pos", "slot")


def guess_roles(names: Iterable[str]) -> dict[str, str]:
    """The columns that are called as those of a role are, by role."""
    columns = {_plain(name): name for name in names}
    found = {role: [columns[one] for one in wanted if one in columns] for role, wanted in _NAMES.items()}
    if len(found["label"]) > 1:  # The other one would tell the model what it must guess.
        found["label"] = []
    return {role: named[0] for role, named in found.items() if named}


def guess_positions(names: Iterable[str]) -> list[str]:
    """The columns that are called as those of how a candidate was shown."""
    return [name for name in names if _plain(name) in _POSITIONS]


def is_called_a_label(name: str) -> bool:
    """Whether a column is called as labels are."""
    return _plain(name) in _NAMES["label"]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
