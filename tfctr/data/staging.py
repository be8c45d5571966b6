"""The directory of a data set, which is there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfctr.errors import UserError
from tfctr.storage import new_directory

MANIFEST = "dataset.json"


@contextmanager
def staged_directory(out: Path, force: bool = False) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its place when the block ends well.

    With `force`, a data set of that name is replaced. Nothing else is ever replaced.

    Raises:
        UserError: The name is taken, or the directory cannot be written.
    """
    out = out.expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a directory that is new or empty")
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise UserError(f"{out} is not empty and holds no {MANIFEST}, so it is not replaced; name a new directory")
        if not force:
            raise UserError(f"{out} holds a data set already; pass --force to replace it, or name a new directory")
    try:
        with new_directory(out, replace=force) as directory:
            yield directory
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
