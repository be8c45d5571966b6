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
_OF_KUBEFLOW = "system.Artifact"
"""The type of the outputs that Kubeflow adds to a task; TFX does not know it."""
PAGE = "system.HTML"
"""The type of an artifact that Kubeflow's pages show as a page."""
_ADDED = frozenset({"display_name", "store_session_info"})
"""Metadata that Kubeflow adds to every artifact."""
_FILES = frozenset({PAGE, *(f"tfx.{name}" for name in ("String", "Integer", "Float", "Boolean", "Bytes", "JsonValue"))})
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
        uri = artifact.get("uri") or ""
        scheme, _, place = uri.partition("://")
        path = artifact.get("customPath")
        if not path:
            if scheme not in _FOLDERS or not place:
                allowed = ", ".join(f"{name}://" for name in _FOLDERS)
                raise UserError(
                    f"{uri or 'no uri'}: an artifact must lie at one of {allowed}; submit the run with such a root"
                )
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
    inputs, outputs = _mapping(executor_input, "inputs"), _mapping(executor_input, "outputs")
    types = {name: spec["artifactType"] for name, spec in _mapping(inputs_spec, "artifacts").items()}
    read = {}
    for name, given in _artifacts(inputs):
        present = [one for one in given if not _is_absent(one)]
        if present and name not in types:
            allowed = ", ".join(sorted(types)) or "none"
            raise UserError(f"inputs.artifacts.{name}: the component has no such input. Allowed: {allowed}")
        if present:
            read[name] = {"artifacts": [_input(one, types[name], places) for one in present]}
    written = {
        name: {"artifacts": [_output(one, places) for one in given]}
        for name, given in _artifacts(outputs)
        if given and _title(given[0]) != _OF_KUBEFLOW
    }
    parameters = _with_own_parameters(_mapping(inputs, "parameterValues"))
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


def _mapping(owner: Json, key: str) -> Json:
    """What stands under a key; Kubeflow leaves out what is empty, or writes null."""
    found = owner.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"executor input: {key}: must be a mapping. Received: {type(found).__name__}")
    return found


def _artifacts(owner: Json) -> list[tuple[str, list[Json]]]:
    """The artifacts by name; an input that is left out has none."""
    return [(name, (given or {}).get("artifacts") or []) for name, given in _mapping(owner, "artifacts").items()]


def _input(artifact: Json, kind: Json, places: Places) -> Json:
    metadata = {
        key: _unwrapped(value)
        for key, value in _mapping(artifact, "metadata").items()
        if key not in _ADDED and value is not None
    }
    # Without ML Metadata the name is the output's key, which a model and its baseline share.
    name = artifact.get("artifactId") or artifact.get("name") or ""
    return {"name": name, "type": kind, "uri": places.local(artifact), "metadata": metadata}


def _output(artifact: Json, places: Places) -> Json:
    path = places.local(artifact)
    folder = Path(path).parent if _title(artifact) in _FILES else Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return {**artifact, "uri": path}


def _title(artifact: Json) -> str:
    """The name of an artifact's type, which stands in a document of its own or, in the one form, in its title."""
    kind = _mapping(artifact, "type")
    title = kind.get("instanceSchema") or kind.get("schemaTitle") or ""
    document = yaml.safe_load(title)
    return str(document.get("title", "") if isinstance(document, dict) else title)


def _is_absent(artifact: Json) -> bool:
    return bool(_mapping(artifact, "metadata").get(ABSENT))


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
    given = parameters["custom_config"]
    try:
        custom = (json.loads(given) if isinstance(given, str) and given else given) or {}
    except ValueError as error:
        raise UserError(f"parameterValues.custom_config: is no JSON: {error}") from None
    if not isinstance(custom, dict):
        raise UserError(f"parameterValues.custom_config: must be a mapping. Received: {type(custom).__name__}")
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
