"""Which requests are received, run, kept waiting and refused. Both APIs share one `Admission`."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.server.calls import Call
from serving.server.status import StatusError, cancelled, deadline_exceeded, exhausted, unavailable

_SWEEP_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """How much callers may ask of the server.

    Args:
        threads: The number of requests that run at the same time; 0 means four per core, as in TensorFlow Serving.
        max_queued: How many more may wait.
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


@dataclass(eq=False)
class _Incomplete:
    due: float
    cancel: Callable[[], None]
    error: StatusError | None = None

    def stop(self, error: StatusError) -> None:
        self.error = error
        self.cancel()


@dataclass(eq=False)
class _Waiting:
    call: Call
    turn: threading.Event = field(default_factory=threading.Event)
    left: bool = False


class Admission:
    """Counts requests, and lets a limited number of them run.

    A request takes one of the places to run only when it is complete, so that slow or silent callers hold none.

    Args:
        limits: How much callers may ask.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.bytes_in_flight = 0
        self._threads = limits.threads or 4 * (os.cpu_count() or 1)
        self._lock = threading.Lock()
        # Those that wait for a place to run, the first of them first. A place is handed over by setting `turn`.
        self._line: deque[_Waiting] = deque()
        self._incomplete: dict[_Incomplete, None] = {}
        self._unsent: dict[_Incomplete, None] = {}
        self._draining = False
        self._stopped = threading.Event()

    @property
    def queued(self) -> int:
        """How many complete requests wait."""
        return len(self._line)

    @property
    def receiving(self) -> int:
        """How many requests are incomplete."""
        return len(self._incomplete)

    @property
    def most_calls(self) -> int:
        """How many requests can be in progress at the same time, with some that are answered at once."""
        return self._threads + self.limits.max_queued + self.limits.max_receiving + 16

    def start(self) -> None:
        """Begins to watch the time that requests take to arrive."""
        threading.Thread(target=self._sweep, name="incomplete requests", daemon=True).start()

    @contextmanager
    def receive(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Watches a block that waits for a request to arrive.

        Args:
            cancel: Called from another thread to make the block raise an exception.

        Raises:
            StatusError: The request did not arrive in time, or newer requests took its place.
        """
        one = _Incomplete(time.monotonic() + self.limits.receive_seconds, cancel)
        with self._lock:
            if self._draining:
                raise unavailable("the server is stopping")
            if len(self._incomplete) >= self.limits.max_receiving:
                oldest = next((one for one in self._incomplete if one.error is None), one)
                oldest.stop(exhausted("too many requests are incomplete, and this was the oldest"))
            self._incomplete[one] = None
        try:
            yield
        except BaseException:
            if one.error is not None:
                raise one.error from None
            raise
        finally:
            with self._lock:
                del self._incomplete[one]
        if one.error is not None:
            raise one.error

    def _sweep(self) -> None:
        while not self._stopped.wait(_SWEEP_SECONDS):
            error = deadline_exceeded(f"the request did not arrive within {self.limits.receive_seconds:g} s")
            with self._lock:
                for one in self._incomplete:
                    if one.error is None and one.due <= time.monotonic():
                        one.stop(unavailable("the server is stopping") if self._draining else error)
                slow = [one for one in self._unsent if one.error is None and one.due <= time.monotonic()]
            for one in slow:  # not under the lock, which the end of a call takes
                one.stop(error)

    def reserve(self, count: int) -> None:
        """Adds bytes to those in flight. The caller gives them back by `release`.

        Raises:
            StatusError: There are too many.
        """
        with self._lock:
            if self.bytes_in_flight + count > self.limits.max_bytes_in_flight:
                raise exhausted(
                    f"the requests in flight have {self.bytes_in_flight} bytes, and all of them together may have "
                    f"{self.limits.max_bytes_in_flight}"
                )
            self.bytes_in_flight += count

    def release(self, count: int) -> None:
        """Gives back bytes of `reserve`."""
        with self._lock:
            self.bytes_in_flight -= count

    def sending(self, count: int, seconds: float, cancel: Callable[[], None]) -> Callable[[], None]:
        """Counts the bytes of an answer until its caller has taken them, and cancels the call when that takes too long.

        Args:
            count: The bytes.
            seconds: How long the caller may take.
            cancel: Called from another thread to end the call.

        Returns:
            What to call when the answer is sent, or can't be any more.

        Raises:
            StatusError: There are too many bytes in flight.
        """
        self.reserve(count)
        one = _Incomplete(time.monotonic() + seconds, cancel)
        with self._lock:
            self._unsent[one] = None

        def done() -> None:
            with self._lock:
                if one in self._unsent:  # else it was called already
                    del self._unsent[one]
                    self.bytes_in_flight -= count

        return done

    @contextmanager
    def place(self, call: Call, waits: Callable[[], bool]) -> Iterator[None]:
        """Waits for a place to run and holds it during a block.

        Args:
            call: The request, whose time is limited.
            waits: Whether the caller still waits for the answer. What nobody waits for does not run.

        Raises:
            StatusError: Too many requests wait already, the time is over, or the caller left.
        """
        self._enter(call, waits)
        try:
            if not waits():
                raise _left()
            call.remaining_ms()
            yield
        finally:
            self._leave()

    def leave(self, call: Call) -> None:
        """Takes a request whose caller left out of those that wait. To be called when `waits` is false already."""
        with self._lock:
            for one in self._line:
                if one.call is call:
                    self._line.remove(one)
                    one.left = True
                    one.turn.set()
                    return

    def _enter(self, call: Call, waits: Callable[[], bool]) -> None:
        one, seconds = _Waiting(call), call.remaining_ms() / 1000
        with self._lock:
            if self._stopped.is_set():
                raise unavailable("the server is stopping")
            if self.running < self._threads:
                self.running += 1
                return
            if len(self._line) >= self.limits.max_queued:
                raise exhausted(f"{self._threads} requests run and {self.limits.max_queued} wait; no more may wait")
            self._line.append(one)
        if not waits():
            self.leave(call)
        if one.turn.wait(seconds):
            if one.left:
                raise _left()
            if self._stopped.is_set():
                self._leave()
                raise unavailable("the server is stopping")
            return
        with self._lock:
            if one in self._line:
                self._line.remove(one)
            elif not one.left:  # it was handed over just now, and goes to the next
                self._hand_over()
        raise deadline_exceeded("Deadline exceeded before the request was run")

    def _leave(self) -> None:
        with self._lock:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._line:
            self._line.popleft().turn.set()
        else:
            self.running -= 1

    def drain(self, seconds: float = 1.0) -> None:
        """Refuses what comes from now on. What is incomplete may take so many seconds more."""
        due = time.monotonic() + seconds
        with self._lock:
            self._draining = True
            for one in self._incomplete:
                one.due = min(one.due, due)

    def stop(self) -> None:
        """Refuses the requests that wait."""
        with self._lock:
            self._stopped.set()
            waiting, self._line = self._line, deque()
            self.running += len(waiting)
        for one in waiting:
            one.turn.set()


def _left() -> StatusError:
    return cancelled("the caller left before the request was run")
