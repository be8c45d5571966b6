"""One version of a model, its status, and how a request selects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from serving.server.engine import LoadedModel
from serving.server.status import invalid_argument

State = get_model_status_pb2.ModelVersionStatus.State
START, LOADING, AVAILABLE = State.Value("START"), State.Value("LOADING"), State.Value("AVAILABLE")
UNLOADING, END = State.Value("UNLOADING"), State.Value("END")


@dataclass
class Version:
    """One version of a model. `users` is the number of requests in progress, guarded by the lock of the manager."""

    number: int
    directory: Path
    state: int = START
    error: tuple[grpc.StatusCode, str] | None = None
    model: LoadedModel | None = None
    users: int = 0
    # The files at the last attempt to load, the number of attempts, and the time of the next one.
    files: tuple[Any, ...] = field(default=(), repr=False)
    attempts: int = 0
    retry_at: float = 0.0

    def status(self) -> get_model_status_pb2.ModelVersionStatus:
        """The state and the last error, as a message of GetModelStatus."""
        status = get_model_status_pb2.ModelVersionStatus(version=self.number, state=self.state)
        status.status.SetInParent()
        if self.error is not None:
            status.status.error_code = self.error[0].value[0]
            status.status.error_message = self.error[1]
        return status


def requested_version(spec: model_pb2.ModelSpec, labels: Mapping[str, int]) -> int | None:
    """The version that a ModelSpec selects, or None for the latest.

    Args:
        spec: The ModelSpec of a request.
        labels: The version of each label.

    Raises:
        StatusError: The label of the ModelSpec is not assigned.
    """
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        if spec.version_label not in labels:
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        return labels[spec.version_label]
    return spec.version.value if choice == "version" else None
