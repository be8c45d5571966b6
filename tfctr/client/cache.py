"""Where states are kept between requests: in this process, or in Redis for several."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from typing import Any

from tfctr.client.errors import BadRequestError, CodecError
from tfctr.client.state import StateKey, UserState, from_bytes, to_bytes

logger = logging.getLogger("tfctr.client")


class StateCache(ABC):
    """A place for states. It may forget anything at any time, and never fails a request.

    The key holds the version, the fingerprint of its signatures and the user's history version, so a new model or a
    new event is another key: nothing has to be flushed. Implementations are thread safe.
    """

    def __init__(self) -> None:
        self._counts_lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @abstractmethod
    def get(self, key: StateKey) -> UserState | None:
        """The state, or `None`."""

    @abstractmethod
    def put(self, key: StateKey, state: UserState) -> None:
        """Keeps the state, if it can."""

    @abstractmethod
    def invalidate(self, key: StateKey) -> None:
        """Forgets the state, if it can."""

    def close(self) -> None:
        """Gives back what the cache holds open."""
        return

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far: `hit`, `miss`, `put`, and what the implementation adds."""
        with self._counts_lock:
            return dict(self._counts)

    def _count(self, what: str, by: int = 1) -> None:
        with self._counts_lock:
            self._counts[what] += by


class MemoryStateCache(StateCache):
    """Least-recently-used states of this process, bounded in number, bytes and age.

    Args:
        max_entries: states kept.
        max_bytes: bytes of their tensors.
        ttl_seconds: age at which a state is dropped.
    """

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
        self._count("miss" if found is None else "hit")
        return None if found is None else found[1]

    def put(self, key: StateKey, state: UserState) -> None:
        """Keeps the state and drops the least recently used ones past the bounds."""
        with self._lock:
            self._remove(key)
            self._entries[key] = (time.monotonic() + self._ttl, state)
            self._bytes += state.nbytes
            evicted = 0
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))
                evicted += 1
        self._count("put")
        self._count("evicted", evicted)

    def invalidate(self, key: StateKey) -> None:
        """Forgets the state."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: StateKey) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1].nbytes


class RedisStateCache(StateCache):
    """States in Redis, shared by all clients. A Redis that is down, slow or holds garbage is a miss, and counted.

    redis-py's own retries make one call to a dead server take four seconds; they are off here. After a few failures in
    a row Redis is left alone for a moment, so that a hung one costs its timeout once and not on every request.

    Args:
        url: `redis://host:port/0`, `rediss://` (TLS) or `unix://path`.
        ttl_seconds: age at which Redis drops a state.
        timeout_seconds: longest wait for one answer, and for a connection.
        prefix: what the keys begin with.
        failures: that many in a row open the pause.
        pause_seconds: how long Redis is left alone.

    Raises:
        BadRequestError: redis-py is not installed, or the URL is malformed.
    """

    def __init__(
        self,
        url: str,
        ttl_seconds: float = 600.0,
        timeout_seconds: float = 0.02,
        prefix: str = "tfctr:state",
        failures: int = 3,
        pause_seconds: float = 1.0,
    ):
        super().__init__()
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise BadRequestError("a Redis cache needs redis-py. Install it with: pip install 'tfctr[redis]'") from None
        if min(ttl_seconds, timeout_seconds, failures) <= 0 or pause_seconds < 0:
            raise BadRequestError("ttl_seconds, timeout_seconds and failures of a Redis cache must be positive.")
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
            )
        except ValueError as error:
            raise BadRequestError(f"Redis URL: {error}") from None
        self._failure_types = (redis.RedisError, OSError, ValueError)
        self._ttl_ms = max(1, int(ttl_seconds * 1000))
        self._prefix = prefix
        self._allowed_failures = failures
        self._pause = pause_seconds
        self._failed = 0
        self._closed_until = 0.0

    def get(self, key: StateKey) -> UserState | None:
        """The state if Redis answers in time with what was put there under this very key."""
        payload = self._try("get", key.text(self._prefix))
        state = None
        if isinstance(payload, bytes):
            state = from_bytes(key, payload)
            if state is None:
                self._count("garbage")
                logger.warning("a cached state of %s is garbage; computing it again", key.model)
        self._count("miss" if state is None else "hit")
        return state

    def put(self, key: StateKey, state: UserState) -> None:
        """Sends the state to Redis."""
        try:
            payload = to_bytes(key, state)
        except CodecError:
            self._count("unstorable")
            return
        if self._try("set", key.text(self._prefix), payload, px=self._ttl_ms):
            self._count("put")

    def invalidate(self, key: StateKey) -> None:
        """Deletes the state from Redis."""
        self._try("delete", key.text(self._prefix))

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def _try(self, command: str, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() < self._closed_until:
            self._count("skipped")
            return None
        try:
            answer = getattr(self._redis, command)(*arguments, **options)
        except self._failure_types as error:
            self._count("error")
            with self._counts_lock:
                self._failed += 1
                pause = self._failed >= self._allowed_failures
                if pause:
                    self._failed = 0
                    self._closed_until = time.monotonic() + self._pause
            if pause:
                logger.warning("Redis fails (%s); leaving it alone for %g s", error, self._pause)
            return None
        with self._counts_lock:
            self._failed = 0
        return answer
