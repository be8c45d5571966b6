"""The state of a user, which `user_tower` computes, and its key in a cache."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from tfctr.client.codec import Array


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


def quoted(part: str) -> str:
    """A part of a key in which the separator `:` is escaped, so that different keys never become the same text."""
    return quote(part, safe="", errors="surrogatepass")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
