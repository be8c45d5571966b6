"""The state of a user, as `user_tower` made it, and what names it in a cache."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from tfctr.client.codec import Array


@dataclass(frozen=True)
class UserState:
    """What `score` needs to know of a user.

    Attributes:
        model: model name.
        version: the version that made it; only that version may score it.
        fingerprint: hash of that version's signatures.
        tensors: outputs of `user_tower` by name, each `[1, ...]`, read-only.
    """

    model: str
    version: int
    fingerprint: str
    tensors: Mapping[str, Array]

    def __post_init__(self) -> None:
        for tensor in self.tensors.values():
            tensor.setflags(write=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class StateKey:
    """What a cached state depends on.

    Attributes:
        model: model name.
        version: served version.
        fingerprint: hash of that version's signatures.
        user_key: the user.
        history_version: changes with every new event of the user (a counter, or the time of the newest event).
    """

    model: str
    version: int
    fingerprint: str
    user_key: str
    history_version: str

    @property
    def digest(self) -> bytes:
        """16 bytes that stand in a record: a value filed under the wrong key is not taken for another user's."""
        parts = (self.model, str(self.version), self.fingerprint, self.user_key)
        return _digest(":".join(map(quoted, parts)))

    @property
    def history_digest(self) -> bytes:
        """16 bytes for the history version: a record of an older history is told from garbage."""
        return _digest(self.history_version)


def quoted(part: str) -> str:
    """A part of a key, so that no part can hold the separator and run into the next."""
    return quote(part, safe="", errors="surrogatepass")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
