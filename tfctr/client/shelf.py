"""A cache as requests use it: within their time, and without its errors."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tfctr.client.cache import StateCache
from tfctr.client.counts import Counts
from tfctr.client.drivers import CACHE_THREADS, Driver
from tfctr.client.errors import DeadlineError
from tfctr.client.state import StateKey, UserState
from tfctr.client.transport import Deadline

logger = logging.getLogger("tfctr.client")

CACHE_SHARE = 0.25
"""Part of a request's time that one look into a blocking cache may take."""

T = TypeVar("T")


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
        cache = self.cache
        return None if cache is None else await self._call(lambda: cache.get(key), deadline)

    async def put(self, key: StateKey, state: UserState, deadline: Deadline) -> None:
        """Keeps the state, if it can."""
        cache = self.cache
        if cache is not None:
            await self._call(lambda: cache.put(key, state), deadline)

    async def invalidate(self, key: StateKey, deadline: Deadline) -> None:
        """Forgets the state, if it can."""
        cache = self.cache
        if cache is not None:
            await self._call(lambda: cache.invalidate(key), deadline)

    async def forget_user(self, model: str, user_key: str, deadline: Deadline) -> None:
        """Forgets a user, or raises what the cache raises.

        Raises:
            DeadlineError: the cache did not say in time that it did.
        """
        cache = self.cache
        if cache is None:
            return
        if not cache.blocking:
            cache.forget_user(model, user_key)
            return
        started = self._driver.start_thread(lambda: cache.forget_user(model, user_key))
        await self._driver.wait([started], deadline.left)
        if not started.done():
            raise DeadlineError(f"the cache did not say within {deadline.seconds:g} s that it forgot the user.")
        started.result()

    async def _call(self, function: Callable[[], T], deadline: Deadline) -> T | None:
        assert self.cache is not None
        if not self.cache.blocking:
            return self._safely(function)
        seconds = deadline.left * CACHE_SHARE
        now = time.monotonic()
        with self._lock:
            hung = len(self._running) == CACHE_THREADS and max(self._running.values()) < now
        if hung:  # a cache that hangs takes the time of those who came first, not of everyone
            self._counts.add("cache_busy")
            return None

        def work() -> T | None:
            me = threading.get_ident()
            if time.monotonic() > now + seconds:
                return None  # it stood in line, and nobody waits any more
            with self._lock:
                self._running[me] = now + seconds
            try:
                return self._safely(function)
            finally:
                with self._lock:
                    del self._running[me]

        started = self._driver.start_thread(work)
        await self._driver.wait([started], seconds)
        if not started.done():
            self._counts.add("cache_late")
            return None
        answer: T | None = started.result()
        return answer

    def _safely(self, function: Callable[[], T]) -> T | None:
        try:
            return function()
        except Exception as error:
            self._counts.add("cache_failed")
            logger.warning("the state cache failed (%s: %s)", type(error).__name__, error)
            return None
