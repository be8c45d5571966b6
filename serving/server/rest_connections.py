"""The connections of the REST API: how many there are, how long they may be silent, and their TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from serving.server.admission import Limits
from serving.server.tls import Certificates, context_of

MAX_CONNECTIONS = 512
IDLE_SECONDS = 60.0
"""How long a connection stays open after a request."""
_BACKLOG = 128
_FOLLOW_SECONDS = 1.0
logger = logging.getLogger("serving.server")
# aiohttp logs a traceback for whatever it cannot parse. Callers get an answer, and `Calls` logs errors of this server.
_silent = logging.getLogger("serving.server.aiohttp")
_silent.disabled = True


class Listener:
    """Accepts connections at a socket, with the newest certificate if there is TLS.

    Args:
        listening: The bound socket.
        certificates: For TLS, if given.
        connections: What is accepted.
        limits: How long a TLS handshake may take.
    """

    def __init__(
        self, listening: socket.socket, certificates: Certificates | None, connections: Connections, limits: Limits
    ) -> None:
        self._socket = listening
        self._certificates = certificates
        self._connections = connections
        self._limits = limits
        self._config: Any = None
        self._accepting: asyncio.Server | None = None
        self._rotation: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to accept."""
        if self._certificates is None:
            await self._accept(None)
        else:
            await self._accept(self._certificates.current())
            self._rotation = asyncio.create_task(self._follow_certificates(self._certificates))

    def stop(self) -> None:
        """Accepts no more. Connections that are open stay so."""
        if self._rotation is not None:
            self._rotation.cancel()
        if self._accepting is not None:
            self._accepting.close()
        self._socket.close()

    async def _accept(self, config: Any) -> None:
        """Accepts connections with an `SSLConfig`, and no more with the one before. If it cannot, nothing changes."""
        context = None if config is None else context_of(config)
        # A copy, because closing an asyncio server closes its socket.
        accepting = await asyncio.get_running_loop().create_server(
            self._connections.new,
            sock=self._socket.dup(),
            # asyncio accepts as many in a turn. Without file descriptors, each one fails and plans another turn.
            backlog=1,
            ssl=context,
            ssl_handshake_timeout=self._limits.receive_seconds if context else None,
        )
        self._socket.listen(_BACKLOG)
        if self._accepting is not None:
            self._accepting.close()
        self._accepting, self._config = accepting, config

    async def _follow_certificates(self, certificates: Certificates) -> None:
        logged = ""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                config = certificates.current()
                if config is not self._config:
                    await self._accept(config)
                logged = ""
            except Exception as error:
                text = f"REST cannot use the new certificate, and tries it again: {type(error).__name__}: {error}"
                if text != logged:
                    logger.error("%s", text)
                logged = text


class Connections(web.Server):
    """The open connections, and which of them wait for a request: first those that wait longest.

    With each that did not send one yet is the timer that ends it.

    Args:
        handle: Answers a request.
        limits: How long the headers of a first request may take.
    """

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: Limits) -> None:
        super().__init__(
            handle,
            request_factory=_Request.make,
            handler_cancellation=True,
            access_log=None,
            logger=_silent,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=limits.receive_seconds,
        )
        self.in_progress = 0
        self._seconds = limits.receive_seconds
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle | None] = {}

    def new(self) -> asyncio.BaseProtocol:
        """One more connection, in place of the one that waits longest if there are too many."""
        if len(self._waiting) + self.in_progress >= MAX_CONNECTIONS and not self._displace():
            return _Refusal()
        one: web.RequestHandler = self()
        self._waiting[one] = asyncio.get_running_loop().call_later(self._seconds, self._end, one)
        return one

    def begins(self, one: web.RequestHandler) -> None:
        """The headers of a request have arrived."""
        self.in_progress += 1
        self._waits_no_more(one)

    def ended(self, one: web.RequestHandler) -> None:
        """A request was answered, and the connection waits for the next one if it is still there."""
        self.in_progress -= 1
        if one.transport is not None:
            self._waiting[one] = None

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Part of `web.Server`: a connection is open, after the handshake of TLS."""
        super().connection_made(handler, transport)
        if handler not in self._waiting:  # it was displaced during the handshake
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Part of `web.Server`: a connection is closed."""
        super().connection_lost(handler, exc)
        self._waits_no_more(handler)

    def _displace(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self._end(oldest)
        return oldest is not None

    def _end(self, one: web.RequestHandler) -> None:
        self._waits_no_more(one)
        one.force_close()

    def _waits_no_more(self, one: web.RequestHandler) -> None:
        timer = self._waiting.pop(one, None)
        if timer is not None:
            timer.cancel()


class _Request(web.BaseRequest):
    @classmethod
    def make(cls, *arguments: Any) -> web.BaseRequest:
        message, payload, protocol, writer, task = arguments
        return cls(message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # Else aiohttp tells its own version and that of Python, also in answers to what it cannot parse.
        response.headers["Server"] = "tfctr"


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
