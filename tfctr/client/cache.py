"""Where states are kept between requests: the interface, and a cache in this process."""

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict

from tfctr.client.counts import Counts
from tfctr.client.errors import BadRequestError
from tfctr.client.state import StateKey, UserState

TTL_SPREAD = 0.1
"""Part of their TTL by which states expire earlier, some more and some less."""


def lifetime(key: StateKey, ttl_seconds: float) -> float:
    """Seconds to keep a state: its TTL or up to a tenth less, as the key's hash says.

    States that are put in one burst, as after a new version, would otherwise expire and be computed again in one.
    """
    hashed = int.from_bytes(key.digest[:4]) / 2**32
    return ttl_seconds * (1 - TTL_SPREAD * hashed)


class StateCache(ABC):
    """A place for states, for both clients. It may forget anything at any time.

    The key holds the version, the fingerprint of its signatures and the user's history version, so a new model or a
    new event is another key: nothing has to be flushed. Implementations are thread safe. What they raise is logged,
    counted and taken for a miss.

    Attributes:
        blocking: whether a call may take longer than a look into memory. Then it runs in a thread, and the client
            waits no longer than its request's time allows.
        awaits: whether there are coroutines of the same names with an "a" before them (`aget`, `aput`, `ainvalidate`,
            `aforget_user`, `aclose`), which the asyncio client takes instead of threads.
    """

    blocking = True
    awaits = False

    def __init__(self) -> None:
        self._counts = Counts()

    @abstractmethod
    def get(self, key: StateKey) -> UserState | None:
        """The state, or `None`."""

    @abstractmethod
    def put(self, key: StateKey, state: UserState) -> None:
        """Keeps the state, if it can."""

    @abstractmethod
    def invalidate(self, key: StateKey) -> None:
        """Forgets the state, if it can."""

    @abstractmethod
    def forget_user(self, model: str, user_key: str) -> None:
        """Forgets all states of a user, or raises an error: someone may have been promised that they are gone."""

    def close(self) -> None:
        """Gives back what the cache holds open."""
        return

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far: `hit`, `miss`, `put`, and what the implementation adds."""
        return self._counts.snapshot()


class MemoryStateCache(StateCache):
    """Least-recently-used states of this process, bounded in number, bytes and age.

    Args:
        max_entries: states kept.
        max_bytes: bytes of their tensors.
        ttl_seconds: age at which a state is dropped at the latest; see `lifetime`.
    """

    blocking = False

    def __init__(self, max_entries: int = 10_000, max_bytes: int = 256 << 20, ttl_seconds: float = 600.0):
        super().__init__()
        if min(max_entries, max_bytes, ttl_seconds) <= 0:
            raise BadRequestError("max_entries, max_bytes and ttl_seconds of a state cache must be positive.")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._lock = threading.Lock()
        self._entries: OrderedDict[StateKey, tuple[float, UserState]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: StateKey) -> UserState | None:
        """The state if it is here and young enough."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0] <= time.monotonic():
                self._remove(key)
                found = None
            if found is not None:
                self._entries.move_to_end(key)
        self._counts.add("miss" if found is None else "hit")
        return None if found is None else found[1]

    def put(self, key: StateKey, state: UserState) -> None:
        """Keeps the state and drops the least recently used ones past the bounds."""
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

    def invalidate(self, key: StateKey) -> None:
        """Forgets the state."""
        with self._lock:
            self._remove(key)

    def forget_user(self, model: str, user_key: str) -> None:
        """Forgets the states of a user, of all versions."""
        with self._lock:
            for key in [key for key in self._entries if (key.model, key.user_key) == (model, user_key)]:
                self._remove(key)

    def _remove(self, key: StateKey) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1].nbytes
