"""What a client does to the world, twice: with blocking calls and with asyncio.

The logic of a request is written once, as coroutines that await nothing but a driver. `BlockingDriver`'s coroutines
never suspend, so `run` gets the result of such a request by starting it.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent import futures
from functools import cached_property
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from tfctr.client.transport import CHANNEL_OPTIONS, REPLIES, Call, serialize

CACHE_THREADS = 8
"""Calls of a blocking cache that may be under way at once."""

T = TypeVar("T")


class Future(Protocol):
    """What the futures of grpc, asyncio and concurrent.futures have in common."""

    def done(self) -> bool:
        """Whether there is a result or an error."""

    def cancelled(self) -> bool:
        """Whether it was cancelled."""

    def cancel(self) -> Any:
        """Gives it up."""

    def result(self) -> Any:
        """The result, or raises the error."""

    def set_result(self, result: Any) -> None:
        """Ends a promise."""


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine whose driver is a `BlockingDriver`."""
    try:
        flow.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()
    raise RuntimeError("a coroutine over blocking calls was suspended")


class Driver(ABC):
    """The connection to a server, threads for a blocking cache, and waiting.

    Args:
        target: `host:port`, `unix:/path`, or any gRPC target.
        credentials: of the channel (TLS, mutual TLS); plain text without.
        options: gRPC channel options; they come after the defaults and win.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ):
        self.target = target
        self._credentials = credentials
        self._options = list({**CHANNEL_OPTIONS, **dict(options)}.items())

    @abstractmethod
    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        """Begins a call; `alone` says that nothing else has to happen before it ends."""

    awaits = False
    """Whether `start_task` works."""

    def start_task(self, work: Coroutine[Any, Any, Any]) -> Future:
        """Begins a coroutine."""
        raise NotImplementedError

    @abstractmethod
    def start_thread(self, function: Callable[[], Any]) -> Future:
        """Begins a function in a thread."""

    @abstractmethod
    def promise(self) -> Future:
        """A future that `set_result` ends."""

    @abstractmethod
    async def wait(self, started: Collection[Future], seconds: float | None = None) -> None:
        """Waits until one of them has ended, or for so long."""

    @abstractmethod
    async def close(self) -> None:
        """Closes the channel; calls under way end."""

    @cached_property
    def _threads(self) -> futures.ThreadPoolExecutor:
        return futures.ThreadPoolExecutor(CACHE_THREADS, thread_name_prefix="tfctr-cache")

    def _close_threads(self) -> None:
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _open(self, module: Any) -> tuple[Any, dict[str, Any]]:
        """The channel of grpc or grpc.aio, and its methods by path."""
        channel = (
            module.insecure_channel(self.target, self._options)
            if self._credentials is None
            else module.secure_channel(self.target, self._credentials, self._options)
        )
        return channel, {
            path: channel.unary_unary(path, request_serializer=serialize, response_deserializer=reply.FromString)
            for path, reply in REPLIES.items()
        }


class BlockingDriver(Driver):
    """For threads."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._channel, self._methods = self._open(grpc)

    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        """A lone call is made here and now: a future of grpc takes a quarter of a millisecond more."""
        method = self._methods[call.path]
        ended: futures.Future[Any] = futures.Future()
        try:
            if not alone:
                started: Future = method.future(call.request, timeout=seconds)
                return started
            ended.set_result(method(call.request, timeout=seconds))
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed
            ended.set_exception(error)
        return ended

    def start_thread(self, function: Callable[[], Any]) -> Future:
        """Begins a function in a thread."""
        return self._threads.submit(function)

    def promise(self) -> Future:
        """A future that `set_result` ends."""
        return futures.Future()

    async def wait(self, started: Collection[Any], seconds: float | None = None) -> None:
        """Blocks this thread."""
        if not started:
            time.sleep(seconds or 0.0)
            return
        if any(future.done() for future in started):
            return
        ended = threading.Event()
        for future in started:
            future.add_done_callback(lambda _: ended.set())
        ended.wait(seconds)

    async def close(self) -> None:
        """Closes the channel; calls under way end."""
        self._channel.close()
        self._close_threads()


class AsyncioDriver(Driver):
    """For one event loop: the one that runs at the first call."""

    awaits = True
    _closed = False

    @cached_property
    def _opened(self) -> tuple[Any, dict[str, Any]]:
        return self._open(grpc.aio)

    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        """Begins a call as a task."""
        del alone

        async def make() -> Any:
            if self._closed:
                raise grpc.aio.UsageError("the client was closed.")
            return await self._opened[1][call.path](call.request, timeout=seconds)

        return self.start_task(make())

    def start_task(self, work: Coroutine[Any, Any, Any]) -> Future:
        """Begins a coroutine as a task."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may want it any more
        return task

    def start_thread(self, function: Callable[[], Any]) -> Future:
        """Begins a function in a thread."""
        return asyncio.wrap_future(self._threads.submit(function))

    def promise(self) -> Future:
        """A future that `set_result` ends."""
        return asyncio.get_running_loop().create_future()

    async def wait(self, started: Collection[Any], seconds: float | None = None) -> None:
        """Lets other tasks go on."""
        if started:
            await asyncio.wait(started, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds or 0.0)

    async def close(self) -> None:
        """Closes the channel; calls under way end."""
        self._closed = True
        if "_opened" in self.__dict__:
            await self._opened[0].close()
        self._close_threads()
