"""What small components of ours do, in functions that import neither TFX nor TensorFlow themselves.

TFX's components wrap them (`pipeline.baseline`, `pipeline.gate`, `pipeline.model_check`, `pipeline.pusher`,
`pipeline.report_component`, `pipeline.schema_by_content`). In a container of Kubeflow they are called as they are:
importing TFX would cost more than all that most of them do.
"""

from __future__ import annotations

import html
import json
import shutil
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.push import push
from pipeline.servable import GIBIBYTES, SECONDS, check_model
from tfctr.errors import UserError
from tfctr.storage import MARKER, exists, join, local_copy, new_version, version_numbers, write_text

SERVING = "Format-Serving"
"""The folder of a Model artifact in which TFX looks for the SavedModel."""
SCHEMA_FILE = "schema.pbtxt"


class Artifact(Protocol):
    """An artifact: TFX's own or `PlainArtifact`. A text is the `value` of an artifact that is one file."""

    uri: str
    value: Any

    def set_int_custom_property(self, key: str, value: int) -> None:
        """Sets a custom property to a number."""

    def set_string_custom_property(self, key: str, value: str) -> None:
        """Sets a custom property to a text."""

    def get_int_custom_property(self, key: str) -> int:
        """A custom property that is a number; 0 where it is not there."""


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

    def get_int_custom_property(self, key: str) -> int:
        """A custom property that is a number; 0 where it is not there."""
        found = self.metadata.get(key) or 0
        if not isinstance(found, int | float):
            raise UserError(f"{self.uri}: its property '{key}' must be a number. Received: {found!r}")
        return int(found)

    @property
    def split_names(self) -> str:
        """The splits of an artifact that has such, as a list in JSON."""
        found = self.metadata.get("split_names") or "[]"
        return found if isinstance(found, str) else json.dumps(found)

    @property
    def value(self) -> str:
        """The text of an artifact that is one file."""
        raise AttributeError("only written here")

    @value.setter
    def value(self, text: str) -> None:
        write_text(self.uri, text)
        self.metadata["__is_null__"] = 0  # by which TFX tells an empty text from none


def check_anomalies(anomalies: Any, verdict: Artifact) -> None:
    """Raises an error with every anomaly in words, or says that there is none.

    Args:
        anomalies: The ExampleAnomalies artifact.
        verdict: The String artifact.

    Raises:
        AnomaliesFoundError: the data does not fit the schema.
    """
    from pipeline.anomalies import AnomaliesFoundError, describe

    splits = json.loads(anomalies.split_names)
    if not splits:
        raise UserError(f"{anomalies.uri}: names no split that was validated, so nothing is known of the data")
    found = describe(anomalies.uri, splits)
    if found:
        raise AnomaliesFoundError("the data does not fit the schema:\n" + "\n".join(f"  {line}" for line in found))
    verdict.value = "no anomalies"


def check_servable(
    model: Artifact, verdict: Artifact, code: str, seconds: int = SECONDS, gibibytes: int = GIBIBYTES
) -> None:
    """Raises an error when a model can't be served; see `pipeline.model_check`."""
    verdict.value = check_model(join(model.uri, SERVING), int(seconds), gibibytes)


def push_blessed(
    model: Artifact, blessing: Artifact, evaluation: Artifact, pushed_model: Artifact, destination: str
) -> None:
    """Pushes a blessed model, or says why it is not pushed; see `pipeline.pusher`."""
    if blessing.get_int_custom_property("blessed") != 1:
        from pipeline.evaluation import blessing_reasons  # which needs all of TFMA

        reasons = "; ".join(blessing_reasons(evaluation.uri))
        pushed_model.set_int_custom_property("pushed", 0)
        pushed_model.set_string_custom_property("message", f"not pushed: {reasons}")
        print(f"not pushed: {reasons}")
        return
    version, is_new = push(join(model.uri, SERVING), destination)
    pushed_model.set_int_custom_property("pushed", 1)
    pushed_model.set_string_custom_property("pushed_destination", version)
    pushed_model.set_string_custom_property("pushed_version", version.rpartition("/")[2])
    message = f"pushed to {version}" if is_new else f"this very model already stands at {version}"
    pushed_model.set_string_custom_property("message", message)
    print(message)


def write_baseline(model: Artifact, destination: str) -> None:
    """Copies the newest pushed version into `model`, or marks it absent when none is there.

    Only blessed models are pushed, so the newest version is what a new model has to beat.

    Args:
        model: The Model artifact. It holds a copy because Kubeflow refuses an artifact that lies elsewhere.
        destination: The directory a model server watches.
    """
    whole = [version for version in version_numbers(destination) if exists(join(destination, str(version), MARKER))]
    if not whole:
        # A file, because Kubeflow takes an output without any for missing.
        write_text(join(model.uri, "ABSENT"), f"{destination} has no version yet\n")
        model.set_int_custom_property("absent", 1)
        return
    newest = str(max(whole))
    # A task that is tried again finds what the try before has left.
    with local_copy(join(destination, newest)) as version, new_version(join(model.uri, SERVING), replace=True) as copy:
        shutil.copytree(version, copy, dirs_exist_ok=True)
    model.set_string_custom_property("pushed_version", newest)


def report_models(model: Artifact, report: Artifact, data: str, slices: str, baseline: Artifact | None = None) -> None:
    """Writes the page about a model, or why there is none; see `pipeline.report_component`.

    It does not raise: the model is judged and pushed all the same.
    """
    try:
        from pipeline.report import page_of

        report.value = page_of(model, baseline, data, json.loads(slices), {}, "The latest model")
    except Exception as error:
        traceback.print_exc()
        reason = f"no report: {type(error).__name__}: {error}"
        print(reason)
        report.value = f"<!doctype html><title>No report</title><p>{html.escape(reason)}</p>"


def write_schema(schema: Artifact, text: str) -> None:
    """Writes the curated schema into its artifact.

    Args:
        schema: The Schema artifact.
        text: The schema as text.
    """
    write_text(join(schema.uri, SCHEMA_FILE), text)
