"""The embedded server: one model directory behind one gRPC port."""

from __future__ import annotations

import logging
import os
import threading
from concurrent import futures
from pathlib import Path
from types import TracebackType

import grpc
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.server.health import health_handler
from serving.server.services import Models, ModelService, PredictionService
from serving.server.versions import VersionManager

logger = logging.getLogger("serving.server")
MAX_MESSAGE_BYTES = 2**31 - 1
# The first word that it waits comes soon, the others now and then.
_FIRST_WAIT_SECONDS, _WAIT_SECONDS = 1.0, 10.0


class ServerError(Exception):
    """The server cannot start: what is wrong and what to do."""


class Server:
    """Serves the versions below a directory over TensorFlow Serving's gRPC API.

    Example:
        >>> with Server("exports/ranker", "ranker") as server:
        ...     channel = grpc.insecure_channel(server.address)

    Args:
        model_base_path: The directory with one numeric directory per version.
        model_name: The name that requests use; the directory's own by default.
        port: The port; 0 picks a free one.
        host: The address to listen on.
        num_versions: How many of the newest versions are served. Two, so that a client may finish with the version
            that made its user state.
        poll_seconds: How often the directory is read for new versions.
        retry_seconds: How long to wait before a version that failed to load is tried again although nothing changed.
        threads: How many requests are worked on at a time; four per core by default, as TensorFlow Serving has it.
        tensor_content: Send outputs as raw bytes; False sends repeated fields, TensorFlow Serving's default.
        session_config: How many threads TensorFlow uses for one request.
    """

    def __init__(
        self,
        model_base_path: str | os.PathLike[str],
        model_name: str | None = None,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        num_versions: int = 2,
        poll_seconds: float = 1.0,
        retry_seconds: float = 60.0,
        threads: int | None = None,
        tensor_content: bool = True,
        session_config: config_pb2.ConfigProto | None = None,
    ) -> None:
        base_path = Path(model_base_path).absolute()
        if not base_path.is_dir():
            raise ServerError(f"{base_path} is not a directory: it must hold one numeric directory per model version")
        if num_versions < 1:
            raise ServerError(f"num_versions must be at least 1, not {num_versions}")
        self.model_name = model_name or base_path.name
        self.port = port
        self._host = host
        self._tensor_content = tensor_content
        self._threads = threads or 4 * (os.cpu_count() or 1)
        self._manager = VersionManager(
            self.model_name,
            base_path,
            num_versions=num_versions,
            poll_seconds=poll_seconds,
            retry_seconds=retry_seconds,
            session_config=session_config,
        )
        self._grpc: grpc.Server | None = None
        self._stopping = threading.Event()

    @property
    def address(self) -> str:
        """Where clients connect: host and port."""
        return f"{self._host}:{self.port}"

    @property
    def versions(self) -> list[int]:
        """The versions that answer now, oldest first."""
        return self._manager.available()

    def start(self, timeout_seconds: float | None = 120.0) -> Server:
        """Takes the port, waits until a version is available and begins to answer.

        Like TensorFlow Serving, it answers nothing, status included, before there is a version to answer with.

        Args:
            timeout_seconds: How long to wait for a version; None for ever.

        Raises:
            ServerError: The port is taken, or no version became available in time.
        """
        # The port first: a second server on it is told at once, not after loading. Reuse would let both have it.
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
        pool = futures.ThreadPoolExecutor(self._threads, thread_name_prefix="request")
        server = grpc.server(pool, options=options)
        models = Models([self._manager])
        prediction = PredictionService(models, self._tensor_content)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), server)
        server.add_generic_rpc_handlers((health_handler(self._healthy),))
        try:
            self.port = server.add_insecure_port(self.address)
        except RuntimeError:
            raise ServerError(
                f"cannot listen on {self.address}: the port is in use or not allowed; choose another, or 0 for any"
            ) from None
        self._manager.start()
        try:
            self._wait_for_version(timeout_seconds)
        except BaseException:
            self._manager.stop()
            server.stop(None).wait()
            raise
        self._grpc = server
        if not self._stopping.is_set():
            server.start()
        return self

    def _wait_for_version(self, timeout_seconds: float | None) -> None:
        waited = 0.0
        while not self._stopping.is_set():
            step = _WAIT_SECONDS if waited else _FIRST_WAIT_SECONDS
            if timeout_seconds is not None:
                step = min(step, timeout_seconds - waited)
            if step <= 0:
                raise ServerError(f"no version became available in {timeout_seconds:g} s: {self._why_none()}")
            if self._manager.wait_until_available(step):
                return
            waited += step
            logger.warning("%s: waiting for a version: %s", self.model_name, self._why_none())

    def _why_none(self) -> str:
        problems = self._manager.problems()
        if problems:
            return "; ".join(problems)
        return f"no numeric directory with a loaded model in {self._manager.base_path} yet"

    def _healthy(self) -> bool:
        return not self._stopping.is_set() and bool(self.versions)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Refuses new requests, lets those under way finish, and frees the model.

        Args:
            grace_seconds: How long those under way may take; after that they are cancelled.
        """
        self._stopping.set()
        server, self._grpc = self._grpc, None
        if server is None:
            return
        server.stop(grace_seconds).wait()
        self._manager.stop()

    def request_stop(self) -> None:
        """Ends `wait()`, and a `start()` that still waits for a version; safe in a signal handler."""
        self._stopping.set()

    def wait(self) -> None:
        """Blocks until `request_stop()`."""
        self._stopping.wait()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
