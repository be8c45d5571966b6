"""A cache as requests use it: within their time, and without its errors."""

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
"""Part of a request's time that one look into a blocking cache may take."""


class Shelf:
    """Asks a cache. One that fails, is late or hangs in every thread is a miss, and counted.

    Args:
        cache: the cache, or `None` for none.
        driver: runs a blocking cache in threads.
        counts: `cache_failed`, `cache_late` and `cache_busy` are counted there.
    """

    def __init__(self, cache: StateCache | None, driver: Driver, counts: Counts):
        self.cache = cache
        self._driver = driver
        self._counts = counts
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}  # thread -> when nobody waits for it any more

    async def get(self, key: StateKey, deadline: Deadline) -> UserState | None:
        """The state, or `None`."""
        found: UserState | None = await self._call("get", key, deadline=deadline)
        return found

    async def put(self, key: StateKey, state: UserState, deadline: Deadline) -> None:
        """Keeps the state, if it can."""
        await self._call("put", key, state, deadline=deadline)

    async def invalidate(self, key: StateKey, deadline: Deadline) -> None:
        """Forgets the state, if it can."""
        await self._call("invalidate", key, deadline=deadline)

    async def forget_user(self, model: str, user_key: str, deadline: Deadline) -> None:
        """Forgets a user, or raises what the cache raises.

        Raises:
            DeadlineError: the cache did not say in time that it did.
        """
        if self.cache is None:
            return
        started = self._start("forget_user", model, user_key)
        await self._driver.wait([started], deadline.left)
        if not started.done():
            raise DeadlineError(f"the cache did not say within {deadline.seconds:g} s that it forgot the user.")
        started.result()

    async def close(self) -> None:
        """Closes the cache."""
        cache: Any = self.cache
        if self._awaits:
            await cache.aclose()
        elif cache is not None:
            cache.close()

    @property
    def _awaits(self) -> bool:
        return self._driver.awaits and self.cache is not None and self.cache.awaits

    def _start(self, name: str, *arguments: Any, until: float = math.inf) -> Future:
        """Begins a call of the cache; one that still stands in line at `until` is not made."""
        if self._awaits:
            return self._driver.start_task(getattr(self.cache, f"a{name}")(*arguments))
        method = getattr(self.cache, name)

        def work() -> Any:
            me = threading.get_ident()
            if time.monotonic() > until:
                return None
            with self._lock:
                self._running[me] = until
            try:
                return method(*arguments)
            finally:
                with self._lock:
                    del self._running[me]

        return self._driver.start_thread(work)

    async def _call(self, name: str, *arguments: Any, deadline: Deadline) -> Any:
        if self.cache is None:
            return None
        try:
            if not self.cache.blocking:
                return getattr(self.cache, name)(*arguments)
            seconds = deadline.left * CACHE_SHARE
            now = time.monotonic()
            with self._lock:
                hung = len(self._running) == CACHE_THREADS and max(self._running.values()) < now
            if hung:  # a cache that hangs takes the time of those who came first, not of everyone
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
