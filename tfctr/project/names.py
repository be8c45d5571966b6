"""What the names of columns say, and names for columns whose own are no identifiers."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

ID_WORDS = {"id", "uid", "uuid", "guid", "code", "zip", "hash"}
TIME_WORDS = {"time", "timestamp", "ts", "date", "at", "second"}


def words(name: str) -> list[str]:
    """The words of a name in lower case and in the singular: `History_itemIDs` -> history, item, id."""
    parts = re.findall(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [part.lower().removesuffix("s") if len(part) > 2 else part.lower() for part in parts]


def names_an_id(name: str) -> bool:
    """Whether a name ends as those of ids do."""
    return bool(ID_WORDS & set(words(name)[-1:]))


def named_in(name: str, columns: Iterable[str]) -> str | None:
    """The column whose name stands in another one, the longest of several: `item_id` in `clicked_items`.

    The other one must say more than the column does, or be its plural.
    """
    found: dict[int, str] = {}
    longer = words(name)
    for column in columns:
        whole = words(column)
        for stem in (whole, whole[:-1] if names_an_id(column) else []):
            if column != name and stem and _stands_in(stem, longer):
                found.setdefault(len(stem), column)
    return found[max(found)] if found else None


def before(name: str, column: str) -> str:
    """The words of a name before those of the column that stands in it, joined by `_`."""
    longer, whole = words(name), words(column)
    place = next((at for at in range(len(longer)) if longer[at : at + 1] == whole[:1]), 0)
    return "_".join(longer[:place])


def _stands_in(stem: list[str], longer: list[str]) -> bool:
    return any(longer[at : at + len(stem)] == stem for at in range(len(longer) - len(stem) + 1))


def is_identifier(name: str) -> bool:
    """Whether a name may stand in a feature file without `column`."""
    return re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) is not None


class Names:
    """Gives columns names of features, each once.

    Args:
        taken: Names that no feature can have.
        prefixes: What no name can begin with.
    """

    def __init__(self, taken: Iterable[str], prefixes: Iterable[str]) -> None:
        self._taken = {name.lower() for name in taken}
        self._prefixes = tuple(prefix.lower() for prefix in prefixes)

    def of(self, column: str) -> str:
        """A name for a column: its own where that is possible."""
        name = re.sub("[^A-Za-z0-9]+", "_", column).strip("_") if not is_identifier(column) else column
        if not re.match("[A-Za-z]", name) or name.lower().startswith(self._prefixes):
            name = f"column_{name}".rstrip("_")
        plain, number = name, 1
        while name.lower() in self._taken or keyword.iskeyword(name) or name == "self":
            number += 1
            name = f"{plain}_{number}"
        self._taken.add(name.lower())
        return name
