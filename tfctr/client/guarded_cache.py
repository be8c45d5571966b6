"""A wrapper around the state cache, which keeps its failures and delays away from requests."""

import math
import threading
import time
from collections import Counter
from typing import Any

from tfctr.client.cache import StateCache
from tfctr.client.counts import Counts, Warnings
from tfctr.client.drivers import CACHE_THREADS, Driver, Future
from tfctr.client.errors import ClientError, DeadlineError, UnavailableError
from tfctr.client.state import StateKey, UserState
from tfctr.client.transport import Deadline

CACHE_SHARE = 0.25
"""Share of a request's remaining time that one call of a blocking cache may take."""


class GuardedCache:
    """Asks a state cache, if there is one. A cache that raises an error, is late or hangs counts as a miss.

    After some failures in a row of one method the cache is not called for a while, so that a cache that hangs costs
    little time. The driver runs the calls of a blocking cache in threads.

    Counts `cache_hit`, `cache_miss` and `cache_put`; `cache_failed` (an error), `cache_late`, `cache_busy` (hung in
    every thread) and `cache_skipped` (not called).
    """

    def __init__(self, cache: StateCache | None, driver: Driver, counts: Counts):
        self._cache = cache
        self._driver = driver
        self._counts = counts
        self._warnings = Warnings()
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}  # thread -> the time after which no request waits for its call
        self._failures: Counter[str] = Counter()  # method -> failures in a row
        self._paused_until = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """The cache's own counts, each name prefixed with `cache_`."""
        return {} if self._cache is None else {f"cache_{what}": times for what, times in self._cache.counts.items()}

    async def get(self, key: StateKey, deadline: Deadline) -> UserState | None:
        """The cached state, or `None`."""
        if self._cache is None:
            return None
        _, found = await self._call("get", key, deadline=deadline)
        self._counts.add("cache_miss" if found is None else "cache_hit")
        state: UserState | None = found
        return state

    async def put(self, key: StateKey, state: UserState, deadline: Deadline) -> None:
        """Stores the state if the cache works. A cache may say `False`, which means that it did not store it."""
        works, stored = await self._call("put", key, state, deadline=deadline)
        self._counts.add("cache_put", int(works and stored is not False))

    async def invalidate(self, key: StateKey, deadline: Deadline) -> None:
        """Removes the state if the cache works."""
        await self._call("invalidate", key, deadline=deadline)

    async def forget_user(self, model: str, user_key: str, deadline: Deadline) -> None:
        """Removes all states of a user. It is tried even if the cache fails otherwise.

        Raises:
            ClientError: the cache did not confirm the removal, or not in time.
        """
        if self._cache is None:
            return
        started = self._start("forget_user", model, user_key)
        await self._driver.wait([started], deadline.left)
        if not started.done():
            raise DeadlineError(f"the cache did not say within {deadline.seconds:g} s that it forgot the user.")
        try:
            started.result()
        except ClientError:
            raise
        except Exception as error:
            raise UnavailableError(
                f"the cache may still have states of the user ({type(error).__name__}: {error})."
            ) from error

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
        """Begins a call of the cache. Nobody waits for its answer after the time `until`."""
        if self._asynchronous:
            return self._driver.start_task(getattr(self._cache, f"a{name}")(*arguments))
        method = getattr(self._cache, name)

        def work() -> Any:
            thread = threading.get_ident()
            with self._lock:
                self._running[thread] = until
            try:
                return method(*arguments)
            finally:
                with self._lock:
                    del self._running[thread]

        return self._driver.start_thread(work)

    async def _call(self, name: str, *arguments: Any, deadline: Deadline) -> tuple[bool, Any]:
        """Whether the cache did what it was asked, and what it answered."""
        if self._cache is None:
            return False, None
        if time.monotonic() < self._paused_until:
            self._counts.add("cache_skipped")
            return False, None
        try:
            if not self._cache.blocking:
                return self._answered(name, arguments[0], getattr(self._cache, name)(*arguments))
            seconds = deadline.left * CACHE_SHARE
            now = time.monotonic()
            with self._lock:
                hung = len(self._running) == CACHE_THREADS and max(self._running.values()) < now
            if hung:  # every thread is stuck in a call that nobody waits for any more: more waiting would be in vain
                self._counts.add("cache_busy")
                return False, None
            started = self._start(name, *arguments, until=now + seconds)
            await self._driver.wait([started], seconds)
            if started.done():
                return self._answered(name, arguments[0], started.result())
            started.cancel()
            self._fails(name, "late", f"no answer within {1000 * seconds:.0f} ms")
        except Exception as error:
            self._fails(name, "failed", f"{type(error).__name__}: {error}")
        return False, None

    def _answered(self, name: str, key: StateKey, answer: Any) -> tuple[bool, Any]:
        if name == "get" and answer is not None and not (isinstance(answer, UserState) and key.is_of(answer)):
            self._fails(name, "failed", "it answered something else than a state of the key that it was asked for")
            return False, None
        with self._lock:
            self._failures[name] = 0
        return True, answer

    def _fails(self, name: str, what: str, how: str) -> None:
        assert self._cache is not None
        self._counts.add(f"cache_{what}")
        with self._lock:
            self._failures[name] += 1
            pauses = self._failures[name] >= self._cache.failures
            if pauses:
                self._failures.clear()
                self._paused_until = time.monotonic() + self._cache.pause_seconds
        if pauses:
            paused = self._cache.pause_seconds
            self._warnings.log("the state cache fails (%s: %s); it is not called for %g s", name, how, paused)
        else:
            self._warnings.log("the state cache fails (%s: %s)", name, how)
