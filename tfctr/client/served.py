"""Which versions the server has, as far as a client knows, and how to ask each of them."""

import logging
import threading
import time

from tfctr.client.errors import ClientError
from tfctr.client.metadata import parse_metadata
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import Declared, RequestBuilder
from tfctr.client.transport import Deadline, Transport

logger = logging.getLogger("tfctr.client")

REFRESH_SHARE = 0.25
"""Part of a request's time that the look for a newer version may take when a version is at hand."""


class ServedVersions:
    """Reads the metadata of each version once, and looks for a newer one now and then. Thread safe.

    Args:
        transport: the connection.
        name: model name on the server.
        version: always ask for this version.
        label: always ask for the version with this label.
        declared: the feature file, if there is one.
        strict: see `RequestBuilder`.
        refresh_seconds: how often to look for a newer version.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        version: int | None,
        label: str | None,
        declared: Declared | None,
        strict: bool,
        refresh_seconds: float,
    ):
        self._transport = transport
        self._name = name
        self._version = version
        self._label = label
        self._declared = declared
        self._strict = strict
        self._refresh = refresh_seconds
        self._lock = threading.Lock()
        self._builders: dict[int, RequestBuilder] = {}
        self._current: RequestBuilder | None = None
        self._looked_at = 0.0

    @property
    def dropped(self) -> dict[int, dict[str, int]]:
        """How often a feature was left out: version -> `side.name` -> times."""
        with self._lock:
            builders = dict(self._builders)
        return {version: builder.dropped for version, builder in builders.items() if builder.dropped}

    def spec(self, version: int | None = None, signature: str = "") -> wire.ModelSpec:
        """The address of a version in a request; by default the one this client is meant to ask."""
        spec = wire.ModelSpec(name=self._name, signature_name=signature)
        if version is None:
            version = self._version
        if version is not None:
            spec.version.value = version
        elif self._label is not None:
            spec.version_label = self._label
        return spec

    def latest(self, deadline: Deadline) -> RequestBuilder:
        """The version to ask for a new state."""
        with self._lock:
            current = self._current
            if current is not None and time.monotonic() - self._looked_at < self._refresh:
                return current
            self._looked_at = time.monotonic()  # the other threads go on with what is known meanwhile
        try:
            builder = self._fetch(None, deadline, 1.0 if current is None else REFRESH_SHARE)
        except ClientError as error:
            if current is None:
                raise
            # What is known may well go on working; if not, the call itself says so.
            logger.warning("could not look for a newer version: %s", error)
            return current
        with self._lock:
            self._current = builder
        return builder

    def get(self, version: int, deadline: Deadline) -> RequestBuilder:
        """A given version."""
        with self._lock:
            found = self._builders.get(version)
        return found or self._fetch(version, deadline)

    def forget(self, version: int) -> None:
        """The server no longer has it: look for another before the next state. Its counts stay."""
        with self._lock:
            if self._current is not None and self._current.model.version == version:
                self._current = None

    def _fetch(self, version: int | None, deadline: Deadline, share: float = 1.0) -> RequestBuilder:
        request = wire.GetModelMetadataRequest(model_spec=self.spec(version), metadata_field=["signature_def"])
        reply = self._transport.metadata(request, deadline.remaining("metadata") * share)
        model = parse_metadata(reply, self._name, self._declared.groups if self._declared else None)
        with self._lock:
            known = self._builders.get(model.version)
            if known is not None and known.model.fingerprint == model.fingerprint:
                return known
            builder = RequestBuilder(model, self._strict, self._declared)
            self._builders[model.version] = builder
        logger.info("%s is served", model.where)
        return builder
