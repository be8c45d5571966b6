"""TensorFlow Serving's REST API and the Prometheus metrics, with aiohttp."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.server import rest_examples, rest_json
from serving.server.admission import Admission
from serving.server.api import SIGNATURE_FIELD, Api
from serving.server.calls import REQUEST_ID, Call, Calls
from serving.server.logs import quieten
from serving.server.metrics import PATH, Metrics
from serving.server.rest_body import HttpError, read_body
from serving.server.status import StatusError, as_status, cancelled, invalid_argument, not_found
from serving.server.tls import Certificates, context_of

MAX_CONNECTIONS = 512
IDLE_SECONDS = 60.0
"""How long a connection stays open after a request."""
_BACKLOG = 128
_FOLLOW_SECONDS = 1.0
_Code = grpc.StatusCode
_HTTP = {
    _Code.INVALID_ARGUMENT: 400,
    _Code.FAILED_PRECONDITION: 400,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.ABORTED: 409,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.CANCELLED: 499,
    _Code.UNIMPLEMENTED: 501,
    _Code.UNAVAILABLE: 503,
    _Code.DEADLINE_EXCEEDED: 504,
}
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<call>predict|classify|regress)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)
logger = logging.getLogger("serving.server")
# aiohttp logs a traceback for whatever it cannot parse. Callers get an answer, and `Calls` logs errors of this server.
_silent = logging.getLogger("serving.server.aiohttp")
_silent.disabled = True


class RestServer:
    """Answers HTTP requests in the event loop. All methods are called there.

    Args:
        api: Does the work.
        admission: Decides which requests are received and run.
        calls: Observes them.
        metrics: The Prometheus metrics.
        listening: The bound socket.
        certificates: For TLS, if given.
        max_values: The largest number of values in a body.
    """

    def __init__(
        self,
        api: Api,
        admission: Admission,
        calls: Calls,
        metrics: Metrics,
        listening: socket.socket,
        certificates: Certificates | None,
        max_values: int,
    ) -> None:
        self._api = api
        self._admission = admission
        self._calls = calls
        self._metrics = metrics
        self._socket = listening
        self._certificates = certificates
        self._max_values = max_values
        self._config: Any = None
        self._connections: _Connections | None = None
        self._accepting: asyncio.Server | None = None
        self._rotation: asyncio.Task[None] | None = None
        self._in_progress = 0
        # As for gRPC, `Admission` says how many may run.
        self._pool = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="REST")

    async def start(self) -> None:
        """Begins to answer requests."""
        quieten(asyncio.get_running_loop())
        self._connections = _Connections(
            self._handle,  # type: ignore[arg-type]  # it takes a BaseRequest, as a web.Server gives
            request_factory=_Request.make,
            handler_cancellation=True,
            access_log=None,
            logger=_silent,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=self._admission.limits.receive_seconds,
        )
        config = self._certificates.current() if self._certificates is not None else None
        await self._accept(config)
        if self._certificates is not None:
            self._rotation = asyncio.create_task(self._follow_certificates(self._certificates))

    async def _accept(self, config: Any) -> None:
        """Accepts connections with an `SSLConfig`, and no more with the one before. If it cannot, nothing changes."""
        context = None if config is None else context_of(config)
        # A copy, because closing an asyncio server closes its socket.
        accepting = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._socket.dup(),
            # asyncio accepts as many in a turn. Without file descriptors, each one fails and plans another turn.
            backlog=1,
            ssl=context,
            ssl_handshake_timeout=self._admission.limits.receive_seconds if context else None,
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

    def _connection(self) -> asyncio.BaseProtocol:
        assert self._connections is not None
        if len(self._connections.waiting) + self._in_progress >= MAX_CONNECTIONS and not self._connections.displace():
            return _Refusal()
        return self._connections.new(self._admission.limits.receive_seconds)

    def refuse(self) -> None:
        """Accepts no more connections and requests. Those in progress go on."""
        if self._rotation is not None:
            self._rotation.cancel()
        if self._accepting is not None:
            self._accepting.close()
        self._socket.close()
        if self._connections is not None:
            self._connections.pre_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Waits until the requests in progress are answered, and closes all connections.

        Args:
            grace_seconds: The longest wait.
        """
        self.refuse()
        try:
            async with asyncio.timeout(grace_seconds):
                while self._in_progress:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        if self._connections is not None:
            await self._connections.shutdown(0.1)
        self._pool.shutdown(wait=False)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._connections is not None
        self._connections.begins(request.protocol)
        limits = self._admission.limits
        call = Call("Other", "REST", limits.request_seconds, request.headers.get(REQUEST_ID, ""), request.remote or "")
        self._in_progress += 1
        try:
            with self._calls.observe(call, request.headers):
                # The answer is sent within the time of the request as well, so that nobody keeps it by not reading.
                async with asyncio.timeout(limits.request_seconds):
                    return await self._send(request, call, await self._answer(request, call))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status, message = _status(error)
            body = json.dumps({"error": message}).encode()
            response = web.Response(status=status, body=body, content_type="application/json")
            response.headers[REQUEST_ID] = call.id
            if status in (408, 413, 415, 429, 503, 504):
                # The body was not read to its end.
                response.force_close()
            return response
        finally:
            self._in_progress -= 1
            self._connections.ended(request.protocol)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.Response:
        if request.method == "POST":
            return await self._post(request, call)
        if request.method != "GET":
            raise HttpError(405, f"the method must be GET or POST. Received: {request.method}")
        if request.raw_path == PATH:
            call.method = "Metrics"
            return web.Response(text=self._metrics.page(), content_type="text/plain")
        return _json_response(json.dumps(self._get(request.raw_path, call)).encode())

    async def _send(self, request: web.BaseRequest, call: Call, response: web.Response) -> web.Response:
        response.headers[REQUEST_ID] = call.id
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            raise cancelled("the caller left before it was answered") from None
        return response

    async def _post(self, request: web.BaseRequest, call: Call) -> web.Response:
        match = _POST.fullmatch(request.raw_path)
        if match is None:
            raise _malformed("POST", request.raw_path)
        spec = _spec(match)
        call.method, call.model = match["call"].capitalize(), spec.name
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            with self._admission.receive(lambda: loop.call_soon_threadsafe(_expire, limit)):
                body = await read_body(request, self._admission)
        call.size = len(body)
        left = threading.Event()
        try:
            running = self._pool.submit(self._run, call, spec, body, left)
        except BaseException:
            self._admission.release(call.size)
            raise
        # The thread, which holds the body, may end later than this coroutine.
        running.add_done_callback(lambda _: self._admission.release(call.size))
        try:
            return _json_response(await asyncio.wrap_future(running))
        finally:
            left.set()
            self._admission.leave(call)

    def _run(self, call: Call, spec: model_pb2.ModelSpec, body: bytes, left: threading.Event) -> bytes:
        """The body of the answer. Called in a thread."""
        with self._admission.place(call, lambda: not left.is_set()):
            return self._run_in_place(call, spec, body)

    def _run_in_place(self, call: Call, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        parsed = rest_json.parse_body(body, self._max_values)
        if call.method == "Predict":
            request, by_row = rest_json.predict_request(parsed, self._api.signatures(spec))
            answer: Callable[[Any], Any] = partial(rest_json.predict_body, by_row=by_row)
        else:
            request = rest_examples.examples_request(parsed, call.method)
            answer = partial(rest_examples.examples_body, call=call.method)
        request.model_spec.MergeFrom(spec)
        return json.dumps(answer(self._api.run(call, request)), ensure_ascii=False).encode()

    def _get(self, path: str, call: Call) -> dict[str, Any]:
        match = _GET.fullmatch(path)
        if match is None:
            raise _malformed("GET", path)
        if not match["name"]:
            raise invalid_argument("Missing model name in request.")
        spec = _spec(match)
        call.method, call.model = "GetModelMetadata" if match["metadata"] else "GetModelStatus", spec.name
        if match["metadata"]:
            request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
            body = _as_json(self._api.metadata(request))
            del body["metadata"][SIGNATURE_FIELD]["@type"]
            return body
        return _as_json(self._api.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec)))


