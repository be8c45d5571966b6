"""The models.config file of a rollout: its one model, its labels, and since when a version has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfctr.errors import UserError
from tfctr.storage import write_text

PREVIOUS = "previous"
"""The label of the version that a promotion replaced. Clients do not ask for it."""

# The time since when no label directs new requests to a version. The server ignores it as a comment; `drop` uses it.
_NOTE = re.compile(r"^# version (\d+) retired since (\S+)$", re.MULTILINE)


def read_models_config(path: Path) -> tuple[ModelServerConfig, dict[int, float]]:
    """The configuration of a file, and since when its retired versions are: in seconds since 1970, by version.

    Raises:
        UserError: The file cannot be read or parsed, or does not have exactly one model.
    """
    try:
        text = path.read_text()
        config = text_format.Parse(text, ModelServerConfig())
        models = [model.name for model in config.model_config_list.config]
        noted = {int(version): datetime.fromisoformat(since).timestamp() for version, since in _NOTE.findall(text)}
        # A file that was not written by a step has no such comments; the age of the file counts instead.
        written = path.stat().st_mtime
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (text_format.ParseError, ValueError) as error:
        raise UserError(f"{path}: must be a models.config file. Received: {error}") from None
    if len(models) != 1:
        found = ", ".join(models) or "none"
        raise UserError(f"{path}: must have one model, whose versions are moved. Received: {found}")
    return config, {version: noted.get(version, written) for version in _retired(config)}


def write_models_config(path: Path, config: ModelServerConfig, retired: Mapping[int, float], now: float) -> None:
    """Replaces a file; versions that are retired in the configuration but not in `retired` are so since now.

    Raises:
        UserError: The file cannot be written.
    """
    notes = ""
    for version in sorted(_retired(config)):
        since = datetime.fromtimestamp(retired.get(version, now), UTC)
        notes += f"# version {version} retired since {since.isoformat(timespec='seconds')}\n"
    try:
        write_text(path, notes + text_format.MessageToString(config))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _retired(config: ModelServerConfig) -> set[int]:
    """The versions that are loaded although no label directs new requests to them."""
    (model,) = config.model_config_list.config
    requested = {number for label, number in model.version_labels.items() if label != PREVIOUS}
    return set(model.model_version_policy.specific.versions) - requested


def with_labels(config: ModelServerConfig, labels: dict[str, int]) -> ModelServerConfig:
    """The same configuration with other labels."""
    changed = ModelServerConfig()
    changed.CopyFrom(config)
    (model,) = changed.model_config_list.config
    model.version_labels.clear()
    for label, version in sorted(labels.items()):
        model.version_labels[label] = version
    return changed


def difference(old: ModelServerConfig, new: ModelServerConfig) -> str:
    """The lines that changed; empty if nothing did."""
    if old == new:
        return ""
    lines = []
    for sign, config in (("-", old), ("+", new)):
        (model,) = config.model_config_list.config
        policy = text_format.MessageToString(model.model_version_policy, as_one_line=True)
        labels = " ".join(f"{label}={number}" for label, number in sorted(model.version_labels.items()))
        lines.append(f"{sign} {policy} labels: {labels or 'none'}")
    return "\n".join(lines)
