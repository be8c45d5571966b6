"""The gRPC services: TensorFlow Serving's messages in, the engine, TensorFlow Serving's messages out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server import codec
from serving.server.engine import DEFAULT_SIGNATURE
from serving.server.status import StatusError, as_status, invalid_argument, not_found
from serving.server.versions import VersionManager, requested_version

logger = logging.getLogger("serving.server")
SIGNATURE_FIELD = "signature_def"
_UNEXPECTED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


class Models:
    """The served models by name.

    Args:
        managers: One per model.
    """

    def __init__(self, managers: list[VersionManager]) -> None:
        self._by_name = {manager.name: manager for manager in managers}

    def find(self, spec: model_pb2.ModelSpec, missing: str) -> VersionManager:
        """The manager of the model that a request names.

        Args:
            spec: The request's ModelSpec.
            missing: The message when there is no such model; `{servable}` stands for what was asked for.

        Raises:
            StatusError: There is none.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        manager = self._by_name.get(spec.name)
        if manager is None:
            version = requested_version(spec)
            servable = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise not_found(missing.format(servable=servable, name=spec.name))
        return manager


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`: Predict and GetModelMetadata.

    Args:
        models: The served models.
        tensor_content: Send outputs as raw bytes; False sends repeated fields, TensorFlow Serving's default.
    """

    def __init__(self, models: Models, tensor_content: bool = True) -> None:
        self._models = models
        self._tensor_content = tensor_content

    def Predict(  # noqa: N802
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs one signature of one version."""
        return _answer(self._predict, request, context)

    def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Tells the signatures of one version."""
        return _answer(self._metadata, request, context)

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        manager = self._models.find(spec, "Servable not found for request: {servable}")
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        with manager.use(requested_version(spec)) as (version, model):
            outputs = model.predict(signature_name, request.inputs, list(request.output_filter), _remaining_ms(context))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature_name
        for name, array in outputs.items():
            codec.encode(array, response.outputs[name], self._tensor_content)
        return response

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_FIELD:
                raise invalid_argument(f"Metadata field {name} is not supported")
        spec = request.model_spec
        manager = self._models.find(spec, "Servable not found for request: {servable}")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with manager.use(requested_version(spec)) as (version, model):
            for key, definition in model.signatures.items():
                signatures.signature_def[key].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`: GetModelStatus.

    Args:
        models: The served models.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Tells the state of one version or of all."""
        return _answer(self._status, request, context)

    def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        manager = self._models.find(request.model_spec, "Could not find any versions of model {name}")
        statuses = manager.status(requested_version(request.model_spec))
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)


def _answer(handle: Callable[[Any, grpc.ServicerContext], Any], request: Any, context: grpc.ServicerContext) -> Any:
    try:
        return handle(request, context)
    except Exception as error:
        _abort(error, context)


def _abort(error: Exception, context: grpc.ServicerContext) -> NoReturn:
    code, message = as_status(error)
    if code in _UNEXPECTED:
        logger.error("a request failed: %s", message, exc_info=error)
    context.abort(code, message)
    raise AssertionError("abort() returned")


def _remaining_ms(context: grpc.ServicerContext) -> int | None:
    """The time that the client still waits, in whole milliseconds; None when it set no deadline.

    Raises:
        StatusError: It waits no more, so the work would be for nobody.
    """
    remaining = context.time_remaining()
    if remaining is None:
        return None
    if remaining <= 0:
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was run")
    # A longer timeout than a day is none; zero would mean none, too.
    return max(1, int(remaining * 1000)) if remaining < 86400 else None
