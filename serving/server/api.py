"""What each call does, whatever brought it: TensorFlow Serving's request messages in, its reply messages out."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from serving.server import codec
from serving.server.config import require_list
from serving.server.engine import DEFAULT_SIGNATURE
from serving.server.models import Models
from serving.server.status import invalid_argument

SIGNATURE_FIELD = "signature_def"
NOT_SERVED = "Servable not found for request: {servable}"


class Api:
    """The calls of PredictionService and ModelService. Each raises `StatusError` or TensorFlow's own errors.

    Args:
        models: The served models.
        tensor_content: Send outputs as raw bytes; False sends repeated fields, TensorFlow Serving's default.
    """

    def __init__(self, models: Models, tensor_content: bool = True) -> None:
        self._models = models
        self._tensor_content = tensor_content

    def predict(self, request: predict_pb2.PredictRequest, timeout_ms: int | None) -> predict_pb2.PredictResponse:
        """Runs one signature of one version."""
        spec = _spec(request)
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        with self._models.find(spec, NOT_SERVED).use(spec) as (version, model):
            outputs = model.predict(signature_name, request.inputs, list(request.output_filter), timeout_ms)
        response = predict_pb2.PredictResponse()
        _tell(response.model_spec, spec.name, version, signature_name)
        for name, array in outputs.items():
            codec.encode(array, response.outputs[name], self._tensor_content)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, _: int | None = None
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Tells the signatures of one version."""
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
        _tell(response.model_spec, spec.name, version)
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest, _: int | None = None
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Tells the state of one version or of all."""
        spec = _spec(request)
        statuses = self._models.find(spec, "Could not find any versions of model {name}").status(spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, _: int | None = None
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the configuration; returns when the new one serves."""
        require_list(request.config)
        self._models.apply(request.config)
        return model_management_pb2.ReloadConfigResponse(status={})


def _spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec


def _tell(told: model_pb2.ModelSpec, name: str, version: int, signature_name: str = "") -> None:
    told.name = name
    told.version.value = version
    told.signature_name = signature_name
