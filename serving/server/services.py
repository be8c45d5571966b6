"""The two gRPC services of TensorFlow Serving, which pass calls to `Api` and turn errors into gRPC statuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.server.api import Api
from serving.server.status import StatusError, as_status

logger = logging.getLogger("serving.server")
UNEXPECTED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def add_services(api: Api, server: grpc.Server) -> None:
    """Registers PredictionService, without MultiInference, and ModelService.

    Args:
        api: Implements the calls.
        server: The gRPC server.
    """
    prediction = prediction_service_pb2_grpc.PredictionServiceServicer()
    for name in ("Predict", "Classify", "Regress"):
        setattr(prediction, name, _method(partial(api.run, name, "GRPC")))
    prediction.GetModelMetadata = _method(api.metadata)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    models = model_service_pb2_grpc.ModelServiceServicer()
    models.GetModelStatus = _method(api.status)
    models.HandleReloadConfigRequest = _method(api.reload)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)


def _method(call: Callable[[Any, int | None], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(request, _remaining_ms(context))
        except Exception as error:
            code, message = as_status(error)
            if code in UNEXPECTED:
                logger.error("a request failed: %s", message, exc_info=error)
        context.abort(code, message)

    return answer


def _remaining_ms(context: grpc.ServicerContext) -> int | None:
    """The milliseconds until the deadline of the client, or None if it has no deadline.

    Raises:
        StatusError: The deadline has passed.
    """
    remaining = context.time_remaining()
    if remaining is None:
        return None
    if remaining <= 0:
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was run")
    # At least 1, because 0 means no deadline. A deadline of more than a day counts as none.
    return max(1, int(remaining * 1000)) if remaining < 86400 else None
