"""TensorFlow Serving's REST API and the Prometheus metrics, with aiohttp."""

from __future__ import annotations

import asyncio
import json
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
from serving.server.rest_connections import MAX_CONNECTIONS, Connections, Listener
from serving.server.status import StatusError, as_status, cancelled, invalid_argument, not_found
from serving.server.tls import Certificates

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
        self._listening = listening
        self._certificates = certificates
        self._max_values = max_values
        self._connections: Connections | None = None
        self._listener: Listener | None = None
        # As for gRPC, `Admission` says how many may run.
        self._pool = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="REST")

    async def start(self) -> None:
        """Begins to answer requests."""
        quieten(asyncio.get_running_loop())
        limits = self._admission.limits
        self._connections = Connections(self._handle, limits)
        self._listener = Listener(self._listening, self._certificates, self._connections, limits)
        await self._listener.start()

    def refuse(self) -> None:
        """Accepts no more connections and requests. Those in progress go on."""
        if self._listener is None or self._connections is None:
            self._listening.close()
        else:
            self._listener.stop()
            self._connections.pre_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Waits until the requests in progress are answered, and closes all connections.

        Args:
            grace_seconds: The longest wait.
        """
        self.refuse()
        if self._connections is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    while self._connections.in_progress:
                        await asyncio.sleep(0.01)
            await self._connections.shutdown(0.1)
        self._pool.shutdown(wait=False)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._connections is not None
        limits = self._admission.limits
        call = Call("Other", "REST", limits.request_seconds, request.headers.get(REQUEST_ID, ""), request.remote or "")
        self._connections.begins(request.protocol)
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
            with self._admission.receive(partial(_expire_from_thread, loop, limit)):
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


def _expire_from_thread(loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
    loop.call_soon_threadsafe(_expire, limit)


def _expire(limit: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the request arrived just now
        limit.reschedule(asyncio.get_running_loop().time())


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
