"""The calls of the API, for gRPC and REST: from TensorFlow Serving's request messages to its reply messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import codec
from serving.server.calls import Call
from serving.server.config import require_list
from serving.server.engine import DEFAULT_SIGNATURE, LoadedModel
from serving.server.inference import classify, regress
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.status import StatusError, invalid_argument

SIGNATURE_FIELD = "signature_def"
NOT_SERVED = "Servable not found for request: {servable}"


class Api:
    """The calls of PredictionService and ModelService. They raise `StatusError` or the errors of TensorFlow.

    Args:
        models: The served models.
        metrics: Where requests are counted.
        tensor_content: Send outputs as raw bytes. If False, as repeated fields, the default of TensorFlow Serving.
        allow_reload: Whether callers may replace the configuration.
    """

    def __init__(
        self, models: Models, metrics: Metrics, tensor_content: bool = True, allow_reload: bool = False
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._tensor_content = tensor_content
        self._allow_reload = allow_reload

    def run(self, call: Call, request: Any) -> Any:
        """Runs Predict, Classify or Regress.

        Args:
            call: Says which one, and gets the model, version and signature that the request selects.
            request: The request message.

        Returns:
            The reply message.
        """
        return getattr(self, call.method.lower())(call, request)

    def predict(self, call: Call, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs one signature of one version."""
        response = predict_pb2.PredictResponse()
        with self._version(call, request, response) as (model, signature):
            started, timeout_ms = time.monotonic(), call.remaining_ms()
            outputs = model.predict(signature, request.inputs, list(request.output_filter), timeout_ms)
            self._metrics.run(call.model, "Predict", time.monotonic() - started)
        for name, array in outputs.items():
            codec.encode(array, response.outputs[name], self._tensor_content)
        return response

    def classify(
        self, call: Call, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Returns labels and scores of examples."""
        response = classification_pb2.ClassificationResponse()
        with self._version(call, request, response) as (model, signature):
            response.result.CopyFrom(classify(model, signature, request.input, call.remaining_ms()))
        return response

    def regress(self, call: Call, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """Returns values of examples."""
        response = regression_pb2.RegressionResponse()
        with self._version(call, request, response) as (model, signature):
            response.result.CopyFrom(regress(model, signature, request.input, call.remaining_ms()))
        return response

    @contextmanager
    def _version(self, call: Call, request: Any, response: Any) -> Iterator[tuple[LoadedModel, str]]:
        """Keeps the version of a request loaded during a block. Call and response say which one it is."""
        spec = _spec(request)
        call.model = spec.name
        signature = spec.signature_name or DEFAULT_SIGNATURE
        with self._models.find(spec, NOT_SERVED).use(spec) as (version, model):
            call.version = version
            # What the version does not know does not become a label, because callers invent names.
            call.signature = signature if signature in model.signatures else ""
            _set_model_spec(response.model_spec, spec.name, version, signature)
            yield model, signature

    def signatures(self, spec: model_pb2.ModelSpec) -> dict[str, meta_graph_pb2.SignatureDef]:
        """The signatures of a version, which determine the types of a JSON request."""
        with self._models.find(spec, NOT_SERVED).use(spec) as (_, model):
            return model.signatures

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of one version."""
        spec = _spec(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_FIELD:
                raise invalid_argument(f"Metadata field {name} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._models.find(spec, NOT_SERVED).use(spec) as (version, model):
            for key, definition in model.signatures.items():
                signatures.signature_def[key].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _set_model_spec(response.model_spec, spec.name, version)
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of one version or of all versions."""
        spec = _spec(request)
        statuses = self._models.find(spec, "Could not find any versions of model {name}").status(spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def check_reload(self) -> None:
        """Checks that callers may replace the configuration.

        Raises:
            StatusError: They may not.
        """
        if not self._allow_reload:
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                "HandleReloadConfigRequest is off, because it can load any directory that the server can read. Start "
                "the server with --allow-reload, or with an SSLConfig that verifies the certificates of clients",
            )

    def reload(self, request: model_management_pb2.ReloadConfigRequest) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the configuration, and returns when the new models are available.

        Raises:
            StatusError: Callers may not do that, or the configuration is invalid.
        """
        self.check_reload()
        require_list(request.config)
        self._models.apply(request.config)
        return model_management_pb2.ReloadConfigResponse(status={})


def _spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec


def _set_model_spec(spec: model_pb2.ModelSpec, name: str, version: int, signature_name: str = "") -> None:
    spec.name = name
    spec.version.value = version
    spec.signature_name = signature_name
