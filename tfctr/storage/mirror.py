"""A local directory whose files are kept in a store too, so that another machine can go on with them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tfctr.storage.places import exists, files, join, local_copy, remove_files, send_file


class Mirror:
    """Keeps the files of a local directory at a place of a store.

    Args:
        directory: The local directory.
        place: Where its files are kept; None keeps them nowhere else.
        last: The file that names the others. It is sent after them, so that whoever finds it finds all it names.
    """

    def __init__(self, directory: Path, place: str | None, last: str) -> None:
        self._directory, self._place, self._last = directory, place, last

    def fetch(self) -> None:
        """Bring what the store has, if the directory has nothing that a run goes on with.

        Raises:
            UserError: the store refuses.
        """
        if self._place is None or (self._directory / self._last).exists() or not exists(join(self._place, self._last)):
            return
        with local_copy(self._place) as copy:
            for path in sorted(copy.rglob("*"), key=lambda path: path.name == self._last):
                if path.is_file():
                    target = self._directory / path.relative_to(copy)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, target)

    def send(self) -> None:
        """Send what the store lacks, then the last file, then remove what the directory does not have any more.

        A file never changes under its name, but for the last one.

        Raises:
            UserError: the store refuses.
        """
        if self._place is None:
            return
        here = {path.relative_to(self._directory).as_posix() for path in self._directory.rglob("*") if path.is_file()}
        there = set(files(self._place))
        for name in sorted(here - there - {self._last}):
            send_file(self._directory / name, join(self._place, name))
        if self._last in here:
            send_file(self._directory / self._last, join(self._place, self._last))
        remove_files(self._place, there - here)
