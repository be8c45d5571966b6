"""Calls, threads and waiting, in two forms: blocking and with asyncio.

The logic of a request is written once, as coroutines that await only the methods of a driver. The coroutines of
`BlockingDriver` never suspend, so `run` completes such a request in one step.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent import futures
from functools import cached_property
from operator import methodcaller
from typing import Any, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from tfctr.client.call_metadata import NO_METADATA, CallMetadata
from tfctr.client.errors import BadRequestError
from tfctr.client.policies import merged
from tfctr.client.target import check_target
from tfctr.client.transport import CHANNEL_OPTIONS, CLOSED, REPLIES, Call

CACHE_THREADS = 8
"""Number of calls of a blocking cache that may run at the same time."""

T = TypeVar("T")


Future = futures.Future[Any] | asyncio.Future[Any]
"""A call, a thread or a promise. The futures of grpc, which have no types, are used as one of these."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine whose driver is a `BlockingDriver`."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError("a coroutine over blocking calls was suspended")


class Driver(ABC):
    """The connection to a server, the threads for a blocking cache, and how to wait for both.

    Args:
        target: any gRPC target.
        credentials: those of the gRPC channel; plain text without.
        options: gRPC channel options, besides `CHANNEL_OPTIONS` or in place of them.
        metadata: what is sent with each call.

    Raises:
        BadRequestError: the target or an option is not of the form that gRPC takes.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        metadata: CallMetadata = NO_METADATA,
    ):
        check_target(target)
        self.target = target
        self._credentials = credentials
        self._options = merged(CHANNEL_OPTIONS, options)
        self._metadata = metadata

    @abstractmethod
    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        """Begins a call. If `alone`, the request waits for this call only; a driver may then block, which is faster."""

    closed = False
    """Whether `close` was called."""

    def check(self) -> None:
        """Looks at the start of a request whether the driver can be used.

        Raises:
            BadRequestError: the client is closed, or it belongs to another event loop.
        """
        if self.closed:
            raise BadRequestError(CLOSED)

    asynchronous = False
    """Whether `start_task` can be used."""

    def start_task(self, work: Coroutine[Any, Any, Any]) -> Future:
        """Begins a coroutine as a task of the event loop."""
        raise NotImplementedError

    @abstractmethod
    def start_thread(self, function: Callable[[], Any]) -> Future:
        """Begins a function in a thread."""

    @abstractmethod
    def promise(self) -> Future:
        """A future without work of its own, which `set_result` completes."""

    @abstractmethod
    async def wait(self, started: Collection[Future], seconds: float | None = None) -> None:
        """Waits until one of the futures is done, or for this many seconds."""

    @abstractmethod
    async def close(self) -> None:
        """Closes the channel; calls in flight fail."""

    @cached_property
    def _threads(self) -> futures.ThreadPoolExecutor:
        return futures.ThreadPoolExecutor(CACHE_THREADS, thread_name_prefix="tfctr-cache")

    def _close_threads(self) -> None:
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _open(self, module: Any) -> tuple[Any, dict[str, Any]]:
        """A channel of grpc or grpc.aio, and its methods by path."""
        if self._credentials is None:
            channel = module.insecure_channel(self.target, self._options)
        else:
            channel = module.secure_channel(self.target, self._credentials, self._options)
        encode = methodcaller("SerializeToString")
        return channel, {path: channel.unary_unary(path, encode, reply.FromString) for path, reply in REPLIES.items()}


class BlockingDriver(Driver):
    """Blocks the calling thread; for clients that are used from threads."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._channel, self._methods = self._open(grpc)

    @override
    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        # A lone call blocks here, because a future of grpc takes a quarter of a millisecond more.
        method = self._methods[call.path]
        metadata = self._metadata.pairs()
        ended: futures.Future[Any] = futures.Future()
        try:
            if not alone:
                started: Future = method.future(call.request, timeout=seconds, metadata=metadata)
                return started
            ended.set_result(method(call.request, timeout=seconds, metadata=metadata))
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed
            ended.set_exception(error)
        return ended

    @override
    def start_thread(self, function: Callable[[], Any]) -> Future:
        return self._threads.submit(function)

    @override
    def promise(self) -> Future:
        return futures.Future()

    @override
    async def wait(self, started: Collection[Any], seconds: float | None = None) -> None:
        if not started:
            time.sleep(seconds or 0.0)
            return
        if any(future.done() for future in started):
            return
        ended = threading.Event()
        for future in started:
            future.add_done_callback(lambda _: ended.set())
        ended.wait(seconds)

    @override
    async def close(self) -> None:
        self.closed = True
        self._channel.close()
        self._close_threads()


class AsyncioDriver(Driver):
    """Suspends the calling coroutine. It belongs to one event loop, the one that runs at the first call."""

    asynchronous = True
    _loop: asyncio.AbstractEventLoop | None = None

    @override
    def check(self) -> None:
        super().check()
        running = asyncio.get_running_loop()
        self._loop = self._loop or running
        if self._loop is not running:
            raise BadRequestError(
                "an AsyncRankingClient belongs to the event loop of its first request. Make another client for each "
                "event loop, such as each asyncio.run(). Received: a request in another event loop"
            )

    @cached_property
    def _opened(self) -> tuple[Any, dict[str, Any]]:
        return self._open(grpc.aio)

    @override
    def start(self, call: Call, seconds: float, alone: bool) -> Future:
        del alone
        metadata = self._metadata.pairs()

        async def make() -> Any:
            if self.closed:
                raise grpc.aio.UsageError(CLOSED)
            return await self._opened[1][call.path](call.request, timeout=seconds, metadata=metadata)

        return self.start_task(make())

    @override
    def start_task(self, work: Coroutine[Any, Any, Any]) -> Future:
        task = asyncio.create_task(work)
        # asyncio warns of an error that nobody reads; an abandoned call is allowed to fail.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    @override
    def start_thread(self, function: Callable[[], Any]) -> Future:
        return asyncio.wrap_future(self._threads.submit(function))

    @override
    def promise(self) -> Future:
        return asyncio.get_running_loop().create_future()

    @override
    async def wait(self, started: Collection[Any], seconds: float | None = None) -> None:
        if started:
            await asyncio.wait(started, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds or 0.0)

    @override
    async def close(self) -> None:
        self.closed = True
        if "_opened" in self.__dict__:
            await self._opened[0].close()
        self._close_threads()
