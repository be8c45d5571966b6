"""The gRPC services: those of TensorFlow Serving, and `grpc.health.v1.Health`, which a Kubernetes probe asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.admission import Admission
from serving.server.api import Api
from serving.server.calls import REQUEST_ID, Call, Calls
from serving.server.status import StatusError, as_status, cancelled, exhausted, invalid_argument, not_found
from serving.server.wire import check_parts

# TensorFlow Serving knows the two short names; "" and the full names are for probes that ask for those.
HEALTH_SERVICES = (
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)
_REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
}
_NEVER = 365 * 86400.0
_SHORT_BYTES = 2**18
Answer = Callable[[bytes, Call, grpc.ServicerContext], bytes]


class Services:
    """Answers gRPC calls.

    The methods are registered as if callers sent a stream of messages, without a parser. On the wire this is the same.
    A call then begins without its message, which is read within a time limit and counted before it is parsed.

    Args:
        api: Does the work.
        admission: Decides which calls are received and run.
        calls: Observes them.
        healthy: Whether requests would be answered now.
    """

    def __init__(self, api: Api, admission: Admission, calls: Calls, healthy: Callable[[], bool]) -> None:
        self._api = api
        self._admission = admission
        self._calls = calls
        self._healthy = healthy

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The handlers of PredictionService without MultiInference, ModelService, and Health without Watch."""
        metadata, status = get_model_metadata_pb2.GetModelMetadataRequest, get_model_status_pb2.GetModelStatusRequest
        prediction: dict[str, Answer] = dict.fromkeys(_REQUESTS, self._infer)
        prediction["GetModelMetadata"] = _at_once(metadata, self._api.metadata)
        reload = _at_once(model_management_pb2.ReloadConfigRequest, self._api.reload, self._api.check_reload)
        models: dict[str, Answer] = {
            "GetModelStatus": _at_once(status, self._api.status),
            "HandleReloadConfigRequest": reload,
        }
        services = {
            "tensorflow.serving.PredictionService": prediction,
            "tensorflow.serving.ModelService": models,
            "grpc.health.v1.Health": {"Check": _at_once(HealthCheckRequest, self._check)},
        }
        return tuple(
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: grpc.stream_unary_rpc_method_handler(partial(self._serve, name, answer))
                    for name, answer in methods.items()
                },
            )
            for service, methods in services.items()
        )

    def _serve(self, name: str, answer: Answer, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        limits = self._admission.limits
        # A configuration is in force only when its models are loaded, which takes as long as it takes.
        longest = _NEVER if name == "HandleReloadConfigRequest" else limits.request_seconds
        left = context.time_remaining()
        call = Call(
            name, "GRPC", longest if left is None else min(left, longest), headers.get(REQUEST_ID, ""), context.peer()
        )
        try:
            with self._calls.observe(call, headers):
                with self._admission.receive(context.cancel):
                    try:
                        message = next(messages, None)
                    except grpc.RpcError:
                        raise cancelled("the caller left before its message arrived") from None
                if message is None:
                    raise invalid_argument("the call ended without a message")
                call.size = len(message)
                self._admission.reserve(call.size)
                try:
                    reply = answer(message, call, context)
                finally:
                    self._admission.release(call.size)
                done = self._admission.sending(len(reply), call.remaining_ms() / 1000, context.cancel)
            if not context.add_callback(done):
                done()
            return reply
        except Exception as error:
            code, text = as_status(error)
        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        context.abort(code, text)

    def _infer(self, message: bytes, call: Call, context: grpc.ServicerContext) -> bytes:
        call.model = _model(message)
        with self._admission.place(call, context.is_active):
            reply: bytes = self._api.run(call, _parse(_REQUESTS[call.method], message)).SerializeToString()
            return reply

    def _check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        if request.service not in HEALTH_SERVICES:
            raise not_found(f"unknown service {request.service}; there are {', '.join(HEALTH_SERVICES[1:])}")
        return HealthCheckResponse(status="SERVING" if self._healthy() else "NOT_SERVING")


def _at_once(kind: Any, answer: Callable[[Any], Any], check: Callable[[], None] = lambda: None) -> Answer:
    """A method that needs no place to run, so that a full queue does not delay it. Its message is a short one."""

    def run(message: bytes, call: Call, _: grpc.ServicerContext) -> bytes:
        check()
        if len(message) > _SHORT_BYTES:
            raise exhausted(f"a message of {call.method} may have {_SHORT_BYTES} bytes. Received: {len(message)}")
        request = _parse(kind, message)
        if hasattr(request, "model_spec"):
            call.model = request.model_spec.name
        reply: bytes = answer(request).SerializeToString()
        return reply

    return run


def _parse(kind: Any, message: bytes) -> Any:
    check_parts(kind, message)
    try:
        return kind.FromString(message)
    except DecodeError:
        # The code of gRPC itself for a message that it cannot parse.
        raise StatusError(grpc.StatusCode.INTERNAL, f"the message is no {kind.DESCRIPTOR.name}") from None


def _model(message: bytes) -> str:
    """The model that a message names, without parsing the rest of it; "" if ModelSpec is not its first field.

    A refused request is counted by model too, and must not take as long as one that is answered.
    """
    if message[:1] != b"\x0a" or len(message) < 2 or message[1] >= 0x80:
        return ""
    try:
        name: str = model_pb2.ModelSpec.FromString(message[2 : 2 + message[1]]).name
    except DecodeError:
        return ""
    return name
