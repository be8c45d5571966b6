"""What small components of ours do, in functions that need neither TFX nor TensorFlow.

TFX's components wrap them (`pipeline.baseline`, `pipeline.schema_by_content`). In a container of Kubeflow they are
called as they are: importing TFX would cost more than all that they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import fsspec

from tfctr.storage import write_text

SERVING = "Format-Serving"
"""The folder of a Model artifact in which TFX looks for the SavedModel."""
SCHEMA_FILE = "schema.pbtxt"


class Output(Protocol):
    """An output artifact: TFX's own or `PlainArtifact`."""

    uri: str

    def set_int_custom_property(self, key: str, value: int) -> None:
        """Sets a custom property to a number."""

    def set_string_custom_property(self, key: str, value: str) -> None:
        """Sets a custom property to a text."""


@dataclass
class PlainArtifact:
    """An artifact without TFX.

    Attributes:
        uri: Its folder.
        metadata: Its properties.
    """

    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def set_int_custom_property(self, key: str, value: int) -> None:
        """Sets a custom property to a number."""
        self.metadata[key] = value

    def set_string_custom_property(self, key: str, value: str) -> None:
        """Sets a custom property to a text."""
        self.metadata[key] = value


def write_baseline(model: Output, destination: str) -> None:
    """Copies the newest pushed version into `model`, or marks it absent when none is there.

    Only blessed models are pushed, so the newest version is what a new model has to beat.

    Args:
        model: The Model artifact. It holds a copy because Kubeflow refuses an artifact that lies elsewhere.
        destination: The directory a model server watches.
    """
    files, root = fsspec.url_to_fs(destination)
    newest = max(_versions(files, root), default=None)
    if newest is None:
        # A file, because Kubeflow takes an output without any for missing.
        write_text(Path(model.uri) / "ABSENT", f"{destination} has no version yet\n")
        model.set_int_custom_property("absent", 1)
        return
    files.get(f"{root.rstrip('/')}/{newest}/", f"{Path(model.uri) / SERVING}/", recursive=True)
    model.set_string_custom_property("pushed_version", str(newest))


def write_schema(schema: Output, text: str) -> None:
    """Writes the curated schema into its artifact.

    Args:
        schema: The Schema artifact.
        text: The schema as text.
    """
    write_text(Path(schema.uri) / SCHEMA_FILE, text)


def _versions(files: Any, root: str) -> Iterator[int]:
    """The complete versions below a directory, as TensorFlow Serving sees them."""
    if not files.isdir(root):
        return
    for path in files.ls(root, detail=False):
        name = path.rstrip("/").rpartition("/")[2]
        if name.isdigit() and files.exists(f"{path.rstrip('/')}/saved_model.pb"):
            yield int(name)
