"""Which versions the server has, as far as a client knows, and how to ask each of them."""

import logging
import threading
import time

from tfctr.client.calls import Caller
from tfctr.client.counts import Counts
from tfctr.client.errors import ClientError
from tfctr.client.flight import SingleFlight
from tfctr.client.metadata import parse_metadata
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import Declared, RequestBuilder
from tfctr.client.transport import Call, Deadline

logger = logging.getLogger("tfctr.client")

REFRESH_SHARE = 0.25
"""Part of a request's time that the look for a newer version may take when a version is at hand."""


class ServedVersions:
    """Reads the metadata of each version once, and looks for a newer one now and then.

    Args:
        caller: the connection.
        counts: of the client.
        name: model name on the server.
        version: always ask for this version.
        label: always ask for the version with this label.
        declared: the feature file, if there is one.
        strict: see `RequestBuilder`.
        refresh_seconds: how often to look for a newer version.
    """

    def __init__(
        self,
        caller: Caller,
        counts: Counts,
        name: str,
        *,
        version: int | None,
        label: str | None,
        declared: Declared | None,
        strict: bool,
        refresh_seconds: float,
    ):
        self.name = name
        self._caller = caller
        self._flight: SingleFlight[RequestBuilder] = SingleFlight(caller.driver, counts)
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
        spec = wire.ModelSpec(name=self.name, signature_name=signature)
        if version is None:
            version = self._version
        if version is not None:
            spec.version.value = version
        elif self._label is not None:
            spec.version_label = self._label
        return spec

    async def latest(self, deadline: Deadline) -> RequestBuilder:
        """The version to ask for a new state."""
        with self._lock:
            current = self._current
            if current is not None:
                if time.monotonic() - self._looked_at < self._refresh:
                    return current
                self._looked_at = time.monotonic()  # the other requests go on with what is known meanwhile
        if current is None:
            return await self._fetch(None, deadline)
        try:
            return await self._fetch(None, deadline.part(REFRESH_SHARE, "metadata"))
        except ClientError as error:
            # What is known may well go on working; if not, the call itself says so.
            logger.warning("could not look for a newer version: %s", error)
            return current

    async def get(self, version: int, deadline: Deadline) -> RequestBuilder:
        """A given version."""
        with self._lock:
            found = self._builders.get(version)
        return found or await self._fetch(version, deadline)

    def forget(self, version: int) -> None:
        """The server no longer has it: look for another before the next state. Its counts stay."""
        with self._lock:
            if self._current is not None and self._current.model.version == version:
                self._current = None

    async def _fetch(self, version: int | None, deadline: Deadline) -> RequestBuilder:
        builder, _ = await self._flight.run(version, lambda: self._ask(version, deadline), deadline, "metadata")
        return builder

    async def _ask(self, version: int | None, deadline: Deadline) -> RequestBuilder:
        reply = await self._caller.one(Call.metadata(self.spec(version)), deadline)
        model = parse_metadata(reply, self.name, self._declared.groups if self._declared else None)
        with self._lock:
            builder = self._builders.get(model.version)
            if builder is None or builder.model.fingerprint != model.fingerprint:
                builder = self._builders[model.version] = RequestBuilder(model, self._strict, self._declared)
                logger.info("%s is served", model.where)
            if version is None:
                self._current = builder
                self._looked_at = time.monotonic()
        return builder
