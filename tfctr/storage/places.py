"""Places: a local path or the address of a store, such as `gs://bucket/models`. What is there is read and written here.

Bytes go through local files: a copy is fetched before something is read, and what is written is whole on disk before
it leaves. So everything else needs to know paths only, and no store has to have a rename.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from tfctr.errors import DiskError, UserError
from tfctr.storage.local import new_directory
from tfctr.storage.local import write_text as write_local_text
from tfctr.storage.systems import file_system, has_folders, lasts, path_on, scheme_of

_BLOCK = 1 << 20
_PROBE = ".tfctr-is-this-writable"
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
MARKER = "saved_model.pb"
"""The file without which no reader takes a directory for a version of a model."""


def is_remote(place: str | Path) -> bool:
    """Whether a place is the address of a store, and not a local path."""
    return bool(scheme_of(str(place)))


def check_place(place: str | Path, lasting: bool = False) -> None:
    """Check that there is a store for a place, before anything is done for it.

    Args:
        place: The place.
        lasting: Whether what is written there must outlive this process.

    Raises:
        UserError: nobody knows the scheme, its package is missing, or its content would be gone with the process.
    """
    scheme = scheme_of(str(place))
    file_system(scheme)
    if lasting and not lasts(scheme):
        raise UserError(f"{place}: what {scheme}:// holds is gone when this process ends; name another place")


def check_writable(place: str | Path) -> None:
    """Check that a store takes a file at a place, before hours of work are done for it.

    Raises:
        UserError: there is no such store or bucket, or it refuses.
    """
    check_place(place)
    if is_remote(place):
        write_text(join(place, _PROBE), "yes")
        remove_files(str(place), [_PROBE])


def local_path(place: str | Path, what: str) -> Path:
    """The path of a place that must be a local one.

    Args:
        place: The place.
        what: What it is for, for the message: `--out`.

    Raises:
        UserError: it is the address of a store.
    """
    if is_remote(place):
        raise UserError(f"{what}: must be a local directory. Received: {place}")
    return _path(place)


def local_directory(text: str) -> Path:
    """What a command line calls `--out`: the path of a local directory.

    Raises:
        UserError: it is the address of a store.
    """
    return local_path(text, "--out")


def join(place: str | Path, *parts: str) -> str:
    """The place of something below a place."""
    return "/".join([str(place).rstrip("/"), *parts]) if is_remote(place) else str(Path(_path(place), *parts))


def version_numbers(place: str | Path) -> list[int]:
    """The numbers of the versions in a model directory, sorted; what is named otherwise is none."""
    return sorted(int(name) for name in names(place) if _VERSION.fullmatch(name))


def whole_place(place: str | Path) -> str:
    """A place that does not depend on the working directory."""
    return str(place) if is_remote(place) else str(_path(place).resolve())


def parent(place: str | Path) -> str:
    """The place of the directory that a place lies in."""
    return str(place).rstrip("/").rpartition("/")[0] if is_remote(place) else str(_path(place).parent)


def exists(place: str | Path) -> bool:
    """Whether a file or a directory is there."""
    system, path = _at(place)
    with _store_errors(place):
        return bool(system.exists(path))


def names(place: str | Path) -> list[str]:
    """The names in a directory, sorted; none where it is not there."""
    system, path = _at(place)
    with _store_errors(place):
        found = [str(one).rstrip("/") for one in system.ls(path, detail=False)] if system.exists(path) else []
    # S3 can hold an empty object that stands for the directory itself.
    return sorted(one.rpartition("/")[2] for one in found if one != path)


def files(place: str) -> list[str]:
    """The files below a place, relative to it."""
    system, path = _at(place)
    with _store_errors(place):
        found = system.find(path) if system.exists(path) else []
    return [name for name in (str(one).removeprefix(f"{path}/") for one in found) if name and name != path]


def read_bytes(place: str | Path) -> bytes:
    """The content of a file.

    Raises:
        UserError: it is not there, or the store refuses.
    """
    system, path = _at(place)
    with _store_errors(place), system.open(path, "rb") as file:
        return cast(bytes, file.read())


def state_of(place: str | Path) -> list[Any]:
    """What changes when a remote file does: its size, and its time or its store's digest."""
    system, path = _at(place)
    with _store_errors(place):
        about = system.info(path)
    changed = (about.get(key) for key in ("ETag", "etag", "modified", "mtime", "LastModified", "created"))
    return [about["size"], str(next((one for one in changed if one), ""))]


def write_text(place: str | Path, text: str) -> None:
    """Write a file in UTF-8, whose readers see either the old content or all of the new one.

    Raises:
        UserError: the store refuses, or gives back something else.
    """
    if not is_remote(place):
        write_local_text(_path(place), text)
        return
    with tempfile.TemporaryDirectory(prefix="tfctr-") as temporary:
        path = Path(temporary) / "text"
        path.write_text(text, encoding="utf-8")
        send_file(path, str(place))


@contextmanager
def local_copy(place: str | Path, only: Sequence[str] | None = None) -> Iterator[Path]:
    """Yield the local path of a file or a directory: its own, or that of a copy that is removed after the block.

    A `UserError` of the block that names the copy is told of the place.

    Args:
        place: The file or directory.
        only: The files of a directory that are needed, relative to it; those that are not there are left out.

    Raises:
        UserError: it is not there, or the store refuses.
    """
    if not is_remote(place):
        yield _path(place)
        return
    whole = str(place).rstrip("/")
    with tempfile.TemporaryDirectory(prefix="tfctr-") as temporary:
        copy = Path(temporary) / (whole.rpartition("/")[2] or "copy")
        with _store_errors(place):
            _fetch(whole, copy, only)
        try:
            yield copy
        except UserError as error:
            raise UserError(str(error).replace(str(copy), whole)) from error


