"""The part that both clients share: arguments, counts, closing."""

import time
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import grpc

from tfctr import MODEL_NAME
from tfctr.client.cache import MemoryStateCache, StateCache
from tfctr.client.call_metadata import CallMetadata, MetadataSource
from tfctr.client.calls import DEFAULT_RETRY, Caller
from tfctr.client.counts import Counts, Observer
from tfctr.client.declared import Declared
from tfctr.client.drivers import Driver
from tfctr.client.errors import BadRequestError
from tfctr.client.guarded_cache import GuardedCache
from tfctr.client.policies import Connection, Hedge, Retry, merged, number, whole
from tfctr.client.ranking import Ranking
from tfctr.client.served import ServedVersions
from tfctr.client.state import UserKey, user_text
from tfctr.client.transport import Deadline
from tfctr.client.values import shown

DEFAULT_CONNECTION = Connection()
NO_PAIRS: MetadataSource = {}

T = TypeVar("T")


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
        retry: Retry = DEFAULT_RETRY,
        hedge: Hedge | None = None,
        connection: Connection = DEFAULT_CONNECTION,
        metadata: MetadataSource = NO_PAIRS,
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
            retry: when a call that failed with UNAVAILABLE is sent again. Retries and hedges together add at most a
                tenth to the number of calls.
            hedge: when a second copy of a call is sent; `None` for never.
            connection: how a server that hangs is found and left out.
            metadata: sent with each call (an authorization, the id of the request, its trace): a mapping, or a function
                that makes it for each call.
            credentials: gRPC channel credentials (TLS); plain text without.
            options: gRPC channel options, which replace those of the client.

        Raises:
            BadRequestError: an argument has a value that is not allowed.
        """
        if version is not None and version_label is not None:
            raise BadRequestError(
                "give either version or version_label, not both. "
                f"Received: version={version!r}, version_label={version_label!r}"
            )
        whole("chunk_size", chunk_size, 1)
        if version is not None:
            whole("version", version, 0)
        kept = MemoryStateCache() if cache == "memory" else cache
        for name, value, kind, allowed in (
            ("model_name", model_name, str, "text"),
            ("version_label", version_label, str | None, "text or None"),
            ("cache", kept, StateCache | None, '"memory", None or a StateCache, such as RedisStateCache(url)'),
            ("retry", retry, Retry, "a Retry, such as Retry(times=2)"),
            ("hedge", hedge, Hedge | None, "None or a Hedge, such as Hedge(after_seconds=0.05)"),
            ("connection", connection, Connection, "a Connection"),
        ):
            if not isinstance(value, kind):
                raise BadRequestError(f"{name} must be {allowed}. Received: {value!r}")
        # The arguments are checked now, not at the first request.
        self._timeout = number("timeout_seconds", timeout_seconds)
        self._counts = Counts()
        self._driver = self._driver_type(
            target, credentials, merged(connection.options(self._timeout), options), CallMetadata(metadata)
        )
        caller = Caller(self._driver, self._counts, retry, hedge)
        self._versions = ServedVersions(
            caller,
            self._counts,
            model_name,
            version=version,
            label=version_label,
            declared=None if feature_file is None else Declared.of(feature_file),
            strict=strict,
            refresh_seconds=number("refresh_seconds", refresh_seconds, positive=False),
        )
        self._cache = GuardedCache(kept, self._driver, self._counts)
        self._ranking = Ranking(caller, self._versions, self._cache, self._counts, chunk_size)

    @property
    def model_name(self) -> str:
        """The name of the model on the server."""
        return self._versions.name

    @property
    def counts(self) -> dict[str, int]:
        """Events so far; those that never happened are left out.

        - `user_tower`, `score`: necessary calls; each chunk of candidates is one.
        - `retry`, `hedge`: additional calls. `hedge_won`: hedges that answered first. `over_budget`: retries and hedges
          that the budget did not allow.
        - `joined`: times a request waited for another one that was doing the same work.
        - `recomputed`: states that were computed again because the model rejected them or their version was gone.
        - `cache_hit`, `cache_miss`, `cache_put`, and events that only the cache knows of. `cache_failed`, `cache_late`,
          `cache_busy`, `cache_skipped`: times the client went on without the cache, because it raised an error, was
          late, hung, or had failed before.
        - `dropped_features`: values left out because the served version does not have the feature.
        """
        counts = self._counts.snapshot() | self._cache.counts
        counts["dropped_features"] = sum(sum(names.values()) for names in self.dropped_features.values())
        return {what: times for what, times in sorted(counts.items()) if times}

    @property
    def dropped_features(self) -> dict[int, dict[str, int]]:
        """How often a version did not have a feature, which was therefore left out: version -> `side.name` -> times."""
        return self._versions.dropped

    def observe(self, observer: Observer) -> None:
        """Tells one more observer of the requests, calls and states from now on.

        Raises:
            BadRequestError: it is no `Observer`.
        """
        if not isinstance(observer, Observer):
            raise BadRequestError(
                f"observe() takes an object of a subclass of tfctr.client.Observer. Received: {shown(observer)}"
            )
        self._counts.observe(observer)

    async def _timed(self, method: str, work: Coroutine[Any, Any, T]) -> T:
        """The result of a request, whose end the observer is told of."""
        started, outcome = time.perf_counter(), "cancelled"
        try:
            self._driver.check()
            result = await work
            outcome = "ok"
            return result
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            work.close()  # a coroutine that did not begin would warn of it
            self._counts.tell("request_ended", method, outcome, time.perf_counter() - started)

    async def _close(self) -> None:
        await self._driver.close()
        await self._cache.close()

    async def _forget_user(self, user_key: UserKey, timeout_seconds: float | None) -> None:
        deadline = Deadline(self._seconds(timeout_seconds))
        await self._cache.forget_user(self._versions.name, user_text(user_key), deadline)

    def _seconds(self, given: float | None) -> float:
        return self._timeout if given is None else given
