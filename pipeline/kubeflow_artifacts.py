"""From what Kubeflow tells a container to what TFX reads, and back; plain JSON, so that it costs no import.

Kubeflow's launcher downloads every input to a folder of the container before, and uploads every output's folder after;
TFX must see the folders and Kubeflow the remote places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tfctr.errors import UserError

Json = dict[str, Any]

ABSENT = "absent"
"""The custom property of an artifact that stands for none: the component that takes it is called without it."""

_FOLDERS = {"minio": "minio", "s3": "s3", "gs": "gcs"}
"""Scheme of a remote place -> the folder in which the launcher keeps what lies there."""
_LOGS = "executor-logs"
"""An output that Kubeflow adds to every task, of a type that TFX does not know."""
_ADDED = frozenset({"display_name", "store_session_info"})
"""Metadata that Kubeflow adds to every artifact."""
_FILES = frozenset(f"tfx.{name}" for name in ("String", "Integer", "Float", "Boolean", "Bytes", "JsonValue"))
"""Titles of the artifact types that are one file; all others are a folder."""


class Places:
    """Remote places, and the folders of this container that stand for them.

    Args:
        mounts: Where the launcher keeps its folders; the root of the file system, except in tests.
    """

    def __init__(self, mounts: Path = Path("/")) -> None:
        self._mounts = mounts
        self._remote: dict[str, str] = {}

    def local(self, artifact: Json) -> str:
        """The folder of an artifact.

        Raises:
            UserError: when the launcher has no folder for its place.
        """
        uri = artifact["uri"]
        scheme, _, place = uri.partition("://")
        path = artifact.get("customPath")
        if not path:
            if scheme not in _FOLDERS or not place:
                allowed = ", ".join(f"{name}://" for name in _FOLDERS)
                raise UserError(f"{uri}: an artifact must lie at one of {allowed}; submit the run with such a root")
            path = str(self._mounts / _FOLDERS[scheme] / place)
        self._remote[path] = uri
        return path

    def remote(self, path: str) -> str:
        """The remote place of a folder, or of what lies in it; any other text comes back as it is."""
        for local, uri in self._remote.items():
            if path == local or path.startswith(f"{local}/"):
                return uri + path[len(local) :]
        return path


def for_tfx(executor_input: Json, inputs_spec: Json, places: Places) -> Json:
    """Returns Kubeflow's executor input in the form that TFX reads, and makes the folders that outputs go to.

    Works on the forms with ML Metadata and without.

    Args:
        executor_input: What Kubeflow puts in the place of `{{$}}`.
        inputs_spec: The component's inputs, as compiled. The input's own type is empty in the one form and a whole
            document in a field for its title in the other.
        places: Remembers what stands for what.
    """
    inputs, outputs = executor_input.get("inputs", {}), executor_input["outputs"]
    types = {name: spec["artifactType"] for name, spec in inputs_spec.get("artifacts", {}).items()}
    read = {
        name: {"artifacts": present}
        for name, given in inputs.get("artifacts", {}).items()
        if (present := [_input(one, types[name], places) for one in given["artifacts"] if not _is_absent(one)])
    }
    written = {
        name: {"artifacts": [_output(one, places) for one in given["artifacts"]]}
        for name, given in outputs.get("artifacts", {}).items()
        if name != _LOGS
    }
    parameters = _with_own_parameters(inputs.get("parameterValues", {}))
    return {
        **executor_input,
        "inputs": {**inputs, "artifacts": read, "parameterValues": parameters},
        "outputs": {**outputs, "artifacts": written},
    }


def for_kubeflow(executor_output: Json, places: Places) -> Json:
    """Returns TFX's executor output with remote places for folders, and without the nulls that fail a task."""
    cleaned = _without_nulls(executor_output, places)
    assert isinstance(cleaned, dict)
    return cleaned


def _input(artifact: Json, kind: Json, places: Places) -> Json:
    metadata = {key: _unwrapped(value) for key, value in artifact.get("metadata", {}).items() if key not in _ADDED}
    # Without ML Metadata the name is the output's key, which a model and its baseline share.
    name = artifact.get("artifactId") or artifact["name"]
    return {"name": name, "type": kind, "uri": places.local(artifact), "metadata": metadata}


def _output(artifact: Json, places: Places) -> Json:
    path = places.local(artifact)
    title = yaml.safe_load(artifact["type"].get("instanceSchema", "")) or {}
    folder = Path(path).parent if title.get("title") in _FILES else Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return {**artifact, "uri": path}


def _is_absent(artifact: Json) -> bool:
    return bool(artifact.get("metadata", {}).get(ABSENT))


def _unwrapped(value: Any) -> Any:
    """A list or a mapping, which Kubeflow wraps in one more mapping."""
    if isinstance(value, dict) and len(value) == 1:
        [(key, inner)] = value.items()
        if key in ("list", "struct"):
            return inner
    return value


def _with_own_parameters(parameters: Json) -> Json:
    """Puts parameters that `custom_config` has too in there, where Kubeflow itself fills nothing in."""
    if "custom_config" not in parameters:
        return dict(parameters)
    custom = json.loads(parameters["custom_config"]) or {}
    # ExampleGen's is a message with a field of this very name.
    own = {name: parameters[name] for name in custom if name in parameters and name != "custom_config"}
    others = {name: value for name, value in parameters.items() if name not in own}
    return {**others, "custom_config": json.dumps({**custom, **own}, sort_keys=True)}


def _without_nulls(value: Any, places: Places) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner, places) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner, places) for inner in value if inner is not None]
    return places.remote(value) if isinstance(value, str) else value
