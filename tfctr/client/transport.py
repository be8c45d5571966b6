"""The gRPC calls to TensorFlow Serving: method paths, deadlines, and error messages."""

import time
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import StatusCode

from tfctr.client import errors
from tfctr.client.policies import number
from tfctr.client.protos import wire_pb2 as wire

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

REPLIES: dict[str, Any] = {
    PREDICT: wire.PredictResponse,
    METADATA: wire.GetModelMetadataResponse,
    STATUS: wire.GetModelStatusResponse,
}
"""Path of a method -> the type of its reply."""

CHANNEL_OPTIONS = (
    # gRPC's defaults: replies of at most 4 MiB, and up to two minutes until it connects to a restarted server again.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

_HINTS: dict[StatusCode, tuple[type[errors.ClientError], str]] = {
    StatusCode.INVALID_ARGUMENT: (errors.BadRequestError, "The served graph refused the request."),
    StatusCode.FAILED_PRECONDITION: (errors.BadRequestError, "The served model cannot answer such a request."),
    StatusCode.OUT_OF_RANGE: (errors.BadRequestError, "The served graph refused the request."),
    StatusCode.UNIMPLEMENTED: (errors.BadRequestError, "The target does not implement TensorFlow Serving's gRPC API."),
    StatusCode.UNAUTHENTICATED: (errors.BadRequestError, "Pass credentials=... ."),
    StatusCode.PERMISSION_DENIED: (errors.BadRequestError, "These credentials may not do this."),
    StatusCode.NOT_FOUND: (errors.ModelNotFoundError, "Check the model name, and the versions with model_status()."),
    StatusCode.UNAVAILABLE: (errors.UnavailableError, "Check that the server runs at this address and is ready."),
    StatusCode.CANCELLED: (errors.UnavailableError, "The channel was closed or the server stopped."),
    StatusCode.RESOURCE_EXHAUSTED: (errors.OverloadedError, "Send less, or add servers; a retry makes it worse."),
    StatusCode.DEADLINE_EXCEEDED: (errors.DeadlineError, "Give more time (timeout_seconds=...) or fewer candidates."),
}
_QUEUE_FULL = "queue"
"""An overloaded TensorFlow Serving answers UNAVAILABLE with the message "The batch scheduling queue ... is full"."""


CLOSED = "the client is closed. Make another one."


class Deadline:
    """The time budget of a request in seconds from now, shared by all its calls.

    Raises:
        BadRequestError: the budget is not a positive number.
    """

    def __init__(self, seconds: float):
        self.seconds = number("timeout_seconds", seconds)
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self._end - time.monotonic())

    def remaining(self, step: str) -> float:
        """Seconds left for a step of the request.

        Raises:
            DeadlineError: no time is left.
        """
        left = self.left
        if left <= 0:
            raise errors.DeadlineError(f"{step}: the budget of {self.seconds:g} s was used up before the call.")
        return left

    def part(self, share: float, step: str) -> "Deadline":
        """A separate deadline for an optional step: a share of the time that is left."""
        return Deadline(self.remaining(step) * share)


@dataclass(frozen=True)
class Call:
    """One gRPC call. All calls only read, so sending one twice is safe.

    Attributes:
        step: description of the call for messages.
        kind: the signature, "metadata" or "status".
    """

    path: str
    request: Message
    step: str
    kind: str

    @classmethod
    def predict(cls, request: wire.PredictRequest) -> "Call":
        """A call that runs a signature."""
        signature = request.model_spec.signature_name
        return cls(PREDICT, request, f"{signature} of {_spec_text(request.model_spec)}", signature)

    @classmethod
    def metadata(cls, spec: wire.ModelSpec) -> "Call":
        """A call that returns the signatures of a version."""
        request = wire.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return cls(METADATA, request, f"metadata of {_spec_text(spec)}", "metadata")

    @classmethod
    def status(cls, spec: wire.ModelSpec) -> "Call":
        """A call that returns the states of the versions."""
        request = wire.GetModelStatusRequest(model_spec=spec)
        return cls(STATUS, request, f"status of {_spec_text(spec)}", "status")

    def explain(self, error: BaseException | None, target: str, seconds: float) -> errors.ClientError:
        """The client error for a failed call. `error` is `None` if closing the channel cancelled the call."""
        where = f"{self.step} at {target}"
        if not isinstance(error, grpc.RpcError):  # gRPC raises errors of several types for a closed channel
            return errors.BadRequestError(f"{where}: {CLOSED}")
        code = error.code()
        kind, hint = _HINTS.get(code, (errors.ServerError, "See the log of the server."))
        details = _shorten(error.details())
        if code is StatusCode.UNAVAILABLE and _QUEUE_FULL in details and "full" in details:
            kind, hint = _HINTS[StatusCode.RESOURCE_EXHAUSTED]
        label = self.request.model_spec.version_label
        if code is StatusCode.INVALID_ARGUMENT and label and "label" in details.lower():
            kind = errors.ModelNotFoundError
            hint = "Ask for a label that the server's models.config gives to a version."
        if code is StatusCode.RESOURCE_EXHAUSTED and "metadata" in details.lower():
            kind, hint = errors.BadRequestError, "The metadata of the client (metadata=...) is too long for the server."
        within = f" within {seconds * 1000:.0f} ms" if kind is errors.DeadlineError else ""
        return kind(f"{where}{within}: {code.name}: {details} {hint}")


def _spec_text(spec: wire.ModelSpec) -> str:
    version = f" version {spec.version.value}" if spec.HasField("version") else ""
    label = f" label '{spec.version_label}'" if spec.version_label else ""
    return f"model '{spec.name}'{version}{label}"


def _shorten(text: str | None, limit: int = 600) -> str:
    text = " ".join((text or "no details").split())
    text = text if len(text) <= limit else text[:limit] + "..."
    return text if text.endswith((".", "!", "?")) else text + "."
