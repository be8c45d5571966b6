"""TensorFlow Serving's REST API and the Prometheus metrics, with the HTTP server of the standard library."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.server import rest_examples, rest_json
from serving.server.api import SIGNATURE_FIELD, Api
from serving.server.metrics import PATH, Metrics
from serving.server.status import StatusError, as_status, invalid_argument, not_found

logger = logging.getLogger("serving.server")
TIMEOUT_MS = 30_000
MAX_BODY_BYTES = 64 * 2**20
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
    """Serves each connection in a thread of its own.

    Args:
        api: Does the work.
        metrics: The Prometheus metrics.
        host: The address to listen on.
        port: The port; 0 picks a free one.
        limit: The most concurrent requests; further ones are refused.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, api: Api, metrics: Metrics, host: str, port: int, limit: int) -> None:
        self._limit, self._started = limit, False
        self._slots = threading.BoundedSemaphore(limit)

        class Handler(_Handler):
            pass

        Handler.api, Handler.metrics, Handler.slots = api, metrics, self._slots
        self._server = _Server((host, port), Handler)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Begins to answer requests."""
        self._started = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="REST", daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Accepts no more requests, and waits until those in progress are answered.

        Args:
            grace_seconds: The longest wait.
        """
        if self._started:
            self._server.shutdown()
        self._server.server_close()
        deadline = time.monotonic() + grace_seconds
        # When all slots are acquired, no request is in progress, and open connections can begin no new one.
        for _ in range(self._limit):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))


class _Server(ThreadingHTTPServer):
    allow_reuse_port = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    api: Api
    metrics: Metrics
    slots: threading.BoundedSemaphore
    protocol_version = "HTTP/1.1"
    # A client that sends nothing for this long is gone or malicious.
    timeout = 30.0

    def do_GET(self) -> None:
        """Answers with status, metadata, or the Prometheus metrics."""
        if self.path == PATH:
            self._send(HTTPStatus.OK, self.metrics.page().encode(), "text/plain; version=0.0.4")
        else:
            self._answer(self._get)

    def do_POST(self) -> None:
        """Runs Predict, Classify or Regress."""
        if not self.slots.acquire(blocking=False):
            # The body was not read, so the connection cannot be used again.
            self.close_connection = True
            self._send_error(_Code.RESOURCE_EXHAUSTED, "the server is busy: too many concurrent requests")
            return
        try:
            self._answer(self._post)
        finally:
            self.slots.release()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing: one line for each request is too much for a server under load."""

    def _answer(self, handle: Any) -> None:
        try:
            body = json.dumps(handle(), indent=None, ensure_ascii=False).encode()
        except Exception as error:
            code, message = as_status(error)
            if code is _Code.INTERNAL:
                logger.error("a request failed: %s", message, exc_info=error)
            self._send_error(code, message)
            return
        self._send(HTTPStatus.OK, body)

    def _post(self) -> dict[str, Any]:
        body = self._body()
        match = _POST.fullmatch(self.path)
        if match is None:
            raise _malformed("POST", self.path)
        spec = _spec(match)
        parsed = rest_json.parse_body(body)
        call = match["call"].capitalize()
        if call != "Predict":
            request = rest_examples.examples_request(parsed, call)
            request.model_spec.MergeFrom(spec)
            return rest_examples.examples_body(self.api.run(call, "REST", request, TIMEOUT_MS), call)
        request, by_row = rest_json.predict_request(parsed, self.api.signatures(spec))
        request.model_spec.MergeFrom(spec)
        return rest_json.predict_body(self.api.run(call, "REST", request, TIMEOUT_MS), by_row)

    def _get(self) -> dict[str, Any]:
        match = _GET.fullmatch(self.path)
        if match is None:
            raise _malformed("GET", self.path)
        if not match["name"]:
            raise invalid_argument("Missing model name in request.")
        spec = _spec(match)
        if match["metadata"]:
            request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
            body = _as_json(self.api.metadata(request))
            del body["metadata"][SIGNATURE_FIELD]["@type"]
            return body
        return _as_json(self.api.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec)))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise invalid_argument(f"Content-Length must be a number. Received: {length[:40]!r}")
        if len(length) > 12 or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise StatusError(
                _Code.RESOURCE_EXHAUSTED, f"the body must have at most {MAX_BODY_BYTES} bytes. Received: {length[:40]}"
            )
        return self.rfile.read(int(length))

    def _send_error(self, code: grpc.StatusCode, message: str) -> None:
        self._send(_HTTP.get(code, 500), json.dumps({"error": message}).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _malformed(method: str, path: str) -> StatusError:
    if not path.lower().startswith("/v1/models"):
        return not_found("Not Found")
    return invalid_argument(f"Malformed request: {method} {path[:200]}")


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        if len(match["version"]) > 19 or int(match["version"]) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version'][:40]} to a 64-bit number")
        spec.version.value = int(match["version"])
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _as_json(message: Any) -> dict[str, Any]:
    body: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return body
