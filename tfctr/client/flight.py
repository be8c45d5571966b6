"""Single flight: concurrent requests that need the same work share it."""

import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tfctr.client.counts import Counts
from tfctr.client.drivers import Driver, Future
from tfctr.client.errors import DeadlineError
from tfctr.client.transport import Deadline

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Lets one of several concurrent requests do the work that all of them need. Waits are counted as `joined`."""

    def __init__(self, driver: Driver, counts: Counts):
        self._driver = driver
        self._counts = counts
        self._lock = threading.Lock()
        self._in_flight: dict[Hashable, Future] = {}

    async def run(
        self, key: Hashable, work: Callable[[], Awaitable[T]], deadline: Deadline, step: str
    ) -> tuple[T, bool]:
        """The result of the work, and whether this request did the work itself.

        If the work fails, only the request that did it gets the error. One of the waiting requests then does the work
        itself, within its own deadline.

        Raises:
            DeadlineError: the deadline of this request passed while another one was doing the work.
        """
        while True:
            with self._lock:
                promise = self._in_flight.get(key)
                if promise is None:
                    mine = self._in_flight[key] = self._driver.promise()
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
                del self._in_flight[key]
            mine.set_result(found)
