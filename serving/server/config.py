"""The configuration files, in the text form that TensorFlow Serving reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import message, text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.server.directory import find_versions, latest
from serving.server.status import invalid_argument

PLATFORM = "tensorflow"


class ConfigError(Exception):
    """A configuration file cannot be used: which, what is wrong in it, what to do."""


def read_text_proto(path: Path, empty: message.Message) -> Any:
    """Fills a message from a file in protobuf's text form.

    Args:
        path: The file.
        empty: The message to fill.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        return text_format.Parse(path.read_text("utf-8"), empty)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no {empty.DESCRIPTOR.name} in text form: {error}") from None


def read_model_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """The file of `--model-config-file`.

    Raises:
        ConfigError: It cannot be read.
    """
    return read_text_proto(path, model_server_config_pb2.ModelServerConfig())


def one_model(name: str, base_path: Path, num_versions: int) -> model_server_config_pb2.ModelServerConfig:
    """The configuration of a single model that serves its newest versions."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path), model_platform=PLATFORM, model_version_policy=latest(num_versions)
    )
    return config


def check_models(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Refuses what cannot be served, before anything is changed for it.

    Args:
        config: With a `model_config_list`.

    Raises:
        StatusError: A name twice or none, a relative path or one that is no directory, another platform than
            TensorFlow, a specific version that is not there.
    """
    names = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise invalid_argument(f"The model at {model.base_path} has no name in the config list")
        if model.name in names:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        if not Path(model.base_path).is_absolute():
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise invalid_argument(
                f"Model {model.name} has model_platform {model.model_platform!r}; only {PLATFORM!r} is served"
            )
        found = find_versions(Path(model.base_path))
        if found is None:
            raise invalid_argument(f"Could not find base path {model.base_path} for servable {model.name}")
        for version in model.model_version_policy.specific.versions:
            if version not in found:
                raise invalid_argument(
                    f"Version {version} of servable {model.name}, which was requested as a specific version in the "
                    f"servable's ServableVersionPolicy, was not found in {model.base_path}"
                )


def require_list(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Refuses a configuration over the network that is no list of models.

    Raises:
        StatusError: It is none.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
