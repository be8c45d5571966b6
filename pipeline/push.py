"""A push by which a server that watches the directory never sees an incomplete version; it needs no TFX."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tfctr.storage import check_place, digest, is_remote, join, local_copy, local_path, names, new_version


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
        UserError: there is no such store, it refuses, or what it gives back is not what was sent.
    """
    check_place(destination)
    if not is_remote(destination):
        for leftover in local_path(destination, "the destination").glob(".*.partial"):
            shutil.rmtree(leftover)
    versions = sorted(int(name) for name in names(destination) if name.isdigit())
    with local_copy(source) as model:
        if versions and (newest := join(destination, str(versions[-1]))):
            with local_copy(newest) as there:
                if digest(there) == digest(model):
                    return newest, False
        # Seconds since 1970, as tools of model servers expect, and greater than every version that is there.
        version = join(destination, str(max(int(time.time()), versions[-1] + 1 if versions else 0)))
        with new_version(version) as unfinished:
            shutil.copytree(model, unfinished, dirs_exist_ok=True)
    return version, True
