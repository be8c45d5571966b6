"""Files and directories that are there whole or not at all, also when the process is killed or the machine stops."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tfctr.errors import UserError, disk_errors

_KEY = "key"


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
        finish_file(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def finish_file(unfinished: Path, path: Path) -> None:
    """Give a file its name, when all of it is on disk; it replaces what has the name."""
    _sync(unfinished)
    os.replace(unfinished, path)
    _sync(path.parent)


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


def remove_partial(path: Path) -> None:
    """Remove what killed blocks have left of a directory of this name; no other process may be making it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        shutil.rmtree(left)


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


def remove_directory(path: Path) -> None:
    """Remove a directory that is taken for whole by its name, which it loses before the first file goes."""
    unnamed = _beside(path)
    os.rename(path, unnamed)
    _sync(path.parent)
    shutil.rmtree(unnamed, ignore_errors=True)


@contextmanager
def unfinished_work(directory: Path, key: str) -> Iterator[None]:
    """Make a directory for a block that may be killed: what is in it then is there again for a block of the same key.

    An error of the block removes it; a kill and an interrupt leave it. A block that ends well leaves it too, and ends
    the work by `release_work` or `discard_work`.

    Args:
        directory: What is in it for another key is removed.
        key: Whatever the work depends on.
    """
    note = directory / _KEY
    if not note.is_file() or note.read_text(encoding="utf-8") != key:
        discard_work(directory)
        write_text(note, key)
    try:
        yield
    except Exception:
        with suppress(OSError):  # which would hide why the block failed; without its key nobody goes on with it
            discard_work(directory)
        raise


def release_work(directory: Path) -> None:
    """Make a directory of unfinished work one like any other, which no later block goes on with."""
    (directory / _KEY).unlink(missing_ok=True)
    _sync(directory)


def discard_work(directory: Path) -> None:
    """Remove unfinished work, if any. Its key goes first, since a kill may leave some of the rest.

    Raises:
        OSError: Some of it can't be removed.
    """
    if directory.is_dir():
        release_work(directory)
        shutil.rmtree(directory)


@contextmanager
def only_one(
    path: Path, lock: Path, busy: str = "another run is under way here; wait for it, or choose another --out"
) -> Iterator[None]:
    """Keep other processes from writing the same; the lock ends with the process, however that ends.

    Args:
        path: What is written, for the message.
        lock: A file for the lock, which is removed at the end. Its directory is made when it is missing, and removed
            again when it is left empty.
        busy: What to say when another process has the lock.

    Raises:
        UserError: Another process has the lock, or it cannot be made.
    """
    import fcntl  # which Windows lacks, where the client runs too

    made = not lock.parent.exists()
    while True:
        with disk_errors(path):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        with file:
            with disk_errors(path):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"{path}: {busy}") from None
            if not _has_name(file, lock):
                continue  # the run that had it has just removed it
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                if made:
                    with suppress(OSError):
                        lock.parent.rmdir()
            return


def _has_name(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _beside(path: Path) -> Path:
    """Return the temporary name, which no other process uses; a rename is atomic within one directory."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
