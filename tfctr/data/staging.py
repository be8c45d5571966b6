"""The directory of a data set, which is there whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfctr.errors import UserError, disk_errors
from tfctr.storage import finish_directory, new_directory, write_text

MANIFEST = "dataset.json"


@contextmanager
def staged_directory(out: Path, force: bool = False) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its place when the block ends well.

    With `force`, a data set of that name is replaced. Nothing else is ever replaced.

    Raises:
        UserError: The name is taken, or the directory cannot be written.
    """
    out = _free(out, force)
    with disk_errors(out), new_directory(out, replace=force) as directory:
        yield directory


@contextmanager
def resumed_directory(out: Path, force: bool, key: str) -> Iterator[Path]:
    """The same, but what a killed or interrupted block has left is there again for a block of the same key.

    Raises:
        UserError: The name is taken, or the directory cannot be written.
    """
    out = _free(out, force)
    directory = out.with_name(f".{out.name}.unfinished")
    note = directory / "key"
    with disk_errors(out):
        directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory, out), disk_errors(out), _removed_when_it_fails(directory):
        if not note.is_file() or note.read_text(encoding="utf-8") != key:
            for left in directory.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            write_text(note, key)
        yield directory
        note.unlink()
        finish_directory(directory, out, replace=force)


@contextmanager
def _locked(directory: Path, out: Path) -> Iterator[None]:
    """Keeps others from writing the same; the lock ends with the process."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another run is writing it; wait for it, or name a new directory") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _removed_when_it_fails(directory: Path) -> Iterator[None]:
    """Removes a directory after a fault; a kill and an interrupt leave it."""
    try:
        yield
    except Exception:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _free(out: Path, force: bool) -> Path:
    """The whole path of a directory that may be made or replaced."""
    out = out.expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a directory that is new or empty")
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise UserError(f"{out} is not empty and holds no {MANIFEST}, so it is not replaced; name a new directory")
        if not force:
            raise UserError(f"{out} holds a data set already; pass --force to replace it, or name a new directory")
    return out
