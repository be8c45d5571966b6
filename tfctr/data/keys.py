"""Names for what is made of files: another one when a file, or the code that reads it, has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tfctr import data, features
from tfctr.features.spec import FeatureFile


def rows_key(file: FeatureFile, paths: Sequence[str]) -> str:
    """The key of the rows of some files: another one for another feature file, too."""
    return files_key(paths, file.model_dump_json(exclude_unset=True))


def files_key(paths: Sequence[str | Path], options: str = "") -> str:
    """The key of what is made of some files.

    Args:
        paths: The files.
        options: What it depends on beside them.
    """
    # The time of the last change of the file's entry can't be set, as that of its content can by copying.
    states = [Path(path).stat() for path in paths]
    seen = [[str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns] for p, s in zip(paths, states, strict=True)]
    return hashlib.sha256((options + json.dumps(seen) + code()).encode()).hexdigest()[:16]


@cache
def code() -> str:
    """A digest of the code that reads, checks and transforms rows."""
    digest = hashlib.sha256()
    for package in (features.__file__, data.__file__):
        for path in sorted(Path(package).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
