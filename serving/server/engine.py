"""One loaded version of a model: its signatures, and the limits of their inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.server import codec
from serving.server.batching import Batcher
from serving.server.session import Session
from serving.server.status import StatusError, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


@dataclass(frozen=True)
class RequestLimits:
    """The size of the inputs of a request. It is checked before memory is taken for them.

    A small message can stand for large inputs, because a tensor may leave out values at its end that repeat the last.

    Args:
        max_rows: The largest dimension 0 of an input.
        max_elements: The number of elements of all inputs together.
        max_string_bytes: The bytes of all strings together, which a graph parses or splits into many times as much.
    """

    max_rows: int = 4096
    max_elements: int = 2**22
    max_string_bytes: int = 2**24

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Checks the inputs of a request.

        Raises:
            StatusError: An input has too many rows, or all inputs together have too many elements or strings too long.
        """
        elements = text = 0
        for alias, proto in inputs.items():
            dims = proto.tensor_shape.dim
            if len(dims) > codec.MAX_RANK:
                raise _parsing_error(alias, f"a shape has at most {codec.MAX_RANK} sizes. Received: {len(dims)}")
            sizes = [dim.size for dim in dims]
            if sizes and sizes[0] > self.max_rows:
                raise _parsing_error(
                    alias, f"a request may have {self.max_rows} rows (--max-rows). Received: {sizes[0]}"
                )
            declared = math.prod(sizes)
            elements += max(0, declared, codec.listed(proto))
            if elements > self.max_elements:
                raise _parsing_error(
                    alias, f"the inputs of a request may have {self.max_elements} elements (--max-elements), not more"
                )
            text += codec.string_bytes(proto, declared)
            if text > self.max_string_bytes:
                raise _parsing_error(
                    alias,
                    f"the strings of a request may have {self.max_string_bytes} bytes (--max-string-bytes). "
                    f"Received: {text} or more",
                )


NO_LIMITS = RequestLimits(max_rows=2**62, max_elements=2**62, max_string_bytes=2**62)


class LoadedModel:
    """One version of a model, which runs requests.

    Args:
        directory: The version's directory.
        session_config: The number of threads of the session; by default as TensorFlow chooses.
        batcher: Combines requests into batches, if given.
        limits: The size of the inputs of a request.
    """

    def __init__(
        self,
        directory: Path,
        session_config: config_pb2.ConfigProto | None = None,
        batcher: Batcher | None = None,
        limits: RequestLimits = NO_LIMITS,
    ) -> None:
        self._batcher = batcher
        self._limits = limits
        self.session = Session(directory, session_config)
        self.signatures = self.session.signatures

    def close(self) -> None:
        """Frees the model. Requests in progress end with an error."""
        self.session.close()

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Any],
        output_filter: list[str],
        timeout_ms: int | None = None,
    ) -> dict[str, codec.Array]:
        """Runs one signature.

        Args:
            signature_name: The name of the signature.
            inputs: The TensorProto of each input.
            output_filter: Names of the outputs to return; all if empty.
            timeout_ms: The run stops after this long.

        Raises:
            StatusError: The request does not fit the signature. The message is that of TensorFlow Serving.
            tf.errors.OpError: The run failed in TensorFlow.
        """
        signature = self.signatures.get(signature_name)
        if signature is None:
            message = f'Serving signature key "{signature_name}" not found.'
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)
        if signature.method_name not in _METHODS:
            expected = ", ".join(_METHODS)
            message = f"Expected prediction signature method_name to be one of {{{expected}}}. Was: "
            raise StatusError(grpc.StatusCode.INTERNAL, message + signature.method_name)
        _check_names(signature, inputs)
        self._limits.check(inputs)
        arrays = []
        for alias in signature.inputs:
            try:
                arrays.append(codec.decode(inputs[alias]))
            except ValueError as error:
                raise _parsing_error(alias, str(error)) from None
        outputs = _wanted(signature, output_filter)
        names = [info.name for info in signature.inputs.values()]
        fetches = [signature.outputs[alias].name for alias in outputs]

        def execute(values: list[codec.Array], milliseconds: int | None) -> list[codec.Array]:
            return self.session.run(dict(zip(names, values, strict=True)), fetches, milliseconds)

        if self._batcher is None:
            results = execute(arrays, timeout_ms)
        else:
            results = self._batcher.run((self, signature_name, *outputs), arrays, execute, timeout_ms)
        return dict(zip(outputs, results, strict=True))


def _parsing_error(alias: str, why: str) -> StatusError:
    return invalid_argument(f"tensor parsing error: {alias} ({why})")


def _check_names(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, Any]) -> None:
    if len(inputs) != len(signature.inputs):
        sent, required = set(inputs), set(signature.inputs)
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(required)} "
            f"len({_braces(sent)}) != len({_braces(required)}). "
            f"Sent extra: {_braces(sent - required)}. Missing but required: {_braces(required - sent)}."
        )
    for alias, info in signature.inputs.items():
        if alias not in inputs:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value "
                f"provided. Inputs expected to be in the set {_braces(set(signature.inputs))}."
            )


def _wanted(signature: meta_graph_pb2.SignatureDef, output_filter: list[str]) -> list[str]:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            known = _braces(set(signature.outputs))
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {known}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return output_filter or list(signature.outputs)


def _braces(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