def _expire(limit: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the request arrived just now
        limit.reschedule(asyncio.get_running_loop().time())


class _Request(web.BaseRequest):
    @classmethod
    def make(cls, *arguments: Any) -> web.BaseRequest:
        return cls(*arguments, loop=asyncio.get_running_loop())

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # Else aiohttp tells its own version and that of Python, also in answers to what it cannot parse.
        response.headers["Server"] = "tfctr"


class _Connections(web.Server):
    """Also knows which connections wait for a request, first those that wait longest.

    With each that did not send one yet is the timer that ends it.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.waiting: dict[web.RequestHandler[Any], asyncio.TimerHandle | None] = {}

    def new(self, seconds: float) -> web.RequestHandler[Any]:
        """A connection that has so many seconds to send the headers of its first request."""
        one = self()
        self.waiting[one] = asyncio.get_running_loop().call_later(seconds, self._end, one)
        return one

    def begins(self, one: web.RequestHandler[Any]) -> None:
        """The headers of a request have arrived."""
        timer = self.waiting.pop(one, None)
        if timer is not None:
            timer.cancel()

    def ended(self, one: web.RequestHandler[Any]) -> None:
        """A request was answered, and the connection waits for the next one if it is still there."""
        if one.transport is not None:
            self.waiting[one] = None

    def displace(self) -> bool:
        """Ends the connection that waits longest. False if none waits."""
        oldest = next(iter(self.waiting), None)
        if oldest is not None:
            self._end(oldest)
        return oldest is not None

    def _end(self, one: web.RequestHandler[Any]) -> None:
        self.begins(one)
        one.force_close()

    def connection_made(self, handler: web.RequestHandler[Any], transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if handler not in self.waiting:  # it was displaced during the TLS handshake
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler[Any], exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.begins(handler)


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _status(error: Exception) -> tuple[int, str]:
    code, message = as_status(error)
    return error.status if isinstance(error, HttpError) else _HTTP.get(code, 500), message


def _json_response(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _malformed(method: str, path: str) -> StatusError:
    if not path.lower().startswith("/v1/models"):
        return not_found("Not Found")
    return invalid_argument(f"Malformed request: {method} {path[:200]}")


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    try:
        spec = model_pb2.ModelSpec(name=match["name"], version_label=match["label"])
    except UnicodeError:
        raise invalid_argument("the path is not UTF-8") from None
    if match["version"]:
        if len(match["version"]) > 19 or int(match["version"]) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version'][:40]} to a 64-bit number")
        spec.version.value = int(match["version"])
    return spec


def _as_json(message: Any) -> dict[str, Any]:
    body: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return body
