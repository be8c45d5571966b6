"""The part that both clients share: arguments, counts, closing."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import grpc

from tfctr import MODEL_NAME
from tfctr.client.cache import MemoryStateCache, StateCache
from tfctr.client.calls import Caller
from tfctr.client.counts import Counts
from tfctr.client.drivers import Driver
from tfctr.client.errors import BadRequestError
from tfctr.client.guarded_cache import GuardedCache
from tfctr.client.ranking import Ranking
from tfctr.client.requests import Declared
from tfctr.client.served import ServedVersions
from tfctr.client.transport import Deadline


class ClientBase:
    """Base class of `RankingClient` and `AsyncRankingClient`."""

    _driver_type: ClassVar[type[Driver]]

    def __init__(
        self,
        target: str,
        model_name: str = MODEL_NAME,
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
        """Prepares the client; the connection is opened by the first call.

        Args:
            target: `host:port`, `unix:/path`, or any gRPC target.
            model_name: name of the model on the server.
            timeout_seconds: time budget of a request, shared by all its calls.
            cache: caches the states of requests that name their user: "memory" (in this process), any `StateCache`, or
                `None` for no cache. It is closed with the client.
            version: always use this version instead of the newest.
            version_label: always use the version with this label ("stable").
            feature_file: the feature file of the model (path or loaded). A feature name that neither the file nor the
                served version has is then an error. The file also says which fields belong to which history.
            strict: raise an error for a feature that the served version does not have, instead of dropping it.
            refresh_seconds: how often to look for a newer version.
            chunk_size: the most candidates of one call. More of them are split evenly over several concurrent calls.
            retries: how often a call that failed with UNAVAILABLE is sent again. All calls only read, so that sending
                one twice is safe.
            hedge_after_seconds: send a second copy of a call that is not answered after this long, and take the first
                answer. This pays with several servers behind the target and a time that few calls exceed. Retries and
                hedges together add at most a tenth to the number of calls.
            credentials: gRPC channel credentials (TLS); plain text without.
            options: gRPC channel options.

        Raises:
            BadRequestError: an argument has a value that is not allowed.
        """
        if version is not None and version_label is not None:
            raise BadRequestError(
                "give either version or version_label, not both. "
                f"Received: version={version!r}, version_label={version_label!r}"
            )
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise BadRequestError(f"chunk_size must be a whole number, 1 or more. Received: {chunk_size!r}")
        Deadline(timeout_seconds)  # raises an error for a bad number now, not at the first request
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
        self._cache = GuardedCache(MemoryStateCache() if cache == "memory" else cache, self._driver, self._counts)
        self._ranking = Ranking(caller, self._versions, self._cache, self._counts, chunk_size)

    @property
    def counts(self) -> dict[str, int]:
        """Events so far; those that never happened are left out.

        - `user_tower`, `score`: necessary calls; each chunk of candidates is one.
        - `retry`, `hedge`: additional calls. `hedge_won`: hedges that answered first. `over_budget`: retries and hedges
          that the budget did not allow.
        - `joined`: times a request waited for another one that was doing the same work.
        - `recomputed`: states that were computed again because the model rejected them or their version was gone.
        - `cache_hit`, `cache_miss` and so on: events of the cache. `cache_failed`, `cache_late`, `cache_busy`: times
          the client went on without the cache, because it raised an error, was late or hung.
        - `dropped_features`: values left out because the served version does not have the feature.
        """
        counts = self._counts.snapshot() | self._cache.counts
        counts["dropped_features"] = sum(sum(names.values()) for names in self.dropped_features.values())
        return {what: times for what, times in sorted(counts.items()) if times}

    @property
    def dropped_features(self) -> dict[int, dict[str, int]]:
        """How often a version did not have a feature, which was therefore left out: version -> `side.name` -> times."""
        return self._versions.dropped

    async def _close(self) -> None:
        await self._driver.close()
        await self._cache.close()

    async def _forget_user(self, user_key: str | int, timeout_seconds: float | None) -> None:
        deadline = Deadline(self._seconds(timeout_seconds))
        await self._cache.forget_user(self._versions.name, str(user_key), deadline)

    def _seconds(self, given: float | None) -> float:
        return self._timeout if given is None else given
