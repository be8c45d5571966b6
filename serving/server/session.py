"""A TensorFlow session. The only module that calls private functions of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.server.codec import Array

try:
    from tensorflow.python.client import pywrap_tf_session
except ImportError:
    pywrap_tf_session = None


class Session:
    """A SavedModel in a session of its own.

    Runs go through `TF_SessionRun`, as in TensorFlow Serving. Errors about types and shapes are therefore those of
    TensorFlow, and a deadline stops the run between two ops. `Session.run` takes twice as long and checks shapes in
    Python first, with messages that TensorFlow Serving does not have; it is used if a TensorFlow release does not have
    the private functions. A callable (`_make_callable_from_options`) cannot change its deadline after it is made.

    Args:
        directory: The directory of the SavedModel.
        config: The number of threads of the session; by default as TensorFlow chooses.
    """

    def __init__(self, directory: Path, config: config_pb2.ConfigProto | None = None) -> None:
        self.graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self.graph, config=config)
        try:
            with self.graph.as_default():
                self._low_level = _has_private_functions(self._session, tf.constant(0))
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(directory))
            self.graph.finalize()
            self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def.items())
            self._tensors = {
                info.name: self._handle(self.graph.get_tensor_by_name(info.name))
                for signature in self.signatures.values()
                for infos in (signature.inputs, signature.outputs)
                for info in infos.values()
                if ":" in info.name
            }
        except BaseException:
            self._session.close()
            raise

    def _handle(self, tensor: tf.Tensor) -> Any:
        return tensor._as_tf_output() if self._low_level else tensor

    def close(self) -> None:
        """Frees the session. A run in progress ends before its next op, with an error."""
        self._session.close()

    def run(self, feeds: Mapping[str, Array], fetches: list[str], timeout_ms: int | None = None) -> list[Array]:
        """Runs the graph.

        Args:
            feeds: The value of each input, by the name of its tensor.
            fetches: The names of the tensors to return.
            timeout_ms: The run stops after this long.

        Raises:
            tf.errors.OpError: The run failed in TensorFlow.
        """
        values = {self._tensors[name]: value for name, value in feeds.items()}
        wanted = [self._tensors[name] for name in fetches]
        options = config_pb2.RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None
        try:
            return self._run(wanted, values, options)
        except UnicodeDecodeError as error:  # the message quotes bytes of the request that are no text
            quoted = error.object.decode("utf-8", "backslashreplace")
            raise tf.errors.InvalidArgumentError(None, None, quoted) from None

    def _run(self, wanted: list[Any], values: dict[Any, Array], options: Any) -> list[Array]:
        results: list[Array]
        if not self._low_level:
            try:
                results = self._session.run(wanted, values, options=options)
            except UnicodeDecodeError:
                raise
            except (TypeError, ValueError) as error:  # of the checks in Python
                raise tf.errors.InvalidArgumentError(None, None, str(error)) from None
            return results
        if options is None:
            results = self._session._call_tf_sessionrun(None, values, wanted, [], None)
            return results
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            results = self._session._call_tf_sessionrun(buffer, values, wanted, [], None)
            return results
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)


def _has_private_functions(session: tf.compat.v1.Session, tensor: tf.Tensor) -> bool:
    needed = (
        (session, "_call_tf_sessionrun"),
        (tensor, "_as_tf_output"),
        (pywrap_tf_session, "TF_NewBufferFromString"),
        (pywrap_tf_session, "TF_DeleteBuffer"),
    )
    return all(_private(owner, name) is not None for owner, name in needed)


def _private(owner: Any, name: str) -> Any:
    """A private attribute, or None if this TensorFlow release does not have it. Tests hide one here."""
    return getattr(owner, name, None)
