"""Does without kubectl what `kubectl kustomize` does. Features that our kustomizations do not use are an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


def build(directory: Path) -> list[Document]:
    """The documents of a kustomization. A generated ConfigMap keeps its name, without a hash of its contents.

    Raises:
        ValueError: The kustomization uses a feature that is not supported here, or a part of it matches no document.
    """
    said = yaml.safe_load((directory / "kustomization.yaml").read_text("utf-8"))
    _only(said, {"apiVersion", "kind", "resources", "components", "images", "patches", "configMapGenerator"})
    documents: list[Document] = []
    for resource in said["resources"]:
        path = directory / resource
        documents += build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text("utf-8")))
    documents += [_config_map(directory, generator) for generator in said.get("configMapGenerator", [])]
    for component in said.get("components", []):
        part = yaml.safe_load((directory / component / "kustomization.yaml").read_text("utf-8"))
        _only(part, {"apiVersion", "kind", "images"})
        _set_images(documents, part)
    _set_images(documents, said)
    for patch in said.get("patches", []):
        _patch(documents, patch)
    return documents


def _only(said: Document, known: set[str]) -> None:
    if unknown := set(said) - known:
        raise ValueError(f"not understood here: {', '.join(sorted(unknown))}. Understood: {', '.join(sorted(known))}")


def _config_map(directory: Path, said: Document) -> Document:
    _only(said, {"name", "files"})
    files = [directory / file for file in said["files"]]
    data = {file.name: file.read_text("utf-8") for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": said["name"]}, "data": data}


def _set_images(documents: list[Document], said: Document) -> None:
    for image in said.get("images", []):
        _set_image(documents, image)


def _set_image(documents: list[Document], said: Document) -> None:
    _only(said, {"name", "newName", "newTag"})
    containers = [
        container
        for document in documents
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
        if container["image"] == said["name"]
    ]
    if not containers:
        raise ValueError(f"no container has the image {said['name']}")
    for container in containers:
        container["image"] = f"{said['newName']}:{said['newTag']}"


def _patch(documents: list[Document], said: Document) -> None:
    _only(said, {"target", "patch"})
    _only(said["target"], {"kind", "name"})
    wanted = (said["target"]["kind"], said["target"]["name"])
    found = [document for document in documents if (document["kind"], document["metadata"]["name"]) == wanted]
    if not found:
        raise ValueError(f"a patch finds no {' '.join(wanted)}")
    for document in found:
        for operation in yaml.safe_load(said["patch"]):
            _apply(document, operation)


def _apply(document: Document, operation: Document) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    _only(operation, {"op", "path", "value"})
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if operation["op"] == "add" and last == "-" and isinstance(place, list):
        place.append(operation["value"])
        return
    if operation["op"] not in ("add", "replace") or not isinstance(place, dict):
        raise ValueError(f"not understood here: {operation}")
    if operation["op"] == "replace" and last not in place:
        raise ValueError(f"nothing to replace at {operation['path']}")
    place[last] = operation["value"]
