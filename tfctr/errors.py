"""The exception for errors that users cause and can fix."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """An expected error, shown without a traceback. The message says what is wrong, where, and what is allowed.

    The command line prints it as `error: ...` and exits with status 2.
    """

    # Keras adds the arguments of a layer's call to the message of every error that has no such attribute.
    _keras_call_info_injected = True


class DiskError(UserError):
    """Something can't be written or read back, whatever an experiment says: a full disk, a damaged checkpoint."""


class DataError(UserError):
    """The data is none that an experiment can be judged on, whatever the experiment says."""


@contextmanager
def user_errors(where: str) -> Iterator[None]:
    """Turns a ValueError or TypeError, which is about an argument, into a `UserError` that starts with `where`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns an OSError while something is written (a full disk, no permission) into a `DiskError` that names it."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}") from error
