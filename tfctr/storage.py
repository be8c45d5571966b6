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
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the temporary name of a file that gets its own, or replaces what has it, when the block ends well.

    Raises:
        OSError: The file cannot be written.
    """
    unfinished = _beside(path)
    try:
        yield unfinished
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
        finish_directory(unfinished, path, replace)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def finish_directory(unfinished: Path, path: Path, replace: bool = False) -> None:
    """Give a directory its name, when all of it is on disk. With `replace`, a directory of this name is replaced.

    Raises:
        OSError: The name is taken, or belongs to something else.
    """
    for entry in (*unfinished.rglob("*"), unfinished):
        _sync(entry)
    if replace and path.exists():
        replaced = path.with_name(f"{unfinished.name}.old")
        shutil.rmtree(replaced, ignore_errors=True)  # what a kill has left of it
        os.rename(path, replaced)
        os.rename(unfinished, path)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        os.rename(unfinished, path)
    _sync(path.parent)


def _beside(path: Path) -> Path:
    """Return the temporary name, which no other process uses; a rename is atomic within one directory."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
