"""Files and directories that are there whole or not at all, also when the process is killed or the machine stops."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whose readers see either the old content or all of the new one.

    Directories above it are made when they are missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """Make a directory that gets its name when the block ends well; it is removed when the block raises.

    Directories above it are made when they are missing. With `replace`, a directory of this name is replaced; one that
    is empty always is. Yields the directory under its temporary name, hidden and beside `path`.

    Raises:
        OSError: The directory cannot be written, or its name is taken.
    """
    unfinished = _beside(path)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        for entry in (*unfinished.rglob("*"), unfinished):
            _sync(entry)
        if replace and path.exists():
            replaced = path.with_name(f"{unfinished.name}.old")
            os.rename(path, replaced)
            os.rename(unfinished, path)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(unfinished, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return the temporary name, which no other process uses; a rename is atomic within one directory."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
