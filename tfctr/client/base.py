"""What the blocking and the asyncio client are made of."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import grpc

from tfctr.client.cache import MemoryStateCache, StateCache
from tfctr.client.calls import Caller
from tfctr.client.counts import Counts
from tfctr.client.drivers import Driver
from tfctr.client.errors import BadRequestError
from tfctr.client.ranking import Ranking
from tfctr.client.requests import Declared
from tfctr.client.served import ServedVersions
from tfctr.client.shelf import Shelf
from tfctr.client.transport import Deadline


class ClientBase:
    """Arguments, parts and counts of a client."""

    _driver_type: ClassVar[type[Driver]]

    def __init__(
        self,
        target: str,
        model_name: str = "ranking",
        timeout_seconds: float = 1.0,
        cache: StateCache | Literal["memory"] | None = "memory",
        *,
        version: int | None = None,
        version_label: str | None = None,
        feature_file: Any = None,
        strict: bool = False,
        refresh_seconds: float = 10.0,
        chunk_size: int = 1000,
        retries: int = 1,
        hedge_after_seconds: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ):
        """Opens no connection yet.

        Args:
            target: `host:port`, `unix:/path`, or any gRPC target.
            model_name: name of the model on the server.
            timeout_seconds: time budget of a whole request, all its calls together.
            cache: where states are kept for requests that name their user: "memory" (in this process), any
                `StateCache`, or `None`. It is closed with the client.
            version: ask for this version; the newest by default.
            version_label: ask for the version with this label ("stable").
            feature_file: the model's feature file (path or loaded): names that neither it nor the served version knows
                become errors, and it says which fields belong to which history.
            strict: a feature that the served version does not know is an error, not left out.
            refresh_seconds: how often to look for a newer version.
            chunk_size: candidates of one call; more of them are split evenly over calls made at once.
            retries: how often a call that failed with UNAVAILABLE is sent again (to be sent twice harms no call).
            hedge_after_seconds: ask a second time when there is no answer after so long, and take the first answer. It
                pays with several servers behind the target, and a time that few calls take. Together, retries and
                hedges add a tenth to the calls at most.
            credentials: gRPC channel credentials (TLS); plain text without.
            options: gRPC channel options.

        Raises:
            BadRequestError: an argument is none of these.
        """
        if version is not None and version_label is not None:
            raise BadRequestError("give either version or version_label, not both.")
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise BadRequestError(f"chunk_size must be a whole number, 1 or more. Received: {chunk_size!r}")
        Deadline(timeout_seconds)  # refuses a bad number here, not at the first request
        self._timeout = timeout_seconds
        self._driver = self._driver_type(target, credentials, options)
        self._counts = Counts()
        caller = Caller(self._driver, self._counts, retries, hedge_after_seconds)
        self._versions = ServedVersions(
            caller,
            self._counts,
            model_name,
            version=version,
            label=version_label,
            declared=None if feature_file is None else Declared.of(feature_file),
            strict=strict,
            refresh_seconds=refresh_seconds,
        )
        self._shelf = Shelf(MemoryStateCache() if cache == "memory" else cache, self._driver, self._counts)
        self._ranking = Ranking(caller, self._versions, self._shelf, self._counts, chunk_size)

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far. Zero is left out.

        `user_tower`, `score`: calls that were needed (a chunk each); `retry`, `hedge`: calls beyond those;
        `hedge_won`: hedges that answered first; `over_budget`: retries and hedges not sent; `joined`: waits for
        another request that did the same; `recomputed`: states computed again because the kept one was no good;
        `cache_hit`, `cache_miss`, `cache_...`: what the cache counts, and `cache_failed`, `cache_late`, `cache_busy`:
        times it was gone without; `dropped_features`: values left out because the version does not know them.
        """
        counts = self._counts.snapshot()
        if self._shelf.cache is not None:
            counts |= {f"cache_{what}": times for what, times in self._shelf.cache.counts.items()}
        counts["dropped_features"] = sum(sum(names.values()) for names in self.dropped_features.values())
        return {what: times for what, times in sorted(counts.items()) if times}

    @property
    def dropped_features(self) -> dict[int, dict[str, int]]:
        """How often a feature was left out because a version does not know it: version -> `side.name` -> times."""
        return self._versions.dropped

    async def _close(self) -> None:
        await self._driver.close()
        await self._shelf.close()

    async def _forget_user(self, user_key: str | int, timeout_seconds: float | None) -> None:
        deadline = Deadline(self._seconds(timeout_seconds))
        await self._shelf.forget_user(self._versions.name, str(user_key), deadline)

    def _seconds(self, given: float | None) -> float:
        return self._timeout if given is None else given
