"""The file system behind an address: the disk, what TensorFlow opens itself, and whatever fsspec knows."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from typing_extensions import override

from tfctr.errors import UserError

_BY_TENSORFLOW = ("gs", "ram")
"""Opened as TensorFlow, TFX and TensorFlow Serving open them, so that all of them see the same."""
_OTHER_NAMES = {"minio": "s3"}
"""Kubeflow's name for an S3 store whose endpoint is given to the client."""
_BUCKETS = ("s3", "minio", "gs")
"""Stores without folders. A bucket that is not there is a mistake, and not something to make."""
_WITHIN_A_PROCESS = ("ram", "memory")
"""Stores whose content is gone with the process."""
_MISTYPED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(/(?!/)|\\).*", re.DOTALL)
"""An address with one slash, as `pathlib` makes of two, or a path of Windows: on disk each would be a new folder."""
_ALLOWED = "a local path, gs://, s3://, minio://, ram:// (within one process), or another that fsspec knows"


def scheme_of(place: str) -> str:
    """The scheme of an address; empty for a local path.

    Raises:
        UserError: the text is neither, such as an address with one slash, or one that names no bucket.
    """
    scheme, separator, rest = place.partition("://")
    if not place or _MISTYPED.fullmatch(place):
        raise UserError(f"'{place}': is neither a path nor an address. Allowed: {_ALLOWED}")
    if not separator or "/" in scheme:
        return ""
    if scheme == "file":
        if not rest.startswith("/"):
            raise UserError(f"{place}: a local path in this form has three slashes, file:///models")
        return ""
    if not rest.strip("/"):
        raise UserError(f"{place}: names no bucket or folder")
    return scheme


def lasts(scheme: str) -> bool:
    """Whether what is written to a store is there after the process has ended."""
    return scheme not in _WITHIN_A_PROCESS


@cache
def file_system(scheme: str) -> fsspec.AbstractFileSystem:
    """The file system of a scheme.

    S3 clients find endpoint, region and keys as all of Amazon's clients do: profile files, `AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID` and the like.

    Raises:
        UserError: nobody knows the scheme, or its package is missing.
    """
    if not scheme:
        return LocalFileSystem()
    if scheme in _BY_TENSORFLOW:
        return _TensorflowFileSystem()
    try:
        return fsspec.filesystem(_OTHER_NAMES.get(scheme, scheme), use_listings_cache=False)
    except ValueError:
        raise UserError(f"{scheme}://: no store has this scheme. Allowed: {_ALLOWED}") from None
    except ImportError as error:
        hint = "pip install 'tfctr[s3]'" if _OTHER_NAMES.get(scheme, scheme) == "s3" else f"install {error.name}"
        raise UserError(f"{scheme}://: its package is not installed; {hint}") from None


def has_folders(scheme: str) -> bool:
    """Whether a folder must be made before a file is written into it."""
    return scheme not in _BUCKETS


def path_on(system: fsspec.AbstractFileSystem, scheme: str, place: str) -> str:
    """A place as its file system calls it, without a slash at the end."""
    known = f"{_OTHER_NAMES.get(scheme, scheme)}://{place.partition('://')[2]}" if scheme else place
    return str(system._strip_protocol(known)).rstrip("/")


class _TensorflowFileSystem(fsspec.AbstractFileSystem):
    """`tf.io.gfile`, with whole addresses as its paths."""

    protocol = _BY_TENSORFLOW
    cachable = False

    @classmethod
    @override
    def _strip_protocol(cls, path: str) -> str:
        return path

    @override
    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        if not self._files.isdir(path):
            return [self.info(path) if detail else path]
        found = [f"{path.rstrip('/')}/{name.rstrip('/')}" for name in self._files.listdir(path)]
        if path.startswith("ram://"):  # which takes `assets.extra` for a file `.extra` in `assets`
            found = [one for one in found if self._files.exists(one)]
        return [self.info(one) for one in found] if detail else found

    @override
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        import tensorflow as tf

        try:
            about = tf.io.gfile.stat(path)
        except tf.errors.NotFoundError:
            raise FileNotFoundError(path) from None
        kind = "directory" if about.is_directory else "file"
        return {"name": path, "size": about.length, "type": kind, "modified": about.mtime_nsec}

    @override
    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "wb" and path.startswith("ram://") and self._files.exists(path):
            self._files.remove(path)  # it would be added to
        return self._files.GFile(path, mode)

    @override
    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._files.makedirs(path)

    @override
    def rm_file(self, path: str) -> None:
        self._files.remove(path)

    @property
    def _files(self) -> Any:
        import tensorflow as tf

        return tf.io.gfile
