"""The models of a server and their configuration."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.config import check_models, require_versions
from serving.server.engine import LoadedModel
from serving.server.metrics import Metrics
from serving.server.status import StatusError, invalid_argument, not_found
from serving.server.version import requested_version
from serving.server.versions import VersionManager

logger = logging.getLogger("serving.server")


class Models:
    """The models of a `ModelServerConfig`, each with a `VersionManager`.

    Args:
        config: The configuration at the start.
        load_model: Loads a version from its directory.
        metrics: Where loads are counted.
        poll_seconds: How often the directory of a model is read.
        retry_seconds: How long until a version that failed to load is tried again without a change of its files.

    Raises:
        StatusError: The configuration is invalid.
    """

    def __init__(
        self,
        config: model_server_config_pb2.ModelServerConfig,
        load_model: Callable[[Path], LoadedModel],
        metrics: Metrics,
        poll_seconds: float,
        retry_seconds: float,
    ) -> None:
        check_models(config)
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._load_model = load_model
        self._metrics = metrics
        self._applying = threading.Lock()
        # Also has the models that are no longer configured, so that the status of their versions can be returned.
        self._by_name: dict[str, VersionManager] = {}
        self._config = config
        self._wanted = {model.name: self._manager(model) for model in config.model_config_list.config}

    def _manager(self, model: model_server_config_pb2.ModelConfig) -> VersionManager:
        manager = VersionManager(
            model.name,
            Path(model.base_path),
            self._load_model,
            policy=model.model_version_policy,
            poll_seconds=self._poll_seconds,
            retry_seconds=self._retry_seconds,
            metrics=self._metrics,
        )
        self._by_name = {**self._by_name, model.name: manager}
        return manager

    @property
    def managers(self) -> dict[str, VersionManager]:
        """The configured models by name. The table is replaced and not changed, so that it can be read meanwhile."""
        return self._wanted

    def start(self) -> None:
        """Begins to load versions from the directories."""
        for manager in self._wanted.values():
            manager.start()

    def stop(self) -> None:
        """Frees all models. Requests in progress end with an error."""
        for manager in self._by_name.values():
            manager.stop(cancel=True)

    def assign_labels(self) -> None:
        """Assigns the labels of the configuration. If one of them cannot be assigned, none is.

        Raises:
            StatusError: The version of a label is not available.
        """
        listed = self._config.model_config_list.config
        for model in listed:
            self._wanted[model.name].check_labels(model.version_labels)
        for model in listed:
            self._wanted[model.name].set_labels(model.version_labels)

    def apply(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the configuration, and returns when all its models are loaded or failed to load.

        Models that it does not name are unloaded. An invalid configuration changes nothing. A model that cannot be
        loaded is reported and tried again later.

        Args:
            config: The complete new configuration.

        Raises:
            StatusError: The configuration is invalid, or some of its models are not available.
        """
        with self._applying:
            check_models(config)
            require_versions(config)
            listed = {model.name: model for model in config.model_config_list.config}
            removed = {name: manager for name, manager in self._wanted.items() if name not in listed}
            kept = {name: manager for name, manager in self._wanted.items() if name in listed}
            new = {name: self._manager(model) for name, model in listed.items() if name not in kept}
            self._wanted = {**kept, **new}
            for name, manager in removed.items():
                logger.info("%s is no longer configured", name)
                manager.stop()
            if removed:
                gc.collect()  # a manager does this after an unload, but these managers are stopped
            self._config = config
            problems = []
            for name, model in listed.items():
                if name in new:
                    new[name].start()
                try:
                    self._wanted[name].update(Path(model.base_path), model.model_version_policy)
                except StatusError as error:
                    problems.append(error.message)
            if problems:
                message = f"{len(problems)} model(s) did not become available: {{{'; '.join(problems)}}}"
                raise StatusError(grpc.StatusCode.UNKNOWN, message)
            self.assign_labels()

    def find(self, spec: model_pb2.ModelSpec, missing: str) -> VersionManager:
        """The manager of the model of a request.

        Args:
            spec: The ModelSpec of the request.
            missing: The message if there is no such model, with `{servable}` for model and version.

        Raises:
            StatusError: There is no such model.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        manager = self._by_name.get(spec.name)
        if manager is None:
            version = requested_version(spec, {})
            servable = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            served = ", ".join(sorted(self._wanted)) or "none"
            raise not_found(f"{missing.format(servable=servable, name=spec.name)}. Served models: {served}")
        return manager
