"""One loaded version of a model, run in a TensorFlow session as in TensorFlow Serving."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session

from serving.server import codec
from serving.server.batching import Batcher
from serving.server.status import StatusError, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


class LoadedModel:
    """A SavedModel in a session of its own.

    Requests go through `TF_SessionRun`, as in TensorFlow Serving. Errors about types and shapes are therefore those of
    TensorFlow, and a deadline stops the run between two ops. `Session.run` takes twice as long and checks shapes in
    Python first, with messages that TensorFlow Serving does not have; it is used only if a TensorFlow release no longer
    has the private method. A callable (`_make_callable_from_options`) cannot change its deadline after it is made.

    Args:
        directory: The version's directory.
        session_config: The number of threads of the session; by default as TensorFlow chooses.
        batcher: Combines requests into batches, if given.
    """

    def __init__(
        self,
        directory: Path,
        session_config: config_pb2.ConfigProto | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        self._batcher = batcher
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(directory))
            graph.finalize()
            self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def.items())
            self._low_level = hasattr(self._session, "_call_tf_sessionrun")
            self._tensors = {
                info.name: self._handle(graph.get_tensor_by_name(info.name))
                for signature in self.signatures.values()
                for infos in (signature.inputs, signature.outputs)
                for info in infos.values()
                if ":" in info.name
            }
        except BaseException:
            self._session.close()
            raise
        self._closed = threading.Event()

    def _handle(self, tensor: tf.Tensor) -> Any:
        return tensor._as_tf_output() if self._low_level else tensor

    def close(self) -> None:
        """Frees the model. No request may be running."""
        if not self._closed.is_set():
            self._closed.set()
            self._session.close()

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
        arrays = []
        for alias in signature.inputs:
            try:
                arrays.append(codec.decode(inputs[alias]))
            except ValueError as error:
                raise invalid_argument(f"tensor parsing error: {alias} ({error})") from None
        outputs = _wanted(signature, output_filter)
        names = [info.name for info in signature.inputs.values()]
        tensors = [self._tensors[name] for name in names]
        fetches = [self._tensors[signature.outputs[alias].name] for alias in outputs]

        def execute(values: list[codec.Array], milliseconds: int | None) -> list[codec.Array]:
            return self._run(dict(zip(tensors, values, strict=True)), fetches, milliseconds)

        if self._batcher is None:
            results = execute(arrays, timeout_ms)
        else:
            results = self._batcher.run((self, signature_name, *outputs), names, arrays, execute, timeout_ms)
        return dict(zip(outputs, results, strict=True))

    def _run(self, feeds: dict[Any, codec.Array], fetches: list[Any], timeout_ms: int | None) -> list[codec.Array]:
        options = config_pb2.RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None
        results: list[codec.Array]
        if not self._low_level:
            results = self._session.run(fetches, feeds, options=options)
            return results
        if options is None:
            results = self._session._call_tf_sessionrun(None, feeds, fetches, [], None)
            return results
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            results = self._session._call_tf_sessionrun(buffer, feeds, fetches, [], None)
            return results
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)


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
