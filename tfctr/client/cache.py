"""Caches of user states: the interface, and a cache in the memory of this process."""

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict

from typing_extensions import override

from tfctr.client.counts import Counts
from tfctr.client.errors import BadRequestError
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
    event therefore makes a new key, and the cache never has to be flushed. Implementations must be thread safe. An
    error of `get`, `put` or `invalidate` is logged, counted and treated as a miss.

    Attributes:
        blocking: whether a call may take longer than a look-up in memory. The client runs such calls in threads and
            waits for them for a share of the request's time only.
        asynchronous: whether the cache also has the coroutines `aget`, `aput`, `ainvalidate`, `aforget_user` and
            `aclose`, which the asyncio client then awaits instead of using threads.
    """

    blocking = True
    asynchronous = False

    def __init__(self) -> None:
        self._counts = Counts()

    @abstractmethod
    def get(self, key: StateKey) -> UserState | None:
        """The cached state, or `None`."""

    @abstractmethod
    def put(self, key: StateKey, state: UserState) -> None:
        """Stores the state, if possible."""

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
        """Events so far: `hit`, `miss`, `put`, and those that the implementation adds."""
        return self._counts.snapshot()


class MemoryStateCache(StateCache):
    """A least-recently-used cache in the memory of this process, bounded in entries, bytes and age.

    Args:
        max_entries: the most states that are kept.
        max_bytes: the most bytes that their tensors may take.
        ttl_seconds: age at which a state expires at the latest; see `lifetime`.
    """

    blocking = False

    def __init__(self, max_entries: int = 10_000, max_bytes: int = 256 << 20, ttl_seconds: float = 600.0):
        super().__init__()
        if min(max_entries, max_bytes, ttl_seconds) <= 0:
            raise BadRequestError(
                "max_entries, max_bytes and ttl_seconds of a state cache must be positive. "
                f"Received: {max_entries}, {max_bytes}, {ttl_seconds}"
            )
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._lock = threading.Lock()
        self._entries: OrderedDict[StateKey, tuple[float, UserState]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @override
    def get(self, key: StateKey) -> UserState | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0] <= time.monotonic():
                self._remove(key)
                found = None
            if found is not None:
                self._entries.move_to_end(key)
        self._counts.add("miss" if found is None else "hit")
        return None if found is None else found[1]

    @override
    def put(self, key: StateKey, state: UserState) -> None:
        with self._lock:
            self._remove(key)
            self._entries[key] = (time.monotonic() + lifetime(key, self._ttl), state)
            self._bytes += state.nbytes
            evicted = 0
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))
                evicted += 1
        self._counts.add("put")
        self._counts.add("evicted", evicted)

    @override
    def invalidate(self, key: StateKey) -> None:
        with self._lock:
            self._remove(key)

    @override
    def forget_user(self, model: str, user_key: str) -> None:
        with self._lock:
            for key in [key for key in self._entries if (key.model, key.user_key) == (model, user_key)]:
                self._remove(key)

    def _remove(self, key: StateKey) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1].nbytes
