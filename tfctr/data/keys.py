"""Names for what is made of files: another one when a file, or the code that reads it, has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tfctr
from tfctr.features.spec import FeatureFile
from tfctr.storage import is_remote, state_of

_READING = ("tfctr/data", "tfctr/features", "tfctr/training")
"""Where rows are read, checked, transformed, copied and scored."""


def rows_key(file: FeatureFile, paths: Sequence[str]) -> str:
    """The key of the rows of some files: another one for another feature file, too."""
    return files_key(paths, file.model_dump_json(exclude_unset=True))


def contents_key(file: FeatureFile, paths: Sequence[str]) -> str:
    """The key of the rows of some files by what they hold, wherever and whenever they were copied to.

    Args:
        file: The feature file.
        paths: The files. Of those in a store, size and time tell what they hold.
    """
    seen = [state_of(path) if is_remote(path) else _content(path) for path in paths]
    text = file.model_dump_json(exclude_unset=True) + json.dumps(seen) + code_digest(*_READING)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(path: str) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def files_key(paths: Sequence[str | Path], options: str = "") -> str:
    """The key of what is made of some files.

    Args:
        paths: The files; a pipeline's artifacts may be at URIs such as `gs://`.
        options: What it depends on beside them.
    """
    seen = [[str(path), *_state(str(path))] for path in paths]
    return hashlib.sha256((options + json.dumps(seen) + code_digest(*_READING)).encode()).hexdigest()[:16]


def _state(path: str) -> list[Any]:
    if is_remote(path):
        return state_of(path)
    # The time of the last change of the file's entry can't be set, as that of its content can by copying.
    local = Path(path).stat()
    return [local.st_size, local.st_mtime_ns, local.st_ctime_ns]


@cache
def code_digest(*places: str) -> str:
    """A digest of some of our code.

    Args:
        places: Packages and modules, by their paths from the directory that `tfctr` lies in.
    """
    root = Path(tfctr.__file__).parents[1]
    digest = hashlib.sha256()
    for place in places:
        for path in [root / place] if place.endswith(".py") else sorted((root / place).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
