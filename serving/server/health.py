"""`grpc.health.v1.Health`, tied to the model: what a Kubernetes gRPC probe asks.

The two messages are declared here with their public names and field numbers. The package that ships them,
grpcio-health-checking, follows a newer major version of protobuf than TensorFlow allows, so that the two cannot be
imported into one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVING, NOT_SERVING = 1, 2
# TensorFlow Serving knows the two short names; "" and the full names are for probes that ask for those.
SERVICES = (
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)


def _messages() -> tuple[Any, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="serving/health.proto", package="grpc.health.v1", syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    values = response.enum_type.add(name="ServingStatus").value
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        values.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=field.TYPE_ENUM,
        label=field.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
    )
    # A pool of its own: the official module may be loaded in the same process one day.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [
        pool.FindMessageTypeByName(f"grpc.health.v1.{one}") for one in ("HealthCheckRequest", "HealthCheckResponse")
    ]
    return message_factory.GetMessageClass(found[0]), message_factory.GetMessageClass(found[1])


def health_handler(healthy: Callable[[], bool]) -> grpc.GenericRpcHandler:
    """The service's handler; `Watch` is not implemented, which clients take for "no opinion".

    Args:
        healthy: Whether requests would be answered now.
    """
    request_class, response_class = _messages()

    def check(request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service}")
        return response_class(status=SERVING if healthy() else NOT_SERVING)

    method = grpc.unary_unary_rpc_method_handler(
        check, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
