"""The JSON bodies of classify and regress."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.server.status import invalid_argument


def examples_request(body: Mapping[str, Any], call: str) -> Any:
    """The request message for a body, without the name of the model.

    Args:
        body: The parsed body with `examples` and optionally `context` and `signature_name`.
        call: Classify or Regress.

    Raises:
        StatusError: There are no examples, or a value has a type that an example does not support.
    """
    request = classification_pb2.ClassificationRequest() if call == "Classify" else regression_pb2.RegressionRequest()
    name, examples = body.get("signature_name", ""), body.get("examples")
    if not isinstance(name, str):
        raise invalid_argument("'signature_name' key must be a string value")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("When method is classify, key 'examples' is expected and must be a non-empty list")
    request.model_spec.signature_name = name
    if "context" in body:
        target = request.input.example_list_with_context
        target.context.CopyFrom(_example(body["context"]))
    else:
        target = request.input.example_list
    target.examples.extend(_example(example) for example in examples)
    return request


def examples_body(response: Any, call: str) -> dict[str, Any]:
    """The body of a reply: for each example, pairs of label and score or one value."""
    if call == "Regress":
        return {"results": [regression.value for regression in response.result.regressions]}
    return {"results": [[[one.label, one.score] for one in row.classes] for row in response.result.classifications]}


def _example(features: Any) -> tf.train.Example:
    if not isinstance(features, dict):
        raise invalid_argument("Example must be a JSON object: values or lists of values by feature")
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        try:
            if all(isinstance(item, int) and not isinstance(item, bool) for item in values):
                feature.int64_list.value.extend(values)
            elif all(isinstance(item, int | float) and not isinstance(item, bool) for item in values):
                feature.float_list.value.extend(values)
            else:
                feature.bytes_list.value.extend(_bytes(item) for item in values)
        except (ValueError, OverflowError):
            raise invalid_argument(
                f"feature {name} must be integers, floats or strings. Received: {str(value)[:40]}"
            ) from None
    return example


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return base64.b64decode(value["b64"], validate=True)
    raise ValueError
