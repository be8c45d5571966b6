"""Configuration files in the text format of TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import message, text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.server.directory import find_versions, latest
from serving.server.status import invalid_argument

PLATFORM = "tensorflow"


class ConfigError(Exception):
    """An invalid configuration file. The message names the file, what is wrong in it, and what is allowed."""


def read_text_proto(path: Path, empty: message.Message, secret: bool = False) -> Any:
    """Fills a message from a file in protobuf's text format.

    Args:
        path: The file.
        empty: The message to fill.
        secret: The file holds keys, so that an error tells where it is and nothing of the content.

    Raises:
        ConfigError: The file cannot be read, or is not such a message.
    """
    try:
        return text_format.Parse(path.read_text("utf-8"), empty)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        told = _place(error) if secret else str(error)
        raise ConfigError(f"{path} is no {empty.DESCRIPTOR.name} in text form: {told}") from None


def _place(error: text_format.ParseError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return f"see line {error.GetLine()}, column {error.GetColumn()}"


def read_model_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """The content of the file of `--model-config-file`.

    Raises:
        ConfigError: The file cannot be read or parsed.
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
    """Checks a configuration before it replaces the current one.

    Args:
        config: A configuration with a `model_config_list`.

    Raises:
        StatusError: A model has no name or the name of another one, its path is relative or not a directory, its
            platform is not TensorFlow, or a specific version does not exist.
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


def require_versions(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Checks that each model has a version. At the start a server waits for one, but later one that serves would go.

    Raises:
        StatusError: A path holds no version.
    """
    for model in config.model_config_list.config:
        if not find_versions(Path(model.base_path)):
            raise invalid_argument(
                f"Could not find any version of servable {model.name}: {model.base_path} holds no numeric directory"
            )


def require_list(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Checks that a configuration from the network is a list of models.

    Raises:
        StatusError: It is not.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
