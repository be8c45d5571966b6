"""Keys of an experiment file by their paths, as `--set` and a plan of `tfctr tune` name them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def with_key(content: dict[str, Any], path: str, value: Any) -> None:
    """Sets a key in the content of an experiment file.

    Args:
        content: The content, which is changed.
        path: The parts of the path, joined by dots; in a list, places from 0. A part of a model that is given by its
            name alone is the mapping with `type` that it stands for.
        value: The value.

    Raises:
        ValueError: the path leads through something that has no keys.
    """
    *parts, last = path.split(".")
    place: Any = content
    for depth, part in enumerate(parts):
        key = _key(place, part, parts[:depth])
        below = place[key] if isinstance(place, list) else place.get(key)
        if isinstance(below, str) and depth:
            below = {"type": below}
        if below is None:
            below = {}
        if not isinstance(below, dict | list):
            raise ValueError(f"'{part}' has no keys below it")
        place[key] = below
        place = below
    place[_key(place, last, parts)] = deepcopy(value)


def _key(place: Any, part: str, above: list[str]) -> Any:
    """The part of a path as a key of what it stands in, or as a place of a list."""
    if isinstance(place, dict):
        if part.isdecimal():
            raise ValueError(f"'{'.'.join(above)}' is no list in the file; write one there, to change a place of it")
        return part
    if not part.isdecimal() or int(part) >= len(place):
        raise ValueError(f"'{'.'.join(above)}' is a list of {len(place)}; its places are 0 to {len(place) - 1}")
    return int(part)