@contextmanager
def new_version(place: str | Path, replace: bool = False) -> Iterator[Path]:
    """Make the directory of a model that is there whole or not at all; yields the local directory to write it in.

    On disk one rename makes it appear. A store has no rename of many files: all but `MARKER` are sent, read back and
    compared; then that is. What a killed process has sent without it is no version, and is replaced.

    Args:
        place: The directory.
        replace: Whether a version that stands there is replaced.

    Raises:
        UserError: the model has no `MARKER`, what is read back is not what was sent, the name is taken, or the store
            refuses. What was sent is removed then.
        OSError: the directory cannot be written, or its name is taken.
    """
    if not is_remote(place):
        with new_directory(local_path(place, "the version"), replace) as unfinished:
            yield unfinished
            _check_marker(unfinished, place)
        return
    if not replace and exists(join(place, MARKER)):
        raise UserError(f"{place}: exists already")
    with tempfile.TemporaryDirectory(prefix="tfctr-") as temporary:
        yield Path(temporary)
        _check_marker(Path(temporary), place)
        try:
            discard(str(place))
            send(Path(temporary), str(place))
        except BaseException as error:
            try:
                discard(str(place))
            except UserError as another:
                raise UserError(f"{error}; what was sent could not be removed: {another}") from error
            raise


def discard(place: str) -> None:
    """Remove the directory of a model from a store: its `MARKER` first, so that no reader takes the rest for one."""
    there = files(place)
    remove_files(place, [name for name in there if name == MARKER])
    remove_files(place, there)


def _check_marker(directory: Path, place: str | Path) -> None:
    if not (directory / MARKER).is_file():
        raise UserError(f"{place}: not written; what should be there is no SavedModel: it has no {MARKER}")


def send(directory: Path, place: str) -> None:
    """Send the files of a model, `MARKER` at the end, and read each of them back.

    Raises:
        UserError: what is read back is not what was sent, or the store refuses.
    """
    here = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    for name in sorted(here, key=lambda name: (name == MARKER, name)):
        send_file(directory / name, join(place, name))
    if missing := sorted(here - set(files(place))):
        raise DiskError(f"{place}: not written; after sending, the store does not list {', '.join(missing[:3])}")


def send_file(path: Path, place: str) -> None:
    """Send a file and read it back.

    Raises:
        UserError: what is read back is not what was sent, or the store refuses. What is there is removed, if it can be.
    """
    system, target_path = _at(place)
    with _store_errors(place):
        if has_folders(scheme_of(place)):
            system.makedirs(target_path.rpartition("/")[0], exist_ok=True)
        with path.open("rb") as source, system.open(target_path, "wb") as target:
            while block := source.read(_BLOCK):
                target.write(block)
        with path.open("rb") as source, system.open(target_path, "rb") as target:
            if _digest(source) != _digest(target):
                with suppress(Exception):
                    system.rm_file(target_path)
                raise DiskError(f"{place}: not written; what the store gives back is not what was sent")


def remove_files(place: str, which: Iterable[str]) -> None:
    """Remove files below a place of a store; those that are not there are passed by."""
    system, path = _at(place)
    there = set(files(place))
    with _store_errors(place):
        for name in there.intersection(which):
            system.rm_file(f"{path}/{name}")


def digest(directory: Path) -> str:
    """A digest of the names and contents of all files of a local directory."""
    found = hashlib.sha256()
    for path in sorted(one for one in directory.rglob("*") if one.is_file()):
        found.update(path.relative_to(directory).as_posix().encode())
        with path.open("rb") as content:
            found.update(_digest(content))
    return found.hexdigest()


def _fetch(place: str, copy: Path, only: Sequence[str] | None) -> None:
    system, path = _at(place)
    if only is None and system.isfile(path):
        _fetch_file(system, path, copy)
        return
    there = files(place) if only is None else [name for name in only if system.exists(f"{path}/{name}")]
    if only is None and not there:
        raise FileNotFoundError(place)
    copy.mkdir()
    for name in there:
        _fetch_file(system, f"{path}/{name}", copy / name)


def _fetch_file(system: Any, path: str, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with system.open(path, "rb") as source, copy.open("wb") as target:
        while block := source.read(_BLOCK):
            target.write(block)


def _digest(file: Any) -> bytes:
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.digest()


def _path(place: str | Path) -> Path:
    """The path of a local place."""
    return Path(re.sub("^file://+", "/", str(place)))


def _at(place: str | Path) -> tuple[Any, str]:
    """The file system of a place, and the place as that calls it."""
    scheme = scheme_of(str(place))
    system = file_system(scheme)
    return system, path_on(system, scheme, str(place) if scheme else str(_path(place)))


@contextmanager
def _store_errors(place: str | Path) -> Iterator[None]:
    """Turn what a store raises into a `DiskError` that names the place; errors of the disk stay what they are."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        if not is_remote(place):
            raise
        raise DiskError(f"{place}: not there (no such file, folder or bucket)") from error
    except Exception as error:  # botocore, aiohttp, TensorFlow and fsspec each have errors of their own
        if not is_remote(place):
            raise
        raise DiskError(f"{place}: the store refuses: {' '.join(str(error).split())[:300]}") from error
