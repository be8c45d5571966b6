"""Warm-up: the requests in an export run before its version becomes available."""

from __future__ import annotations

from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.engine import DEFAULT_SIGNATURE, LoadedModel
from serving.server.inference import classify, regress
from serving.server.status import StatusError, as_status, invalid_argument

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


def run_warmup(model: LoadedModel, directory: Path) -> int:
    """Runs every warm-up record once.

    Args:
        model: The loaded version.
        directory: The directory of the version.

    Returns:
        The number of records.

    Raises:
        StatusError: A record cannot be read, has an unsupported type or fails, or there are too many. As in TensorFlow
            Serving, such a version is not served.
    """
    path = directory / WARMUP_FILE
    if not path.is_file():
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            count += 1
            if count > MAX_RECORDS:
                raise invalid_argument(f"more than {MAX_RECORDS} records")
            _run_record(model, prediction_log_pb2.PredictionLog.FromString(record))
    except Exception as error:
        code, message = as_status(error)
        raise StatusError(code, f"warm-up record {count} of {path} failed: {message}") from error
    return count


def _run_record(model: LoadedModel, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind not in ("predict_log", "classify_log", "regress_log"):
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"a record of type {kind} cannot be run")
    request = getattr(log, kind).request
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if kind == "predict_log":
        model.predict(name, request.inputs, list(request.output_filter))
    elif kind == "classify_log":
        classify(model, name, request.input)
    else:
        regress(model, name, request.input)
