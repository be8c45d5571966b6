"""The embedded server."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from pathlib import Path

from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.admission import Admission, Limits
from serving.server.api import Api
from serving.server.batching import Batcher
from serving.server.calls import Calls
from serving.server.config import ConfigError, one_model, read_model_config
from serving.server.engine import LoadedModel, RequestLimits
from serving.server.fronts import Fronts, PortError, listen
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.options import BatchingOptions
from serving.server.rest import RestServer
from serving.server.services import Services
from serving.server.status import StatusError
from serving.server.tls import Certificates
from serving.server.versions import VersionManager

logger = logging.getLogger("serving.server")
# A server that waits for a version logs it after the first of these times, and then at intervals of the second.
_FIRST_WAIT_SECONDS, _WAIT_SECONDS = 1.0, 10.0
_STEP_SECONDS = 0.5


class ServerError(Exception):
    """The server cannot start. The message says what is wrong and what to do."""


class Server:
    """Serves one model, or the models of a configuration file, with TensorFlow Serving's gRPC API.

    Example:
        >>> with Server("exports/ranking", "ranking") as server:
        ...     channel = grpc.insecure_channel(server.address)

    Args:
        model_base_path: The directory with one numeric directory for each version; None with `model_config_file`.
        model_name: The name of the model in requests; by default the name of the directory.
        port: The gRPC port; 0 picks a free one.
        host: The address to listen on.
        model_config_file: A `ModelServerConfig` in text format with several models, their policies and labels; used
            instead of a directory.
        config_poll_seconds: How often that file is read again; 0 means never.
        num_versions: How many of the newest versions are served. With two, a client can finish a request with the
            version that computed its user state.
        poll_seconds: How often the directory is checked for new versions.
        retry_seconds: How long until a version that failed to load is tried again without a change of its files.
        limits: How much callers may ask of the server; by default four threads per core, as in TensorFlow Serving.
        request_limits: How large the inputs of a request may be.
        rest_port: The port of the REST API and the Prometheus metrics; 0 picks a free one, None turns both off.
        ssl_config_file: An `SSLConfig` in text format, for TLS on both ports and optionally client certificates. It is
            read again when it changes.
        allow_reload: Whether any caller may replace the configuration; with client certificates, callers may anyway.
        access_log: Whether a line is logged for each request.
        batching: Batching parameters; without them requests run alone.
        tensor_content: Send outputs as raw bytes. If False, as repeated fields, the default of TensorFlow Serving.
        intra_op_threads: The number of threads for one operation; 0 means one per core. In TensorFlow, the first
            session of a process sets the number for all sessions.
    """

    def __init__(
        self,
        model_base_path: str | os.PathLike[str] | None = None,
        model_name: str | None = None,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        model_config_file: str | os.PathLike[str] | None = None,
        config_poll_seconds: float = 0.0,
        num_versions: int = 2,
        poll_seconds: float = 1.0,
        retry_seconds: float = 60.0,
        limits: Limits | None = None,
        request_limits: RequestLimits | None = None,
        rest_port: int | None = None,
        ssl_config_file: str | os.PathLike[str] | None = None,
        allow_reload: bool = False,
        access_log: bool = False,
        batching: BatchingOptions | None = None,
        tensor_content: bool = True,
        intra_op_threads: int = 1,
    ) -> None:
        if (model_base_path is None) == (model_config_file is None):
            raise ServerError(
                "a model's directory or a configuration file is needed, and not both. "
                f"Received: {model_base_path}, {model_config_file}"
            )
        self.port = port
        self.rest_port = rest_port
        self._host = host
        self._metrics = Metrics()
        self._batcher = Batcher(batching, self._metrics) if batching else None
        self._config_file = Path(model_config_file) if model_config_file is not None else None
        self._config_poll_seconds = config_poll_seconds
        self._certificates: Certificates | None = None
        # The operations of a ranking model are small, so that splitting one over threads costs more time than it saves.
        session_config = config_pb2.ConfigProto(intra_op_parallelism_threads=intra_op_threads)
        self._request_limits = request_limits or RequestLimits()
        load_model = partial(
            LoadedModel, session_config=session_config, batcher=self._batcher, limits=self._request_limits
        )
        try:
            if ssl_config_file is not None:
                self._certificates = Certificates(Path(ssl_config_file))
            if self._config_file is not None:
                self._config = read_model_config(self._config_file)
            else:
                self._config = _one_model(Path(model_base_path or "").absolute(), model_name, num_versions)
            self._models = Models(self._config, load_model, self._metrics, poll_seconds, retry_seconds)
        except ConfigError as error:
            raise ServerError(str(error)) from None
        except StatusError as error:
            raise ServerError(f"{self._config_file}: {error.message}") from None
        verified = self._certificates is not None and self._certificates.verifies_clients
        self._admission = Admission(limits or Limits())
        self._api = Api(self._models, self._metrics, tensor_content, allow_reload or verified)
        self._calls = Calls(self._metrics, lambda: self._models.managers, access_log)
        self._fronts: Fronts | None = None
        self._stopping = threading.Event()
        for name in ("queued", "running", "receiving", "bytes_in_flight"):
            self._metrics.gauge(f"tfctr_server_{name}", partial(getattr, self._admission, name))

    @property
    def address(self) -> str:
        """Host and port for clients."""
        return f"{self._host}:{self.port}"

    @property
    def served(self) -> dict[str, list[int]]:
        """The available versions of each model, oldest first."""
        return {name: manager.available() for name, manager in self._models.managers.items()}

    @property
    def versions(self) -> list[int]:
        """The available versions of all models."""
        return [version for versions in self.served.values() for version in versions]

    def start(self, timeout_seconds: float | None = 120.0) -> Server:
        """Opens the ports, waits until each model has an available version, and begins to answer requests.

        As in TensorFlow Serving, no request is answered before that, not even a status request.

        Args:
            timeout_seconds: How long to wait for a version; None waits without limit.

        Raises:
            ServerError: A port is in use, or no version became available in time.
        """
        # The ports are opened first, so that a port in use is reported before a model is loaded.
        fronts = self._open()
        self._models.start()
        try:
            self._wait_for_versions(timeout_seconds)
            if not self._stopping.is_set():
                self._models.assign_labels()
        except BaseException as error:
            self._close(fronts, 0.0)
            if isinstance(error, StatusError):
                raise ServerError(error.message) from None
            raise
        self._fronts = fronts
        if not self._stopping.is_set():
            fronts.start()
            if self._config_file is not None and self._config_poll_seconds:
                threading.Thread(target=self._follow_config, name="configuration", daemon=True).start()
        return self

    def _open(self) -> Fronts:
        api, admission, calls = self._api, self._admission, self._calls
        rest = None
        try:
            if self.rest_port is not None:
                listening = listen(self._host, self.rest_port)
                self.rest_port = listening.getsockname()[1]
                rest = RestServer(
                    api,
                    admission,
                    calls,
                    self._metrics,
                    listening,
                    self._certificates,
                    self._request_limits.max_elements,
                )
            fronts = Fronts(Services(api, admission, calls, self._healthy), rest, admission, self._certificates)
            self.port = fronts.open(self._host, self.port)
        except PortError as error:
            if rest is not None:
                rest.refuse()
            raise ServerError(str(error)) from None
        return fronts

    def _close(self, fronts: Fronts, grace_seconds: float) -> None:
        fronts.stop(grace_seconds)
        self._models.stop()
        if self._batcher is not None:
            self._batcher.stop()

    def _wait_for_versions(self, timeout_seconds: float | None) -> None:
        waited = 0.0
        while not self._stopping.is_set():
            step = _WAIT_SECONDS if waited else _FIRST_WAIT_SECONDS
            if timeout_seconds is not None:
                step = min(step, timeout_seconds - waited)
            waiting = [manager for manager in self._models.managers.values() if not manager.wait_until_ready(0)]
            if not waiting:
                return
            why = "; ".join(f"{manager.name}: {_why_unavailable(manager)}" for manager in waiting)
            if step <= 0:
                raise ServerError(f"no version became available in {timeout_seconds:g} s: {why}")
            if not waiting[0].wait_until_ready(step):
                waited += step
                logger.warning("waiting for a version: %s", why)

    def _follow_config(self) -> None:
        """Reads the configuration file repeatedly. An error in it is logged once and changes nothing."""
        assert self._config_file is not None
        seen = self._config
        logged = ""
        while not self._stopping.wait(self._config_poll_seconds):
            try:
                config = read_model_config(self._config_file)
                if config == seen:
                    continue
                if config.WhichOneof("config") != "model_config_list":
                    logger.warning("%s names no models: nothing is changed", self._config_file)
                    seen = config
                    continue
                # A configuration that cannot be applied now is tried again, because its versions may be on their way.
                self._models.apply(config)
                seen, logged = config, ""
                logger.info("%s is in force: %s", self._config_file, self.served)
            except (ConfigError, StatusError) as error:
                if str(error) != logged:
                    logger.error("%s: %s", self._config_file, error)
                logged = str(error)

    def _healthy(self) -> bool:
        served = self.served
        return not self._stopping.is_set() and bool(served) and all(served.values())

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Refuses new requests, lets those in progress finish, and frees the models.

        Args:
            grace_seconds: How long requests in progress may take before they are cancelled.
        """
        self._stopping.set()
        fronts, self._fronts = self._fronts, None
        if fronts is not None:
            self._close(fronts, grace_seconds)

    def request_stop(self) -> None:
        """Ends `wait()`, or a `start()` that still waits for a version."""
        self._stopping.set()

    def wait(self) -> None:
        """Blocks until `request_stop()`."""
        # Waits in steps, because a signal just before an unlimited wait would be handled only after the wait.
        while not self._stopping.wait(_STEP_SECONDS):
            pass

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _one_model(base_path: Path, name: str | None, num_versions: int) -> model_server_config_pb2.ModelServerConfig:
    if not base_path.is_dir():
        raise ServerError(f"{base_path} is not a directory: it must hold one numeric directory per model version")
    if num_versions < 1:
        raise ServerError(f"num_versions must be at least 1. Received: {num_versions}")
    return one_model(name or base_path.name, base_path, num_versions)


def _why_unavailable(manager: VersionManager) -> str:
    return "; ".join(manager.problems()) or f"no numeric directory with a loaded model in {manager.base_path} yet"
