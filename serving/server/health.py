"""`grpc.health.v1.Health`, tied to the model: what a Kubernetes gRPC probe asks."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

# TensorFlow Serving knows the two short names; "" and the full names are for probes that ask for those.
SERVICES = (
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)


def health_handler(healthy: Callable[[], bool]) -> grpc.GenericRpcHandler:
    """The handler of the service. `Watch` is not implemented, which clients take for "no opinion".

    Args:
        healthy: Whether requests would be answered now.
    """

    def check(request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        if request.service not in SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service}")
        return HealthCheckResponse(status="SERVING" if healthy() else "NOT_SERVING")

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=HealthCheckRequest.FromString,
        response_serializer=HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
