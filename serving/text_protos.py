"""Protobuf messages of TensorFlow Serving's text files that the package `tensorflow-serving-api` does not contain.

They are declared here with the official names and types of their fields, which is all that the text format uses. Both
TensorFlow Serving and the embedded server can thus read the same files.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tensorflow.serving"
_INT64, _STRING = "google.protobuf.Int64Value", "google.protobuf.StringValue"
# name -> (number, type). The type of a message is its full name; a wrapper is written as `name { value: 1 }`.
_Fields = dict[str, tuple[int, Any]]
_BATCHING: _Fields = {
    "max_batch_size": (1, _INT64),
    "batch_timeout_micros": (2, _INT64),
    "max_enqueued_batches": (3, _INT64),
    "num_batch_threads": (4, _INT64),
    "thread_pool_name": (5, _STRING),
    "allowed_batch_sizes": (6, [_Field.TYPE_INT64]),
    "pad_variable_length_inputs": (7, _Field.TYPE_BOOL),
}
_SSL: _Fields = {
    "server_key": (1, _Field.TYPE_STRING),
    "server_cert": (2, _Field.TYPE_STRING),
    "custom_ca": (3, _Field.TYPE_STRING),
    "client_verify": (4, _Field.TYPE_BOOL),
}
_PROMETHEUS: _Fields = {"enable": (1, _Field.TYPE_BOOL), "path": (2, _Field.TYPE_STRING)}
_MONITORING: _Fields = {"prometheus_config": (1, f"{_PACKAGE}.PrometheusConfig")}
_MESSAGES = {
    "BatchingParameters": _BATCHING,
    "SSLConfig": _SSL,
    "PrometheusConfig": _PROMETHEUS,
    "MonitoringConfig": _MONITORING,
}


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/text.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            field = message.field.add(
                name=field_name, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


def batching_parameters() -> Any:
    """An empty `BatchingParameters`."""
    return _classes()["BatchingParameters"]()


def ssl_config() -> Any:
    """An empty `SSLConfig`, which takes the contents of PEM files, not their paths."""
    return _classes()["SSLConfig"]()


def monitoring_config() -> Any:
    """An empty `MonitoringConfig`."""
    return _classes()["MonitoringConfig"]()
