"""The state of a user, which `user_tower` computes, and its key in a cache."""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from tfctr.client.codec import Array
from tfctr.client.errors import BadRequestError
from tfctr.client.values import shown

UserKey = str | int | bytes
"""What identifies a user. A whole number, its digits as text and their UTF-8 bytes are the same user."""

HistoryVersion = str | int | float
"""What changes with every new event of a user: a counter, or the time of the newest event."""


@dataclass(frozen=True)
class UserState:
    """The state of a user, which `score` takes as input.

    Attributes:
        version: the version that computed the state; only this version may score it.
        fingerprint: hash of the signatures of that version.
        tensors: the outputs of `user_tower` by name, each `[1, ...]`, read-only.
        created: when it was computed, in seconds since 1970.
    """

    model: str
    version: int
    fingerprint: str
    tensors: Mapping[str, Array]
    created: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        for tensor in self.tensors.values():
            tensor.setflags(write=False)

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class StateKey:
    """The key of a cached state: everything that the state depends on.

    Attributes:
        fingerprint: hash of the signatures of that version.
        history_version: changes with every new event of the user (a counter, or the time of the newest event).
    """

    model: str
    version: int
    fingerprint: str
    user_key: str
    history_version: str

    def is_of(self, state: UserState) -> bool:
        """Whether the version of the key computed the state."""
        return (state.model, state.version, state.fingerprint) == (self.model, self.version, self.fingerprint)

    @property
    def digest(self) -> bytes:
        """A hash of 16 bytes in each record, so that a record under the wrong key is never used for another user."""
        parts = (self.model, str(self.version), self.fingerprint, self.user_key)
        return _digest(":".join(map(quoted, parts)))

    @property
    def history_digest(self) -> bytes:
        """A hash of 16 bytes of the history version, which tells a record of an older history from an invalid one."""
        return _digest(self.history_version)


def user_text(user_key: UserKey) -> str:
    """A user's key as it stands in a `StateKey`.

    Raises:
        BadRequestError: it is of another type, whose text need not be the same for each request of the user, or need
            not differ from the text of another user.
    """
    if isinstance(user_key, bytes):
        return user_key.decode(errors="surrogateescape")
    return _plain_text("user_key", user_key, "text, a whole number or bytes")


def history_text(history_version: HistoryVersion) -> str:
    """A history version as it stands in a `StateKey`.

    Raises:
        BadRequestError: it is of another type, or not finite.
    """
    allowed = "text, a whole number or a finite float"
    if isinstance(history_version, float) and math.isfinite(history_version):
        return repr(float(history_version))
    return _plain_text("history_version", history_version, allowed)


def _plain_text(name: str, value: Any, allowed: str) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        try:
            return str(int(value))
        except ValueError:  # Python does not write out an integer of more than 4300 digits
            pass
    raise BadRequestError(
        f"{name} must be {allowed}. Convert it first, such as str(uuid). "
        f"Received: {shown(value)} ({type(value).__name__})"
    )


def quoted(part: str) -> str:
    """A part of a key in which the separator `:` is escaped, so that different keys never become the same text."""
    return quote(part, safe="", errors="surrogatepass")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
