"""A cache of user states in Redis, shared by several processes."""

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, get_args

from typing_extensions import override

from tfctr.client import record
from tfctr.client.cache import AsyncStateCache, lifetime
from tfctr.client.counts import Counts, Warnings
from tfctr.client.drivers import run
from tfctr.client.errors import BadRequestError, CodecError, UnavailableError
from tfctr.client.policies import number, whole
from tfctr.client.record import InvalidRecordError, Precision
from tfctr.client.redis_url import RedisUrl
from tfctr.client.state import StateKey, UserState, quoted

ASYNCIO_CONNECTIONS = 16


class RedisStateCache(AsyncStateCache):
    """A cache in a Redis server, shared by all clients. A record that is invalid or of another type is a counted miss.

    A user is one Redis hash, `prefix:model:user`, with a field for each version of the model and each form of a record.
    A new event thus overwrites the record of its version, all records of a user expire together, and one command
    removes them.

    The retries of redis-py are turned off, because with them a call to a dead server takes four seconds.

    Args:
        url: `redis://host:port/0`, `rediss://` (TLS) or `unix:///path`. Its options may be `db`, `client_name` and
            those of TLS, such as `ssl_ca_certs`.
        ttl_seconds: a user expires at the latest this long after the newest state was stored; see `lifetime`.
        timeout_seconds: the longest wait for a connection and for an answer.
        prefix: the start of all keys.
        failures: the client stops asking Redis after this many failures of one method in a row ...
        pause_seconds: ... for this long.
        precision: how floats are stored: "float32" (unchanged), "float16" or "int8".

    Raises:
        BadRequestError: redis-py is not installed, or an argument has a value that is not allowed.
    """

    def __init__(
        self,
        url: str,
        ttl_seconds: float = 600.0,
        timeout_seconds: float = 0.02,
        prefix: str = "tfctr:state",
        failures: int = 3,
        pause_seconds: float = 1.0,
        precision: Precision = "float32",
    ):
        try:
            import redis
        except ImportError:
            raise BadRequestError("a Redis cache needs redis-py. Install it with: pip install 'tfctr[redis]'") from None
        number("timeout_seconds of a Redis cache", timeout_seconds)
        self._ttl = number("ttl_seconds of a Redis cache", ttl_seconds)
        self.failures = whole("failures of a Redis cache", failures, 1)
        self.pause_seconds = number("pause_seconds of a Redis cache", pause_seconds, positive=False)
        if precision not in get_args(Precision):
            raise BadRequestError(f"precision must be one of {list(get_args(Precision))}. Received: {precision!r}")
        self._url = RedisUrl(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
        self._redis: Any = self._url.client()
        self._answered = redis.ResponseError
        self._failed = (redis.RedisError, OSError, ValueError)
        self._prefix = prefix
        self._precision: Precision = precision
        self._counts = Counts()
        self._warnings = Warnings()

    @property
    @override
    def counts(self) -> dict[str, int]:
        """`garbage`: invalid records; `refused`: commands that Redis refused; `unstorable`: states with strings."""
        return self._counts.snapshot()

    @cached_property
    def _asyncio_redis(self) -> Any:
        return self._url.asyncio_client(ASYNCIO_CONNECTIONS)

    @override
    def get(self, key: StateKey) -> UserState | None:
        return run(self._get(self._redis, key))

    @override
    def put(self, key: StateKey, state: UserState) -> bool | None:
        return run(self._put(self._redis, key, state))

    @override
    def invalidate(self, key: StateKey) -> None:
        run(self._invalidate(self._redis, key))

    @override
    def forget_user(self, model: str, user_key: str) -> None:
        run(self._forget_user(self._redis, model, user_key))

    @override
    def close(self) -> None:
        self._redis.close()

    @override
    async def aget(self, key: StateKey) -> UserState | None:
        return await self._get(self._asyncio_redis, key)

    @override
    async def aput(self, key: StateKey, state: UserState) -> bool | None:
        return await self._put(self._asyncio_redis, key, state)

    @override
    async def ainvalidate(self, key: StateKey) -> None:
        await self._invalidate(self._asyncio_redis, key)

    @override
    async def aforget_user(self, model: str, user_key: str) -> None:
        await self._forget_user(self._asyncio_redis, model, user_key)

    @override
    async def aclose(self) -> None:
        await self._asyncio_redis.aclose()
        self.close()

    # `redis` is a client of redis, which returns answers, or of redis.asyncio, which returns awaitables.

    async def _get(self, redis: Any, key: StateKey) -> UserState | None:
        payload = await self._ask(lambda: redis.hget(self._user(key.model, key.user_key), self._field(key)))
        if payload is None:
            return None
        try:
            return record.from_bytes(key, payload)
        except InvalidRecordError as error:
            self._counts.add("garbage")
            self._warnings.log("a cached state is invalid (%s); it is computed again", error)
            return None

    async def _put(self, redis: Any, key: StateKey, state: UserState) -> bool:
        """Whether Redis stored the state."""
        try:
            payload = record.to_bytes(key, state, self._precision)
        except CodecError:
            self._counts.add("unstorable")
            return False
        user = self._user(key.model, key.user_key)
        commands = redis.pipeline(transaction=True)
        commands.hset(user, self._field(key), payload)
        commands.pexpire(user, max(1, int(1000 * lifetime(key, self._ttl))))
        # The text of an error that redis-py raises by itself here would show the command, with the user in it.
        return await self._ask(lambda: commands.execute(raise_on_error=False)) is not None

    async def _invalidate(self, redis: Any, key: StateKey) -> None:
        await self._ask(lambda: redis.hdel(self._user(key.model, key.user_key), self._field(key)))

    async def _forget_user(self, redis: Any, model: str, user_key: str) -> None:
        try:
            await _answer(redis.delete(self._user(model, user_key)))
        except self._failed as error:
            told = self._url.without_secrets(error)
            raise UnavailableError(
                f"the states of a user are still in Redis, for {self._ttl:g} s at most: {told}{_advice(error)}"
            ) from None

    async def _ask(self, command: Callable[[], Any]) -> Any:
        """The answer of Redis, or `None` if it refused the command: it is then out of order for this key at most.

        Raises:
            UnavailableError: Redis did not answer.
        """
        try:
            answer = await _answer(command())
            refused = [one for one in answer if isinstance(one, Exception)] if isinstance(answer, list) else []
            if not refused:
                return answer
            raise refused[0]
        except self._answered as error:
            self._counts.add("refused")
            self._warnings.log("Redis refused a command (%s)%s", self._url.without_secrets(error), _advice(error))
            return None
        except self._failed as error:
            raise UnavailableError(f"Redis: {self._url.without_secrets(error)}{_advice(error)}") from None

    def _user(self, model: str, user_key: str) -> str:
        return f"{self._prefix}:{quoted(model)}:{quoted(user_key)}"

    def _field(self, key: StateKey) -> str:
        return f"{key.version}:{quoted(key.fingerprint)}:{record.FORMAT}:{self._precision}"


def _advice(error: Exception) -> str:
    """What to do about an answer that one wrong key does not explain."""
    text = f"{type(error).__name__} {error}"
    if any(word in text for word in ("Moved", "Ask", "Cluster", "CROSSSLOT", "CLUSTERDOWN")):
        return ": it is a node of a Redis Cluster, which this cache does not support; give it a server of its own"
    if "unknown command" in text:
        return ": it may be a Sentinel, which this cache does not support; give it the server itself, or a proxy"
    if "READONLY" in text or "ReadOnly" in text:
        return ": it is a replica; give the cache the primary"
    if any(words in text for words in ("NOAUTH", "Authentication required", "client already authenticated")):
        return ": Redis wants a password; write it into the URL, redis://:PASSWORD@HOST:PORT"
    if "WRONGPASS" in text or "invalid username-password" in text or "invalid password" in text:
        return ": Redis does not take this user or password"
    return ""


async def _answer(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given
