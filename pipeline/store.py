"""Reads the results of earlier runs from ML Metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from pipeline.configs import PIPELINE_NAME

_DONE = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)


class Store:
    """The metadata of one output directory.

    Args:
        path: The SQLite file.
    """

    def __init__(self, path: str | Path) -> None:
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE
        self._store = ml_metadata.MetadataStore(config)

    def was_cached(self, execution: int) -> bool:
        """Whether an execution was served from the cache."""
        [found] = self._store.get_executions_by_id([execution])
        return bool(found.last_known_state == metadata_store_pb2.Execution.CACHED)

    def outputs(self, execution: int) -> dict[str, Any]:
        """Output artifacts of an execution by key (one each)."""
        return self._artifacts(execution, (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT))

    def inputs(self, execution: int) -> dict[str, Any]:
        """Input artifacts of an execution by key (one each)."""
        return self._artifacts(execution, (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT))

    def _artifacts(self, execution: int, kinds: tuple[Any, ...]) -> dict[str, Any]:
        events = [e for e in self._store.get_events_by_execution_ids([execution]) if e.type in kinds]
        artifacts = {a.id: a for a in self._store.get_artifacts_by_id([event.artifact_id for event in events])}
        return {event.path.steps[0].key: artifacts[event.artifact_id] for event in events}

    def latest(self, node: str) -> Mapping[str, Any] | None:
        """Output artifacts of the last execution of a node that ended well; None when there is none."""
        execution = self.latest_execution(node)
        return None if execution is None else self.outputs(execution)

    def latest_execution(self, node: str) -> int | None:
        """The last execution of a node that ended well; None when there is none."""
        context = self._store.get_context_by_type_and_name("node", f"{PIPELINE_NAME}.{node}")
        if context is None:
            return None
        done = [e.id for e in self._store.get_executions_by_context(context.id) if e.last_known_state in _DONE]
        return max(done) if done else None


def text_property(artifact: Any, name: str) -> str:
    """A custom property of an artifact as text; empty when there is none."""
    # Reading a missing key of a protobuf map with [] would insert it.
    value = artifact.custom_properties.get(name)
    return "" if value is None else str(getattr(value, value.WhichOneof("value")))
