"""TensorFlow Serving's JSON bodies of predict requests and replies."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server import codec
from serving.server.engine import DEFAULT_SIGNATURE
from serving.server.status import StatusError, invalid_argument

Signatures = Mapping[str, meta_graph_pb2.SignatureDef]
_KINDS = {bool: "Boolean", int: "Number", float: "Number", str: "String", list: "Array", dict: "Object"}


def parse_body(body: bytes, max_values: int) -> dict[str, Any]:
    """The JSON object in the body of a request. The tokens NaN, Infinity and -Infinity are numbers.

    Args:
        body: The body.
        max_values: The largest number of values in it.

    Raises:
        StatusError: The body is not a JSON object, is nested too deeply or has too many values, or a string is not
            Unicode.
    """
    # Before parsing, because a value takes many times as much memory as text. Each follows a comma or a bracket.
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values:
        raise invalid_argument(f"JSON Parse error: a body may have {max_values} values")
    try:
        text = body.decode(json.detect_encoding(body))  # not as json.loads does it, which lets surrogates pass
        parsed = json.loads(text)
        if "\\u" in text:
            # Half of a surrogate pair is a valid escape, but no character.
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(parsed, dict):
        raise invalid_argument(f"JSON Parse error: an object is expected, not {_kind(parsed)}")
    return parsed


def predict_request(body: Mapping[str, Any], signatures: Signatures) -> tuple[predict_pb2.PredictRequest, bool]:
    """The request message for a body, with the types of its signature.

    Args:
        body: The parsed body.
        signatures: The signatures of the version.

    Returns:
        The request without the name of the model, and whether the body has one element for each row (`instances`).

    Raises:
        StatusError: The body does not fit the signature.
    """
    name = body.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str) or name not in signatures:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = name
    infos = signatures[name].inputs
    by_row = "instances" in body
    if by_row == ("inputs" in body):
        raise invalid_argument("Not formatted correctly: exactly one of the keys 'inputs' and 'instances' is expected")
    values = _from_rows(body["instances"], infos) if by_row else _from_columns(body["inputs"], infos)
    for alias, value in values.items():
        try:
            codec.encode(_array(value, infos[alias].dtype), request.inputs[alias])
        except (ValueError, OverflowError, RecursionError) as error:
            raise invalid_argument(f"tensor parsing error: {alias} ({error})") from None
    return request, by_row


def predict_body(response: predict_pb2.PredictResponse, by_row: bool) -> dict[str, Any]:
    """The body of a reply. If there is only one output, its name is left out.

    Args:
        response: The reply message.
        by_row: Whether the body has one element for each row, as in a request with `instances`.

    Raises:
        StatusError: The outputs have different numbers of rows.
    """
    arrays = {alias: codec.decode(proto) for alias, proto in sorted(response.outputs.items())}
    values = {alias: _plain(array, alias) for alias, array in arrays.items()}
    if not by_row:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    rows = {array.shape[:1] for array in arrays.values()}
    if len(rows) != 1 or rows == {()}:
        raise invalid_argument(
            f"the outputs {', '.join(arrays)} have different numbers of rows; send 'inputs' instead of 'instances'"
        )
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _from_rows(instances: Any, infos: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise invalid_argument("Expecting 'instances' value to be a list of at least one element")
    if not isinstance(instances[0], dict) or _is_base64(instances[0]):
        if len(infos) != 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {next(iter(infos)): instances}
    columns: dict[str, list[Any]] = {alias: [] for alias in infos}
    for number, row in enumerate(instances):
        try:
            _check_names(row, infos)
        except StatusError as error:
            raise invalid_argument(
                f"Failed to process element: {number} of 'instances' list. Error: INVALID_ARGUMENT: {error.message}"
            ) from None
        for alias, value in row.items():
            columns[alias].append(value)
    return columns


def _from_columns(inputs: Any, infos: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(infos) != 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {next(iter(infos)): inputs}
    _check_names(inputs, infos)
    return inputs


def _check_names(values: Any, infos: Mapping[str, Any]) -> None:
    if not isinstance(values, dict):
        raise invalid_argument(f"JSON Value of type {_kind(values)} is not an object")
    for alias in infos:
        if alias not in values:
            raise invalid_argument(f"JSON object: does not have named input: {alias}")
    for alias in values:
        if alias not in infos:
            raise invalid_argument(f"JSON object: has an input that the signature does not know: {alias}")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _array(value: Any, dtype: int) -> codec.Array:
    """The array of nested lists. Raises ValueError if their lengths differ or an element has another type."""
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    flat: list[Any] = []
    _flatten(value, shape, flat)
    target = tf.as_dtype(dtype)
    try:
        elements = [_element(item, target) for item in flat]
    except StatusError as error:
        raise ValueError(error.message) from None
    array = codec.string_array(elements) if target == tf.string else np.array(elements, target.as_numpy_dtype)
    return array.reshape(shape)


def _flatten(value: Any, shape: list[int], flat: list[Any]) -> None:
    if not shape:
        if isinstance(value, list):
            raise ValueError("Encountered list at unexpected level")
        flat.append(value)
        return
    if not isinstance(value, list):
        raise ValueError(f"Expecting a list of {shape[0]}, got {_kind(value)}")
    if len(value) != shape[0]:
        raise ValueError(f"Expecting tensor size: {shape[0]} but got: {len(value)}")
    for item in value:
        _flatten(item, shape[1:], flat)


def _element(value: Any, dtype: Any) -> Any:
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode()
        if _is_base64(value) and isinstance(value["b64"], str):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError):
                raise invalid_argument('Unable to base64 decode value of "b64"') from None
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float if dtype.is_floating else int) and not isinstance(value, bool):
        return value
    raise invalid_argument(f"JSON Value: {str(value)[:40]} Type: {_kind(value)} is not of expected type: {dtype.name}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "Null")


def _plain(array: codec.Array, alias: str) -> Any:
    """The array as JSON values. As in TensorFlow Serving, bytes become text, or base64 if the name ends in `_bytes`."""
    if array.dtype != object:
        return (array.astype(np.float32) if array.dtype.kind == "V" else array).tolist()
    flat = [
        {"b64": base64.b64encode(item).decode()} if alias.endswith("_bytes") else item.decode("utf-8", "replace")
        for item in array.ravel().tolist()
    ]
    return codec.string_array(flat).reshape(array.shape).tolist()
