"""The directory of a data set, which is there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfctr.errors import UserError, disk_errors
from tfctr.storage import finish_directory, new_directory, only_one, release_work, remove_partial, unfinished_work

MANIFEST = "dataset.json"


@contextmanager
def staged_directory(out: Path, force: bool = False) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its place when the block ends well.

    With `force`, a data set of that name is replaced. Nothing else is ever replaced.

    Raises:
        UserError: The name is taken, the directory cannot be written, or another process makes it.
    """
    out = _free(out, force)
    with only_one(out, _lock(out)), disk_errors(out):
        remove_partial(out)
        with new_directory(out, replace=force) as directory:
            yield directory


@contextmanager
def resumed_directory(out: Path, force: bool, key: str) -> Iterator[Path]:
    """The same, but what a killed or interrupted block has left is there again for a block of the same key.

    Raises:
        UserError: The name is taken, the directory cannot be written, or another process makes it.
    """
    out = _free(out, force)
    directory = out.with_name(f".{out.name}.unfinished")
    with only_one(out, _lock(out)), disk_errors(out), unfinished_work(directory, key):
        yield directory
        release_work(directory)
        finish_directory(directory, out, replace=force)


def _lock(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


def _free(out: Path, force: bool) -> Path:
    """The whole path of a directory that may be made or replaced."""
    out = out.expanduser().resolve()
    above = next((parent for parent in out.parents if parent.exists()), out)
    if not above.is_dir():
        raise UserError(f"cannot write {out}: {above} is a file")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a directory that is new or empty")
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise UserError(f"{out} is not empty and holds no {MANIFEST}, so it is not replaced; name a new directory")
        if not force:
            raise UserError(f"{out} holds a data set already; pass --force to replace it, or name a new directory")
    return out
