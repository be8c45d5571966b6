"""A gRPC server with the official messages, whose versions, failures and delays a test controls."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_METADATA_TYPE = get_model_metadata_pb2.SignatureDefMap


class StubServer(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Serves SavedModels by their own signatures.

    What the server has seen: `calls` counts the calls of each method or signature. `requests` has the last request of
    each signature, and `versions_asked` the versions that its requests went to. `cancelled` counts the calls that the
    client cancelled while they hung.

    What a test can change: `labels` maps a label to a version. `fail` maps a method or signature to the (code, message)
    of its error, and `hang` maps it to an event that it waits for. `script` maps it to a list with an entry for each of
    the next calls: a code to abort with, an event to wait for, a function to call, or `None`. `after` maps a signature
    to a function that is called once, after the signature's next run. `replace_output` maps the name of an output to
    the array that is sent in its place. With `tensor_content`, floats are sent as raw content and not in a repeated
    field. With `ignore_pin`, the newest version answers all requests. `state` is the reported state of all versions.
    `on_call` is given the context of each call.
    """

    def __init__(self, name: str = "ranking"):
        self.name = name
        self.versions: dict[int, Any] = {}
        self.labels: dict[str, int] = {}
        self.definitions: dict[int, Any] = {}
        self.calls: Counter[str] = Counter()
        self.requests: dict[str, predict_pb2.PredictRequest] = {}
        self.fail: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.hang: dict[str, threading.Event] = {}
        self.script: dict[str, list[Any]] = {}
        self.versions_asked: dict[str, list[int]] = defaultdict(list)
        self.cancelled: Counter[str] = Counter()
        self.ignore_pin = False
        self.state = "AVAILABLE"
        self.on_call: Callable[[grpc.ServicerContext], Any] = lambda context: None
        self._lock = threading.Lock()
        self.after: dict[str, Any] = {}
        self.tensor_content = False
        self.replace_output: dict[str, Any] = {}
        self._server: grpc.Server | None = None
        self.port = 0

    def load(self, version: int, directory: Path) -> None:
        from tensorflow.core.protobuf import saved_model_pb2

        self.versions[version] = tf.saved_model.load(str(directory))
        proto = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
        self.definitions[version] = proto.meta_graphs[0].signature_def

    def unload(self, version: int) -> None:
        del self.versions[version], self.definitions[version]

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    def __enter__(self) -> "StubServer":
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"localhost:{self.port}")
        self._server.start()
        return self

    def add(self, service: Callable[[grpc.Server], Any]) -> None:
        """Adds another service to the running server."""
        assert self._server is not None
        service(self._server)

    def __exit__(self, *_: object) -> None:
        for event in [*self.hang.values(), *(step for steps in self.script.values() for step in steps)]:
            if isinstance(event, threading.Event):
                event.set()
        assert self._server is not None
        self._server.stop(None).wait()

    def _version(self, spec: Any, context: grpc.ServicerContext) -> int:
        if spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
        pinned = spec.HasField("version") and not self.ignore_pin
        version = spec.version.value if pinned else max(self.versions, default=0)
        if spec.version_label and spec.version_label not in self.labels:
            message = f"Unrecognized servable version label: {spec.version_label}"  # as TensorFlow Serving says it
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        if spec.version_label:
            version = self.labels[spec.version_label]
        if version not in self.versions:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {version})"
            )
        return version

    def _disturb(self, what: str, context: grpc.ServicerContext) -> None:
        self.on_call(context)
        with self._lock:
            self.calls[what] += 1
            script = self.script.get(what)
            step = script.pop(0) if script else None
        for event in (self.hang.get(what), step):
            if isinstance(event, threading.Event):
                self._wait(event, what, context)
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "as the test wants it")
        if callable(step):
            step()
        if what in self.fail:
            context.abort(*self.fail[what])

    def _wait(self, event: threading.Event, what: str, context: grpc.ServicerContext) -> None:
        end = time.monotonic() + 30
        while not event.wait(0.01) and time.monotonic() < end:
            if not context.is_active():
                with self._lock:
                    self.cancelled[what] += 1
                context.abort(grpc.StatusCode.CANCELLED, "the client gave up")

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        signature = request.model_spec.signature_name or "serving_default"
        self._disturb(signature, context)
        version = self._version(request.model_spec, context)
        self.requests[signature] = request
        self.versions_asked[signature].append(version)
        function = self.versions[version].signatures[signature]
        definition = self.definitions[version][signature]
        if set(request.inputs) != set(definition.inputs):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"input size does not match signature. Sent extra: {set(request.inputs) - set(definition.inputs)}. "
                f"Missing but required: {set(definition.inputs) - set(request.inputs)}.",
            )
        outputs = function(**{name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()})
        reply = predict_pb2.PredictResponse()
        reply.model_spec.name = self.name
        reply.model_spec.version.value = version
        reply.model_spec.signature_name = signature
        for name, value in outputs.items():
            array = self.replace_output.get(name, value.numpy())
            proto = tf.make_tensor_proto(array)
            if not self.tensor_content and array.dtype == "float32":  # the default of TF Serving
                proto.ClearField("tensor_content")
                del proto.float_val[:]
                proto.float_val.extend(array.ravel())
            reply.outputs[name].CopyFrom(proto)
        if signature in self.after:
            self.after.pop(signature)()
        return reply

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._disturb("metadata", context)
        version = self._version(request.model_spec, context)
        signatures = _METADATA_TYPE(signature_def=dict(self.definitions[version].items()))
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.name = self.name
        reply.model_spec.version.value = version
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._disturb("status", context)
        self._version(request.model_spec, context)
        reply = get_model_status_pb2.GetModelStatusResponse()
        for version in self.versions:
            status = reply.model_version_status.add(version=version, state=self.state)
            status.status.error_code = 0
        return reply
