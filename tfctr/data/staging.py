"""The directory of a data set, which is there whole or not at all."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tfctr.data.item_vectors import FILE_NAME
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError, disk_errors
from tfctr.storage import finish_directory, new_directory, only_one, release_work, remove_partial, unfinished_work

MANIFEST, ITEMS = "dataset.json", "items.csv"
_CONTENT = re.compile(
    rf"({'|'.join(SPLITS)})(/part-\d{{5,}}\.(parquet|tfrecord\.gz))?|"
    rf"{'|'.join(re.escape(name) for name in (MANIFEST, ITEMS, FILE_NAME))}"
)
"""All that a data set consists of, by its path there: what is written must be named here, and only that is replaced."""
_MOST_TOLD = 5


@contextmanager
def staged_directory(out: Path, force: bool = False, read: Iterable[Path] = ()) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its place when the block ends well.

    With `force`, a data set of that name is replaced. Nothing else is ever replaced.

    Args:
        out: The directory.
        force: Whether a data set that stands there is replaced.
        read: What the block reads, which is not replaced either.

    Raises:
        UserError: The name is taken, the directory cannot be written, or another process makes it.
    """
    out = _free(out, force, read)
    with only_one(out, _lock(out)), disk_errors(out):
        remove_partial(out)
        with new_directory(out, replace=force) as directory:
            yield directory
            _check_content(directory)
            _free(out, force)


@contextmanager
def resumed_directory(out: Path, force: bool, key: str, read: Iterable[Path] = ()) -> Iterator[Path]:
    """The same, but what a killed or interrupted block has left is there again for a block of the same key.

    Raises:
        UserError: The name is taken, the directory cannot be written, or another process makes it.
    """
    out = _free(out, force, read)
    directory = out.with_name(f".{out.name}.unfinished")
    with only_one(out, _lock(out)), disk_errors(out):
        with unfinished_work(directory, key):
            yield directory
        # After the block, so that a file that somebody has put into `out` meanwhile does not cost the work.
        _free(out, force)
        with unfinished_work(directory, key):
            release_work(directory)
            _check_content(directory)
            finish_directory(directory, out, replace=force)


def _lock(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


def _free(out: Path, force: bool, read: Iterable[Path] = ()) -> Path:
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
        if strangers := _strangers(out):
            more = f" and {len(strangers) - _MOST_TOLD} more" if len(strangers) > _MOST_TOLD else ""
            raise UserError(
                f"{out} is not replaced, since it holds what is not of its data set: "
                f"{', '.join(strangers[:_MOST_TOLD])}{more}; move that elsewhere, or name a new directory"
            )
        if not force:
            raise UserError(f"{out} holds a data set already; pass --force to replace it, or name a new directory")
    for path in read:
        if path.resolve().is_relative_to(out):
            raise UserError(f"{path}: is read, and {out} would be replaced with it; name another --out")
    return out


def _check_content(directory: Path) -> None:
    """Refuses what was written and is not in the list of a data set's content."""
    if strangers := _strangers(directory):
        raise RuntimeError(f"no part of a data set by the list of its content: {', '.join(strangers)}")


def _strangers(directory: Path) -> list[str]:
    """What is in a data set's directory and not of the data set, by its path there."""
    inside = [*directory.iterdir(), *(path for split in SPLITS for path in directory.glob(f"{split}/*"))]
    named = {path.relative_to(directory).as_posix(): path.is_dir() for path in inside}
    return sorted(name for name, folder in named.items() if folder != (name in SPLITS) or not _CONTENT.fullmatch(name))
