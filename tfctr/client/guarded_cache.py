"""A wrapper around the state cache, which keeps its failures and delays away from requests."""

import logging
import math
import threading
import time
from typing import Any

from tfctr.client.cache import StateCache
from tfctr.client.counts import Counts
from tfctr.client.drivers import CACHE_THREADS, Driver, Future
from tfctr.client.errors import DeadlineError
from tfctr.client.state import StateKey, UserState
from tfctr.client.transport import Deadline

logger = logging.getLogger("tfctr.client")

CACHE_SHARE = 0.25
"""Share of a request's remaining time that one call of a blocking cache may take."""


class GuardedCache:
    """Asks a state cache, if there is one. A cache that raises an error, is late or hangs counts as a miss.

    The driver runs the calls of a blocking cache in threads. Counts `cache_failed`, `cache_late` and `cache_busy`.
    """

    def __init__(self, cache: StateCache | None, driver: Driver, counts: Counts):
        self._cache = cache
        self._driver = driver
        self._counts = counts
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}  # thread -> the time after which no request waits for its call

    @property
    def counts(self) -> dict[str, int]:
        """The cache's own counts, each name prefixed with `cache_`."""
        return {} if self._cache is None else {f"cache_{what}": times for what, times in self._cache.counts.items()}

    async def get(self, key: StateKey, deadline: Deadline) -> UserState | None:
        """The cached state, or `None`."""
        found: UserState | None = await self._call("get", key, deadline=deadline)
        return found

    async def put(self, key: StateKey, state: UserState, deadline: Deadline) -> None:
        """Stores the state if the cache works."""
        await self._call("put", key, state, deadline=deadline)

    async def invalidate(self, key: StateKey, deadline: Deadline) -> None:
        """Removes the state if the cache works."""
        await self._call("invalidate", key, deadline=deadline)

    async def forget_user(self, model: str, user_key: str, deadline: Deadline) -> None:
        """Removes all states of a user. Errors of the cache are raised, not counted.

        Raises:
            DeadlineError: the cache did not confirm the removal in time.
        """
        if self._cache is None:
            return
        started = self._start("forget_user", model, user_key)
        await self._driver.wait([started], deadline.left)
        if not started.done():
            raise DeadlineError(f"the cache did not say within {deadline.seconds:g} s that it forgot the user.")
        started.result()

    async def close(self) -> None:
        """Closes the cache."""
        cache: Any = self._cache
        if self._asynchronous:
            await cache.aclose()
        elif cache is not None:
            cache.close()

    @property
    def _asynchronous(self) -> bool:
        return self._driver.asynchronous and self._cache is not None and self._cache.asynchronous

    def _start(self, name: str, *arguments: Any, until: float = math.inf) -> Future:
        """Begins a call of the cache. A call that is still queued for a thread at the time `until` is not made."""
        if self._asynchronous:
            return self._driver.start_task(getattr(self._cache, f"a{name}")(*arguments))
        method = getattr(self._cache, name)

        def work() -> Any:
            thread = threading.get_ident()
            if time.monotonic() > until:
                return None
            with self._lock:
                self._running[thread] = until
            try:
                return method(*arguments)
            finally:
                with self._lock:
                    del self._running[thread]

        return self._driver.start_thread(work)

    async def _call(self, name: str, *arguments: Any, deadline: Deadline) -> Any:
        if self._cache is None:
            return None
        try:
            if not self._cache.blocking:
                return getattr(self._cache, name)(*arguments)
            seconds = deadline.left * CACHE_SHARE
            now = time.monotonic()
            with self._lock:
                hung = len(self._running) == CACHE_THREADS and max(self._running.values()) < now
            if hung:  # every thread is stuck in a call that nobody waits for any more: more waiting would be in vain
                self._counts.add("cache_busy")
                return None
            started = self._start(name, *arguments, until=now + seconds)
            await self._driver.wait([started], seconds)
            if started.done():
                return started.result()
            started.cancel()
            self._counts.add("cache_late")
        except Exception as error:
            self._counts.add("cache_failed")
            logger.warning("the state cache failed (%s: %s)", type(error).__name__, error)
        return None
