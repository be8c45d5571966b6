"""gRPC calls to TensorFlow Serving (or a server that speaks its API), with one time budget and errors in words."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from tfctr.client.errors import (
    BadRequestError,
    ClientError,
    DeadlineError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from tfctr.client.protos import wire_pb2 as wire

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"

# gRPC's own defaults: replies of at most 4 MiB, and up to two minutes between attempts to reach a restarted server.
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

_HINTS: dict[grpc.StatusCode, tuple[type[ClientError], str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (BadRequestError, "The served graph refused the request."),
    grpc.StatusCode.FAILED_PRECONDITION: (BadRequestError, "The served model cannot answer such a request."),
    grpc.StatusCode.OUT_OF_RANGE: (BadRequestError, "The served graph refused the request."),
    grpc.StatusCode.UNIMPLEMENTED: (BadRequestError, "The target does not speak TensorFlow Serving's gRPC API."),
    grpc.StatusCode.UNAUTHENTICATED: (BadRequestError, "Pass credentials=... ."),
    grpc.StatusCode.PERMISSION_DENIED: (BadRequestError, "These credentials may not do this."),
    grpc.StatusCode.NOT_FOUND: (ModelNotFoundError, "Check the model name, and the versions with model_status()."),
    grpc.StatusCode.UNAVAILABLE: (UnavailableError, "Check that the server runs at this address and is ready."),
    grpc.StatusCode.CANCELLED: (UnavailableError, "The channel was closed or the server stopped."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (OverloadedError, "Send less, or add servers; a retry makes it worse."),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        DeadlineError,
        "Give more time (timeout_seconds=...), fewer candidates, or a faster server.",
    ),
}


class Deadline:
    """One time budget for all the calls of a request.

    Args:
        seconds: the budget, from now.

    Raises:
        BadRequestError: not a positive number.
    """

    def __init__(self, seconds: float):
        if not 0 < seconds < float("inf"):
            raise BadRequestError(f"timeout_seconds must be a positive number of seconds. Received: {seconds!r}")
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self, step: str) -> float:
        """Seconds left.

        Raises:
            DeadlineError: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"{step}: the budget of {self.seconds:g} s was used up before the call.")
        return left


class Transport:
    """The calls a ranking client makes.

    Args:
        target: `host:port`, `unix:/path`, or any gRPC target.
        credentials: of the channel (TLS, mutual TLS); plain text without.
        options: gRPC channel options; they come after the defaults here and win.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ):
        self.target = target
        merged = list({**dict(_OPTIONS), **dict(options)}.items())
        self._channel = (
            grpc.insecure_channel(target, merged)
            if credentials is None
            else grpc.secure_channel(target, credentials, merged)
        )
        self._predict = self._method(_PREDICTION + "Predict", wire.PredictResponse)
        self._metadata = self._method(_PREDICTION + "GetModelMetadata", wire.GetModelMetadataResponse)
        self._status = self._method(_MODEL + "GetModelStatus", wire.GetModelStatusResponse)

    def predict(self, request: wire.PredictRequest, seconds: float) -> wire.PredictResponse:
        """Runs a signature."""
        step = f"{request.model_spec.signature_name} of {_spec_text(request.model_spec)}"
        reply: wire.PredictResponse = self._run(self._predict, request, seconds, step)
        return reply

    def metadata(self, request: wire.GetModelMetadataRequest, seconds: float) -> wire.GetModelMetadataResponse:
        """Asks for the signatures of a version."""
        step = f"metadata of {_spec_text(request.model_spec)}"
        reply: wire.GetModelMetadataResponse = self._run(self._metadata, request, seconds, step)
        return reply

    def status(self, request: wire.GetModelStatusRequest, seconds: float) -> wire.GetModelStatusResponse:
        """Asks for the states of the versions."""
        step = f"status of {_spec_text(request.model_spec)}"
        reply: wire.GetModelStatusResponse = self._run(self._status, request, seconds, step)
        return reply

    def close(self) -> None:
        """Closes the channel; calls under way end."""
        self._channel.close()

    def _method(self, path: str, reply: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            path, request_serializer=_serialize, response_deserializer=reply.FromString
        )
        return method

    def _run(self, method: Callable[..., Any], request: Message, seconds: float, step: str) -> Any:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise self._explain(error, step, seconds) from error
        except ValueError as error:  # grpc's word for a channel that was closed
            raise UnavailableError(f"{step} at {self.target}: {error}") from error

    def _explain(self, error: grpc.RpcError, step: str, seconds: float) -> ClientError:
        code = error.code()
        kind, hint = _HINTS.get(code, (ServerError, "The server's log knows more."))
        within = f" within {seconds * 1000:.0f} ms" if kind is DeadlineError else ""
        return kind(f"{step} at {self.target}{within}: {code.name}: {_shorten(error.details())} {hint}")


def _serialize(message: Message) -> bytes:
    payload: bytes = message.SerializeToString()
    return payload


def _spec_text(spec: wire.ModelSpec) -> str:
    version = f" version {spec.version.value}" if spec.HasField("version") else ""
    label = f" label '{spec.version_label}'" if spec.version_label else ""
    return f"model '{spec.name}'{version}{label}"


def _shorten(text: str | None, limit: int = 600) -> str:
    text = " ".join((text or "no details").split())
    text = text if len(text) <= limit else text[:limit] + "..."
    return text if text.endswith((".", "!", "?")) else text + "."
