"""The served models by name, and the configuration that says which there are."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.config import check_models
from serving.server.engine import LoadedModel
from serving.server.status import StatusError, invalid_argument, not_found
from serving.server.version import requested_version
from serving.server.versions import VersionManager

logger = logging.getLogger("serving.server")


class Models:
    """What a `ModelServerConfig` names, each model followed by a manager of its own.

    Args:
        config: The first configuration.
        load_model: Loads a version's directory.
        poll_seconds: How often a model's directory is read.
        retry_seconds: How long to wait before a failed load is tried again although nothing changed.

    Raises:
        StatusError: The configuration is refused.
    """

    def __init__(
        self,
        config: model_server_config_pb2.ModelServerConfig,
        load_model: Callable[[Path], LoadedModel],
        poll_seconds: float,
        retry_seconds: float,
    ) -> None:
        check_models(config)
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._load_model = load_model
        self._applying = threading.Lock()
        # A name that is no longer configured stays here with its ended versions, so that its status can be told.
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
        )
        self._by_name = {**self._by_name, model.name: manager}
        return manager

    @property
    def managers(self) -> dict[str, VersionManager]:
        """The configured models by name."""
        return self._wanted

    def start(self) -> None:
        """Begins to follow the directories."""
        for manager in self._wanted.values():
            manager.start()

    def stop(self) -> None:
        """Frees every model. Nothing may be in flight any more."""
        for manager in self._wanted.values():
            manager.stop()

    def assign_labels(self) -> None:
        """Assigns the labels of the configuration: all, or none when one cannot be.

        Raises:
            StatusError: A label's version is not available.
        """
        listed = self._config.model_config_list.config
        for model in listed:
            self._wanted[model.name].check_labels(model.version_labels)
        for model in listed:
            self._wanted[model.name].set_labels(model.version_labels)

    def apply(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the configuration and returns when every model has been tried.

        Models that it does not name are unloaded. What is wrong in itself changes nothing. A model that cannot be
        loaded is told, and tried again later as at any other time.

        Args:
            config: The new configuration, in full.

        Raises:
            StatusError: It is refused, or not all of it is available.
        """
        with self._applying:
            check_models(config)
            listed = {model.name: model for model in config.model_config_list.config}
            removed = self._wanted.keys() - listed.keys()
            for name in removed:
                logger.info("%s is no longer configured", name)
                self._wanted.pop(name).stop()
            if removed:
                gc.collect()  # as a manager does after an unload, which these no longer do
            self._config = config
            problems = []
            for name, model in listed.items():
                if name not in self._wanted:
                    self._wanted[name] = self._manager(model)
                    self._wanted[name].start()
                try:
                    self._wanted[name].update(Path(model.base_path), model.model_version_policy)
                except StatusError as error:
                    problems.append(error.message)
            if problems:
                message = f"{len(problems)} model(s) did not become available: {{{'; '.join(problems)}}}"
                raise StatusError(grpc.StatusCode.UNKNOWN, message)
            self.assign_labels()

    def find(self, spec: model_pb2.ModelSpec, missing: str) -> VersionManager:
        """The manager of the model that a request names.

        Args:
            spec: The request's ModelSpec.
            missing: The message when there is no such model; `{servable}` stands for what was asked for.

        Raises:
            StatusError: There is none.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        manager = self._by_name.get(spec.name)
        if manager is None:
            version = requested_version(spec, {})
            servable = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise not_found(missing.format(servable=servable, name=spec.name))
        return manager
