"""The versions of a model that the server has, as far as a client knows."""

import logging
import threading
import time

from tfctr.client.calls import Caller
from tfctr.client.counts import Counts, Warnings
from tfctr.client.declared import Declared
from tfctr.client.errors import ClientError, ModelNotFoundError
from tfctr.client.flight import SingleFlight
from tfctr.client.metadata import parse_metadata
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import RequestBuilder
from tfctr.client.transport import Call, Deadline

logger = logging.getLogger("tfctr.client")

REFRESH_SHARE = 0.25
"""Share of a request's time that the look for a newer version may take while a known version can answer."""


class ServedVersions:
    """Reads the metadata of each version once, and looks for a newer version from time to time.

    The arguments are those of the client. `declared` is what its feature file declares, if there is one.
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
        self._warnings = Warnings()
        self._lock = threading.Lock()
        self._builders: dict[int, RequestBuilder] = {}
        self._current: RequestBuilder | None = None
        self._refreshed_at = 0.0

    @property
    def dropped(self) -> dict[int, dict[str, int]]:
        """How often a feature was left out: version -> `side.name` -> times."""
        with self._lock:
            builders = dict(self._builders)
        return {version: builder.dropped for version, builder in builders.items() if builder.dropped}

    def spec(self, version: int | None = None, signature: str = "") -> wire.ModelSpec:
        """The ModelSpec of a request, by default for the version or label of this client, or for the newest version."""
        spec = wire.ModelSpec(name=self.name, signature_name=signature)
        if version is None:
            version = self._version
        if version is not None:
            spec.version.value = version
        elif self._label is not None:
            spec.version_label = self._label
        return spec

    async def latest(self, deadline: Deadline) -> RequestBuilder:
        """The version that computes new states."""
        with self._lock:
            current = self._current
            if current is not None:
                if time.monotonic() - self._refreshed_at < self._refresh:
                    return current
                self._refreshed_at = time.monotonic()  # meanwhile the other requests use the known version
        if current is None:
            return await self._fetch(None, deadline)
        try:
            return await self._fetch(None, deadline.part(REFRESH_SHARE, "metadata"))
        except ClientError as error:
            # The known version probably still works. If it does not, the call to it fails with an error of its own.
            self._warnings.log("could not look for a newer version: %s", error)
            return current

    async def get(self, version: int, deadline: Deadline) -> RequestBuilder:
        """A given version."""
        with self._lock:
            found = self._builders.get(version)
        return found or await self._fetch(version, deadline)

    def forget(self, version: int) -> None:
        """Stops using a version that the server no longer has. Its counts of dropped features are kept."""
        with self._lock:
            if self._current is not None and self._current.model.version == version:
                self._current = None

    async def _fetch(self, version: int | None, deadline: Deadline) -> RequestBuilder:
        builder, _ = await self._flight.run(version, lambda: self._ask(version, deadline), deadline, "metadata")
        return builder

    async def _known_versions(self, deadline: Deadline) -> str:
        """What the server has instead of the label. It tells its versions, but not their labels."""
        try:
            reply = await self._caller.one(Call.status(wire.ModelSpec(name=self.name)), deadline)
        except ClientError:
            return "Which versions it has is not known."
        available = wire.ModelVersionStatus.State.Value("AVAILABLE")
        versions = sorted(one.version for one in reply.model_version_status if one.state == available)
        return f"Available versions: {', '.join(map(str, versions)) or 'none'}."

    async def _ask(self, version: int | None, deadline: Deadline) -> RequestBuilder:
        try:
            reply = await self._caller.one(Call.metadata(self.spec(version)), deadline)
        except ModelNotFoundError as error:
            if version is not None or self._label is None:
                raise
            raise ModelNotFoundError(f"{error} {await self._known_versions(deadline)}") from error
        model = parse_metadata(reply, self.name, self._declared.groups if self._declared else None)
        with self._lock:
            builder = self._builders.get(model.version)
            if builder is None or builder.model.fingerprint != model.fingerprint:
                builder = self._builders[model.version] = RequestBuilder(model, self._strict, self._declared)
                logger.info("%s is served", model.where)
            if version is None:
                self._current = builder
                self._refreshed_at = time.monotonic()
        return builder
