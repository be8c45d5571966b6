"""The calls of the API, for gRPC and REST: from TensorFlow Serving's request messages to its reply messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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
from serving.server.config import require_list
from serving.server.engine import DEFAULT_SIGNATURE
from serving.server.inference import classify, regress
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.status import as_status, invalid_argument

SIGNATURE_FIELD = "signature_def"
NOT_SERVED = "Servable not found for request: {servable}"


class Api:
    """The calls of PredictionService and ModelService. They raise `StatusError` or the errors of TensorFlow.

    Args:
        models: The served models.
        metrics: Where requests are counted.
        tensor_content: Send outputs as raw bytes. If False, as repeated fields, the default of TensorFlow Serving.
    """

    def __init__(self, models: Models, metrics: Metrics, tensor_content: bool = True) -> None:
        self._models = models
        self._metrics = metrics
        self._tensor_content = tensor_content

    def run(self, name: str, entrypoint: str, request: Any, timeout_ms: int | None) -> Any:
        """Runs one of the calls that need a model, and counts it.

        Args:
            name: Predict, Classify or Regress.
            entrypoint: GRPC or REST.
            request: The request message.
            timeout_ms: How long the caller waits for the reply.
        """
        started = time.monotonic()
        status = "OK"
        try:
            return getattr(self, name.lower())(request, timeout_ms)
        except Exception as error:
            status = as_status(error)[0].name
            raise
        finally:
            served = request.model_spec.name in self._models.managers
            model = request.model_spec.name if served else ""
            self._metrics.request(model, status, name, entrypoint, time.monotonic() - started)

    def predict(self, request: predict_pb2.PredictRequest, timeout_ms: int | None) -> predict_pb2.PredictResponse:
        """Runs one signature of one version."""
        spec = _spec(request)
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        with self._models.find(spec, NOT_SERVED).use(spec) as (version, model):
            started = time.monotonic()
            outputs = model.predict(signature_name, request.inputs, list(request.output_filter), timeout_ms)
            self._metrics.run(spec.name, "Predict", time.monotonic() - started)
        response = predict_pb2.PredictResponse()
        _set_model_spec(response.model_spec, spec.name, version, signature_name)
        for name, array in outputs.items():
            codec.encode(array, response.outputs[name], self._tensor_content)
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_ms: int | None
    ) -> classification_pb2.ClassificationResponse:
        """Returns labels and scores of examples."""
        return self._infer(classify, request, classification_pb2.ClassificationResponse(), timeout_ms)

    def regress(
        self, request: regression_pb2.RegressionRequest, timeout_ms: int | None
    ) -> regression_pb2.RegressionResponse:
        """Returns values of examples."""
        return self._infer(regress, request, regression_pb2.RegressionResponse(), timeout_ms)

    def _infer(self, run: Callable[..., Any], request: Any, response: Any, timeout_ms: int | None) -> Any:
        spec = _spec(request)
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        with self._models.find(spec, NOT_SERVED).use(spec) as (version, model):
            response.result.CopyFrom(run(model, signature_name, request.input, timeout_ms))
        _set_model_spec(response.model_spec, spec.name, version, signature_name)
        return response

    def signatures(self, spec: model_pb2.ModelSpec) -> dict[str, meta_graph_pb2.SignatureDef]:
        """The signatures of a version, which determine the types of a JSON request."""
        with self._models.find(spec, NOT_SERVED).use(spec) as (_, model):
            return model.signatures

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, _: int | None = None
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
        self, request: get_model_status_pb2.GetModelStatusRequest, _: int | None = None
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of one version or of all versions."""
        spec = _spec(request)
        statuses = self._models.find(spec, "Could not find any versions of model {name}").status(spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, _: int | None = None
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the configuration, and returns when the new models are available."""
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
