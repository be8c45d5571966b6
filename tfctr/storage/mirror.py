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
        self._same: dict[str, tuple[int, int]] = {}

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
                    self._same[path.relative_to(copy).as_posix()] = _state(target)

    def send(self) -> None:
        """Send what the store lacks, then the last file, then remove what the directory does not have any more.

        A file that another process has sent is sent anew, unless it was fetched: that process may have been killed
        before the last file named its own, and this one has written another under the same name.

        Raises:
            UserError: the store refuses.
        """
        if self._place is None:
            return
        here = {path.relative_to(self._directory).as_posix() for path in self._directory.rglob("*") if path.is_file()}
        there = set(files(self._place))
        for name in sorted(here - {self._last}):
            state = _state(self._directory / name)
            if name not in there or self._same.get(name) != state:
                send_file(self._directory / name, join(self._place, name))
                self._same[name] = state
        if self._last in here:
            send_file(self._directory / self._last, join(self._place, self._last))
        remove_files(self._place, there - here)


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns
