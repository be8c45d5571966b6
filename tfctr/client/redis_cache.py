"""A cache of user states in Redis, shared by several processes."""

import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, get_args

from typing_extensions import override

from tfctr.client.cache import StateCache, lifetime
from tfctr.client.drivers import run
from tfctr.client.errors import BadRequestError, CodecError, UnavailableError
from tfctr.client.record import InvalidRecordError, Precision, from_bytes, to_bytes
from tfctr.client.state import StateKey, UserState, quoted

logger = logging.getLogger("tfctr.client")

ASYNCIO_CONNECTIONS = 16


class RedisStateCache(StateCache):
    """A cache in Redis, shared by all clients. If Redis is down or slow or a record is invalid, that is a counted miss.

    A user is one Redis hash, `prefix:model:user`, with a field for each version of the model. A new event thus
    overwrites the record of its version, all records of a user expire together, and one command removes them.

    The retries of redis-py are turned off, because with them a call to a dead server takes four seconds. A circuit
    breaker limits the cost of a Redis that hangs: after a few failures in a row, Redis is not called for a while.

    Args:
        url: `redis://host:port/0`, `rediss://` (TLS) or `unix://path`.
        ttl_seconds: a user expires at the latest this long after the newest state was stored; see `lifetime`.
        timeout_seconds: the longest wait for a connection and for an answer.
        prefix: the start of all keys.
        failures: the circuit breaker opens after this many failures in a row.
        pause_seconds: how long the circuit breaker stays open.
        precision: how floats are stored: "float32" (unchanged), "float16" or "int8".

    Raises:
        BadRequestError: redis-py is not installed, or an argument has a value that is not allowed.
    """

    asynchronous = True

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
        super().__init__()
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise BadRequestError("a Redis cache needs redis-py. Install it with: pip install 'tfctr[redis]'") from None
        if min(ttl_seconds, timeout_seconds, failures) <= 0 or pause_seconds < 0:
            raise BadRequestError(
                "ttl_seconds, timeout_seconds and failures of a Redis cache must be positive, pause_seconds 0 or more. "
                f"Received: {ttl_seconds}, {timeout_seconds}, {failures}, {pause_seconds}"
            )
        if precision not in get_args(Precision):
            raise BadRequestError(f"precision must be one of {list(get_args(Precision))}. Received: {precision!r}")
        self._url = url
        self._options = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "health_check_interval": 0,
        }
        try:
            self._redis: Any = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **self._options)
        except ValueError as error:  # the URL itself may contain a password, so it is not shown
            raise BadRequestError(f"Redis URL: {error}") from None
        self._failure_types = (redis.RedisError, OSError, ValueError)
        self._ttl = ttl_seconds
        self._prefix = prefix
        self._precision: Precision = precision
        self._allowed_failures = failures
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0

    @cached_property
    def _asyncio_redis(self) -> Any:
        from redis import asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Requests wait for a free connection. The default pool of redis-py raises an error beyond 100 connections.
        pool = asyncio.BlockingConnectionPool.from_url(
            self._url, max_connections=ASYNCIO_CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 0), **self._options
        )
        return asyncio.Redis.from_pool(pool)

    @override
    def get(self, key: StateKey) -> UserState | None:
        return run(self._get(self._redis, key))

    @override
    def put(self, key: StateKey, state: UserState) -> None:
        run(self._put(self._redis, key, state))

    @override
    def invalidate(self, key: StateKey) -> None:
        run(self._invalidate(self._redis, key))

    @override
    def forget_user(self, model: str, user_key: str) -> None:
        # The circuit breaker is ignored: the removal must be tried, and its failure raised.
        run(self._forget_user(self._redis, model, user_key))

    @override
    def close(self) -> None:
        self._redis.close()

    async def aget(self, key: StateKey) -> UserState | None:
        """`get` with redis.asyncio."""
        return await self._get(self._asyncio_redis, key)

    async def aput(self, key: StateKey, state: UserState) -> None:
        """`put` with redis.asyncio."""
        await self._put(self._asyncio_redis, key, state)

    async def ainvalidate(self, key: StateKey) -> None:
        """`invalidate` with redis.asyncio."""
        await self._invalidate(self._asyncio_redis, key)

    async def aforget_user(self, model: str, user_key: str) -> None:
        """`forget_user` with redis.asyncio."""
        await self._forget_user(self._asyncio_redis, model, user_key)

    async def aclose(self) -> None:
        """Closes the connections of both clients."""
        await self._asyncio_redis.aclose()
        self.close()

    # `redis` is a client of redis, which returns answers, or of redis.asyncio, which returns awaitables.

    async def _get(self, redis: Any, key: StateKey) -> UserState | None:
        payload = await self._try(lambda: redis.hget(self._user(key.model, key.user_key), _field(key)))
        state = None
        if isinstance(payload, bytes):
            try:
                state = from_bytes(key, payload)
            except InvalidRecordError as error:
                self._counts.add("garbage")
                logger.warning("a cached state of '%s' is invalid (%s); it is computed again", key.model, error)
        self._counts.add("miss" if state is None else "hit")
        return state

    async def _put(self, redis: Any, key: StateKey, state: UserState) -> None:
        try:
            payload = to_bytes(key, state, self._precision)
        except CodecError:
            self._counts.add("unstorable")
            return
        user = self._user(key.model, key.user_key)
        commands = redis.pipeline(transaction=True)
        commands.hset(user, _field(key), payload)
        commands.pexpire(user, max(1, int(1000 * lifetime(key, self._ttl))))
        if await self._try(commands.execute):
            self._counts.add("put")

    async def _invalidate(self, redis: Any, key: StateKey) -> None:
        await self._try(lambda: redis.hdel(self._user(key.model, key.user_key), _field(key)))

    async def _forget_user(self, redis: Any, model: str, user_key: str) -> None:
        try:
            await _answer(redis.delete(self._user(model, user_key)))
        except self._failure_types as error:
            raise UnavailableError(
                f"the states of a user are still in Redis, for {self._ttl:g} s at most: {error}"
            ) from error

    def _user(self, model: str, user_key: str) -> str:
        return f"{self._prefix}:{quoted(model)}:{quoted(user_key)}"

    async def _try(self, command: Callable[[], Any]) -> Any:
        if time.monotonic() < self._open_until:
            self._counts.add("skipped")
            return None
        try:
            answer = await _answer(command())
        except self._failure_types as error:
            self._counts.add("error")
            with self._lock:
                self._failures += 1
                opens = self._failures >= self._allowed_failures
                if opens:
                    self._failures = 0
                    self._open_until = time.monotonic() + self._pause
            if opens:
                logger.warning("Redis fails (%s); it is not called for %g s", error, self._pause)
            return None
        with self._lock:
            self._failures = 0
        return answer


def _field(key: StateKey) -> str:
    return f"{key.version}:{quoted(key.fingerprint)}"


async def _answer(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given
