"""Caches of user states: their interface, and a cache in the memory of this process."""

import threading
import time
from abc import ABC, abstractmethod

from cachetools import TLRUCache
from typing_extensions import override

from tfctr.client.policies import number, whole
from tfctr.client.state import StateKey, UserState

TTL_SPREAD = 0.1
"""A state expires earlier than its TTL by up to this share of it."""


def lifetime(key: StateKey, ttl_seconds: float) -> float:
    """Seconds to keep a state: its TTL, shortened by up to a tenth. The hash of the key decides by how much.

    States that are stored at the same time, as after the release of a new version, therefore expire at different times
    and are not all computed again at once.
    """
    hashed = int.from_bytes(key.digest[:4]) / 2**32
    return ttl_seconds * (1 - TTL_SPREAD * hashed)


class StateCache(ABC):
    """A cache of user states, for both clients. It may drop any state at any time.

    The key includes the version, the fingerprint of its signatures and the user's history version. A new model or a new
    event therefore makes a new key, and the cache never has to be flushed. Implementations must be thread safe.

    The client guards every cache. A call that raises an error or is late is logged, counted and treated as a miss, and
    after some in a row of one method the cache is not called for a while. An error thus means that the cache does not
    work; for a single record that cannot be read or written, `get` returns `None` and `put` returns `False`.

    Attributes:
        blocking: whether a call may take longer than a look-up in memory. The client runs such calls in threads and
            waits for them for a share of the request's time only.
        asynchronous: whether the cache is an `AsyncStateCache`.
        failures: the cache is left alone after this many failures of one method (`get`, `put`, ...) in a row.
        pause_seconds: how long it is left alone.
    """

    blocking = True
    asynchronous = False
    failures = 3
    pause_seconds = 1.0

    @abstractmethod
    def get(self, key: StateKey) -> UserState | None:
        """The cached state, or `None`."""

    @abstractmethod
    def put(self, key: StateKey, state: UserState) -> bool | None:
        """Stores the state, if possible. `False` says that it was not stored, and is then not counted as a put."""

    @abstractmethod
    def invalidate(self, key: StateKey) -> None:
        """Removes the state, if possible."""

    @abstractmethod
    def forget_user(self, model: str, user_key: str) -> None:
        """Removes all states of a user. Raises an error if that fails, because a caller may have promised it."""

    def close(self) -> None:
        """Closes the connections of the cache, if it has any."""
        return

    @property
    def counts(self) -> dict[str, int]:
        """Events that only the cache knows of, by name. The client counts hits, misses and failures itself."""
        return {}


class AsyncStateCache(StateCache):
    """A state cache with coroutines, which the asyncio client awaits in place of the other methods."""

    asynchronous = True

    @abstractmethod
    async def aget(self, key: StateKey) -> UserState | None:
        """The cached state, or `None`."""

    @abstractmethod
    async def aput(self, key: StateKey, state: UserState) -> bool | None:
        """Stores the state, as `put`."""

    @abstractmethod
    async def ainvalidate(self, key: StateKey) -> None:
        """Removes the state, if possible."""

    @abstractmethod
    async def aforget_user(self, model: str, user_key: str) -> None:
        """Removes all states of a user, or raises an error."""

    async def aclose(self) -> None:
        """Closes the connections of the cache, those of the other methods too."""
        self.close()


class _Entries(TLRUCache[StateKey, UserState]):
    """States by key, which counts those that it drops for want of room."""

    evicted = 0

    @override
    def popitem(self) -> tuple[StateKey, UserState]:
        self.evicted += 1
        return super().popitem()


class MemoryStateCache(StateCache):
    """A least-recently-used cache in the memory of this process, bounded in entries, bytes and age.

    A state that is larger than the whole cache is not kept.

    Args:
        max_entries: the most states that are kept.
        max_bytes: the most bytes that their tensors may take. A state counts as at least a fair share of them,
            `max_bytes / max_entries`.
        ttl_seconds: age at which a state expires at the latest; see `lifetime`.

    Raises:
        BadRequestError: an argument is not positive.
    """

    blocking = False

    def __init__(self, max_entries: int = 10_000, max_bytes: int = 256 << 20, ttl_seconds: float = 600.0):
        whole("max_entries of a state cache", max_entries, 1)
        whole("max_bytes of a state cache", max_bytes, 1)
        number("ttl_seconds of a state cache", ttl_seconds)
        self._lock = threading.Lock()
        self._too_large = 0
        share = max_bytes / max_entries
        self._entries = _Entries(
            max_bytes,
            ttu=lambda key, _, now: now + lifetime(key, ttl_seconds),
            timer=lambda: time.monotonic(),
            getsizeof=lambda state: max(state.nbytes, share),
        )

    def __len__(self) -> int:
        with self._lock:
            self._entries.expire()
            return len(self._entries)

    @property
    @override
    def counts(self) -> dict[str, int]:
        """States that were dropped for want of room (`evicted`), and that were too large to keep (`unstorable`)."""
        with self._lock:
            return {"evicted": self._entries.evicted, "unstorable": self._too_large}

    @override
    def get(self, key: StateKey) -> UserState | None:
        with self._lock:
            return self._entries.get(key)

    @override
    def put(self, key: StateKey, state: UserState) -> bool | None:
        with self._lock:
            try:
                self._entries[key] = state
            except ValueError:  # larger than the whole cache
                self._too_large += 1
                return False
        return True

    @override
    def invalidate(self, key: StateKey) -> None:
        with self._lock:
            self._entries.pop(key, None)

    @override
    def forget_user(self, model: str, user_key: str) -> None:
        with self._lock:
            for key in [key for key in self._entries if (key.model, key.user_key) == (model, user_key)]:
                self._entries.pop(key, None)
