"""Which requests are received, run, kept waiting and refused. Both APIs share one `Admission`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving.server.status import deadline_exceeded, exhausted, unavailable


@dataclass(frozen=True)
class Limits:
    """How much callers may ask of the server.

    Args:
        threads: The number of requests that run at the same time; 0 means four per core, as in TensorFlow Serving.
        max_queued: How many more may wait for a thread.
        max_receiving: How many requests may be incomplete. One more takes the place of the oldest.
        max_message_bytes: The size of one request.
        max_bytes_in_flight: The size of all requests together that are received, wait or run.
        receive_seconds: How long a request may take to arrive.
        request_seconds: How long a request may take from its first byte to the last byte of its answer.
    """

    threads: int = 0
    max_queued: int = 256
    max_receiving: int = 512
    max_message_bytes: int = 64 * 2**20
    max_bytes_in_flight: int = 2**30
    receive_seconds: float = 10.0
    request_seconds: float = 60.0


class Admission:
    """Counts requests and runs them in a pool of threads. All methods are called in the event loop.

    A request takes a thread only when it is complete, so that slow or silent callers hold none.

    Args:
        limits: How much callers may ask.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes_in_flight = 0
        self._pending = 0
        self._receiving: dict[asyncio.Timeout, str] = {}
        self._draining = self._stopped = False
        self._threads = limits.threads or 4 * (os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="request")

    @property
    def running(self) -> int:
        """How many requests have a thread."""
        return min(self._pending, self._threads)

    @property
    def queued(self) -> int:
        """How many complete requests wait for a thread."""
        return self._pending - self.running

    @property
    def receiving(self) -> int:
        """How many requests are incomplete."""
        return len(self._receiving)

    async def receive(self, read: Callable[[], Any]) -> Any:
        """Waits for a request to arrive.

        Args:
            read: Returns an awaitable for the whole request.

        Raises:
            StatusError: It did not arrive in time, or newer requests took its place.
        """
        if self._draining:
            raise unavailable("the server is stopping")
        if len(self._receiving) >= self.limits.max_receiving:
            self._shed(next(iter(self._receiving)), "too many requests are incomplete, and this is the oldest")
        try:
            async with asyncio.timeout(self.limits.receive_seconds) as limit:
                self._receiving[limit] = ""
                try:
                    return await read()
                finally:
                    reason = self._receiving.pop(limit)
        except TimeoutError:
            if reason:
                raise exhausted(reason) from None
            seconds = self.limits.receive_seconds
            raise deadline_exceeded(f"the request did not arrive within {seconds:g} s") from None

    def _shed(self, limit: asyncio.Timeout, reason: str, seconds: float = 0.0) -> None:
        self._receiving[limit] = reason
        when, now = limit.when(), asyncio.get_running_loop().time()
        if when is None or when > now + seconds:
            limit.reschedule(now + seconds)

    def reserve(self, count: int) -> None:
        """Adds bytes to those in flight. The caller gives them back by `release`.

        Raises:
            StatusError: There are too many.
        """
        if self.bytes_in_flight + count > self.limits.max_bytes_in_flight:
            raise exhausted(
                f"the requests in flight have {self.bytes_in_flight} bytes, and all of them together may have "
                f"{self.limits.max_bytes_in_flight}"
            )
        self.bytes_in_flight += count

    def release(self, count: int) -> None:
        """Gives back bytes of `reserve`."""
        self.bytes_in_flight -= count

    @contextmanager
    def bytes(self, count: int) -> Iterator[None]:
        """Holds bytes in flight during a block."""
        self.reserve(count)
        try:
            yield
        finally:
            self.release(count)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Runs a function in a thread and returns its result. A caller that is cancelled while it waits does not run.

        Raises:
            StatusError: Too many requests wait already.
        """
        limits = self.limits
        if self._stopped:
            raise unavailable("the server is stopping")
        if self._pending >= self._threads + limits.max_queued:
            raise exhausted(f"{self._threads} requests run and {limits.max_queued} wait; no more may wait")
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self._pending += 1
        job = self._pool.submit(work)
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._ended, done, reply))
        try:
            return await reply
        finally:
            job.cancel()

    def _ended(self, job: Future[Any], reply: asyncio.Future[Any]) -> None:
        self._pending -= 1
        if reply.done():
            return
        if job.cancelled():
            reply.set_exception(unavailable("the server is stopping"))
        elif error := job.exception():
            reply.set_exception(error)
        else:
            reply.set_result(job.result())

    def drain(self, seconds: float = 1.0) -> None:
        """Refuses what comes from now on. What is incomplete may take so many seconds more."""
        self._draining = True
        for limit in list(self._receiving):
            self._shed(limit, "the server is stopping", seconds)

    def stop(self) -> None:
        """Drops the requests that wait for a thread."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
