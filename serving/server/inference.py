"""Classify and Regress, which take serialized examples."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.server import codec
from serving.server.engine import LoadedModel
from serving.server.status import StatusError, invalid_argument


def classify(
    model: LoadedModel, name: str, examples: input_pb2.Input, timeout_ms: int | None = None
) -> classification_pb2.ClassificationResult:
    """The labels and scores of each example.

    Args:
        model: The loaded version.
        name: The name of a signature with the input `inputs` and the outputs `classes`, `scores` or both.
        examples: The examples to classify.
        timeout_ms: The run stops after this long.

    Raises:
        StatusError: The signature is not for classification, or there are no examples.
        tf.errors.OpError: The run failed in TensorFlow.
    """
    signature = _signature(model, name)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _require(signature.inputs, "inputs", "classification inputs")
    wanted = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    if not wanted:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Found: {', '.join(sorted(signature.outputs))}",
        )
    serialized = _serialized(examples)
    outputs = model.predict(name, {"inputs": serialized}, wanted, timeout_ms)
    count = serialized.tensor_shape.dim[0].size
    for alias, array in outputs.items():
        kind, name_of_kind = (object, "DT_STRING") if alias == "classes" else (np.float32, "DT_FLOAT")
        if array.dtype != kind:
            raise invalid_argument(f"Expected {alias} Tensor of {name_of_kind}. Was: {array.dtype}")
        if array.ndim != 2 or len(array) != count:
            raise invalid_argument(f"Expected {alias} Tensor of shape [{count}, classes], not {list(array.shape)}")
    shapes = {array.shape for array in outputs.values()}
    if len(shapes) > 1:
        raise invalid_argument("Tensors classes and scores have different shapes")
    empty = np.empty(shapes.pop(), object)
    classes, scores = outputs.get("classes", empty), outputs.get("scores", empty)
    result = classification_pb2.ClassificationResult()
    for labels, values in zip(classes, scores, strict=True):
        row = result.classifications.add()
        for label, value in zip(labels, values, strict=True):
            row.classes.add(label=label, score=value)
    return result


def regress(
    model: LoadedModel, name: str, examples: input_pb2.Input, timeout_ms: int | None = None
) -> regression_pb2.RegressionResult:
    """The value of each example.

    Args:
        model: The loaded version.
        name: The name of a signature with the input `inputs` and the output `outputs`.
        examples: The examples whose values are computed.
        timeout_ms: The run stops after this long.

    Raises:
        StatusError: The signature is not for regression, or there are no examples.
        tf.errors.OpError: The run failed in TensorFlow.
    """
    signature = _signature(model, name)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _require(signature.inputs, "inputs", "regression inputs")
    _require(signature.outputs, "outputs", "regression outputs")
    serialized = _serialized(examples)
    values = model.predict(name, {"inputs": serialized}, ["outputs"], timeout_ms)["outputs"]
    count = serialized.tensor_shape.dim[0].size
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT. Was: {values.dtype}")
    if values.shape not in ((count,), (count, 1)):
        raise invalid_argument(f"Expected output batch size to be {count}, in shape [{count}] or [{count}, 1]")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _signature(model: LoadedModel, name: str) -> meta_graph_pb2.SignatureDef:
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    return signature


def _require(infos: Any, alias: str, what: str) -> None:
    if alias not in infos:
        message = f"No {what} found in SignatureDef: '{alias}' is not among {', '.join(sorted(infos))}"
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)


def _serialized(examples: input_pb2.Input) -> Any:
    """The examples as a string tensor. A shared context is merged into each example."""
    kind = examples.WhichOneof("kind")
    listed = getattr(examples, kind).examples if kind else ()
    if not listed:
        raise invalid_argument("Input is empty.")
    texts = []
    for example in listed:
        if kind == "example_list_with_context":
            merged = tf.train.Example()
            merged.CopyFrom(examples.example_list_with_context.context)
            for name, feature in example.features.feature.items():
                merged.features.feature[name].CopyFrom(feature)
            example = merged
        texts.append(example.SerializeToString())
    proto = tensor_pb2.TensorProto()
    codec.encode(codec.string_array(texts), proto)
    return proto
