"""A push by which a server that watches the directory never sees an incomplete version; it needs no TFX."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from tfctr.errors import UserError
from tfctr.storage import (
    MARKER,
    check_place,
    digest,
    exists,
    is_remote,
    join,
    local_copy,
    local_path,
    new_version,
    version_numbers,
)

_LEFT = re.compile(r"\.[0-9]+\.[0-9]+\.partial")
_LEFT_SECONDS = 3600


def push(source: str | Path, destination: str | Path) -> tuple[str, bool]:
    """Copies a SavedModel to a new version under `destination`, which appears only when it is complete.

    On disk the copy gets a name that is not a number, so model servers pass it by; every file and directory is fsynced,
    and one rename makes the version appear. In a store every file is read back, and `saved_model.pb`, without which no
    server loads a version, comes last. When the newest version holds the same bytes, nothing is copied.

    Args:
        source: The SavedModel.
        destination: The directory with the numbered versions, on disk or in a store.

    Returns:
        The version's place, and whether it is new.

    Raises:
        UserError: there is no such store, it refuses, the source is no SavedModel, or what the store gives back is not
            what was sent.
    """
    check_place(destination)
    if not exists(join(source, MARKER)):
        raise UserError(f"{source}: not pushed; it is no SavedModel, since it has no {MARKER}")
    if not is_remote(destination):
        _remove_leftovers(local_path(destination, "the destination"))
    versions = version_numbers(destination)
    with local_copy(source) as model:
        if versions and exists(join(newest := join(destination, str(versions[-1])), MARKER)):
            with local_copy(newest) as there:
                if digest(there) == digest(model):
                    return newest, False
        # Seconds since 1970, as tools of model servers expect, and greater than every version that is there.
        version = join(destination, str(max(int(time.time()), versions[-1] + 1 if versions else 0)))
        with new_version(version) as unfinished:
            shutil.copytree(model, unfinished, dirs_exist_ok=True)
    return version, True


def _remove_leftovers(destination: Path) -> None:
    """Removes what killed pushes have left; one that is under way has just begun."""
    for path in destination.glob(".*.partial"):
        if _LEFT.fullmatch(path.name) and path.is_dir() and time.time() - path.stat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
