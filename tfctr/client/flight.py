"""One of many requests does what all of them need."""

import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tfctr.client.counts import Counts
from tfctr.client.drivers import Driver, Future
from tfctr.client.errors import DeadlineError
from tfctr.client.transport import Deadline

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Lets one request do the work that several ask for at the same time.

    Args:
        driver: of those requests.
        counts: a wait for another request is counted there as `joined`.
    """

    def __init__(self, driver: Driver, counts: Counts):
        self._driver = driver
        self._counts = counts
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future] = {}

    async def run(
        self, key: Hashable, work: Callable[[], Awaitable[T]], deadline: Deadline, step: str
    ) -> tuple[T, bool]:
        """The result of the work, and whether this request did it.

        A request whose work fails keeps its error to itself: the next one that waits does its own work, in the time
        that it has.

        Raises:
            DeadlineError: this request's time is up before another one's work is done.
        """
        while True:
            with self._lock:
                promise = self._under_way.get(key)
                if promise is None:
                    mine = self._under_way[key] = self._driver.promise()
                    break
            self._counts.add("joined")
            await self._driver.wait([promise], deadline.remaining(step))
            if not promise.done():
                raise DeadlineError(f"{step}: not ready within {deadline.seconds * 1000:.0f} ms in another request.")
            done: tuple[T] | None = promise.result()
            if done is not None:
                return done[0], False
        found: tuple[T] | None = None
        try:
            found = (await work(),)
            return found[0], True
        finally:
            with self._lock:
                del self._under_way[key]
            mine.set_result(found)
