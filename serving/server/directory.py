"""The directory of a model: its versions, which of them are served, and whether their files changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorflow_serving.config import file_system_storage_path_source_pb2

Policy = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
_MAX_VERSION_DIGITS = 19


def find_versions(base_path: Path) -> dict[int, Path] | None:
    """The numeric directories in `base_path` by version, or None if `base_path` cannot be read.

    Other names are not versions, so a new version can be copied under another name and renamed when it is complete.
    "00004" is version 4. If two directories have the same version, the first by name counts.
    """
    found: dict[int, Path] = {}
    try:
        for child in sorted(base_path.iterdir()):
            name = child.name
            if name.isascii() and name.isdigit() and len(name) <= _MAX_VERSION_DIGITS and child.is_dir():
                found.setdefault(int(name), child)
    except OSError:
        return None
    return found


def latest(number: int) -> Any:
    """The policy that serves this many of the newest versions."""
    return Policy(latest=Policy.Latest(num_versions=number))


def wanted_versions(found: dict[int, Path], policy: Any) -> list[int]:
    """The versions that a policy serves, oldest first. Like TensorFlow Serving, an empty policy serves the newest."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return sorted(found)
    if choice == "specific":
        return sorted(set(policy.specific.versions) & set(found))
    return sorted(found)[-(policy.latest.num_versions or 1) :]


def fingerprint(directory: Path) -> tuple[Any, ...]:
    """Names, sizes and times of the files of a version, which change while it is copied or repaired in place."""
    seen = []
    for path in sorted(directory.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        seen.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(seen)
