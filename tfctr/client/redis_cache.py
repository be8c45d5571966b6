"""States in Redis, shared by several processes."""

import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, get_args

from tfctr.client.cache import StateCache, lifetime
from tfctr.client.drivers import run
from tfctr.client.errors import BadRequestError, CodecError, UnavailableError
from tfctr.client.record import GarbageError, Precision, from_bytes, to_bytes
from tfctr.client.state import StateKey, UserState, quoted

logger = logging.getLogger("tfctr.client")

ASYNCIO_CONNECTIONS = 16


class RedisStateCache(StateCache):
    """States in Redis, shared by all clients. A Redis that is down, slow or holds garbage is a miss, and counted.

    A user is one hash, `prefix:model:user`, with one field for each version of the model: a new event overwrites the
    record of that version, the whole user expires at once, and one command forgets all there is.

    redis-py's own retries make one call to a dead server take four seconds; they are off here. After a few failures in
    a row Redis is left alone for a moment, so that a hung one costs its timeout once and not on every request.

    Args:
        url: `redis://host:port/0`, `rediss://` (TLS) or `unix://path`.
        ttl_seconds: time after a user's newest state at which Redis drops the user at the latest; see `lifetime`.
        timeout_seconds: longest wait for one answer, and for a connection.
        prefix: what the keys begin with.
        failures: that many in a row open the pause.
        pause_seconds: how long Redis is left alone.
        precision: how floats are kept: "float32" (as they are), "float16" or "int8".

    Raises:
        BadRequestError: redis-py is not installed, or the URL is malformed.
    """

    awaits = True

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
            raise BadRequestError("ttl_seconds, timeout_seconds and failures of a Redis cache must be positive.")
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
        except ValueError as error:
            raise BadRequestError(f"Redis URL: {error}") from None
        self._failure_types = (redis.RedisError, OSError, ValueError)
        self._ttl = ttl_seconds
        self._prefix = prefix
        self._precision: Precision = precision
        self._allowed_failures = failures
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._failed = 0
        self._closed_until = 0.0

    @cached_property
    def _asyncio_redis(self) -> Any:
        from redis import asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Requests stand in line for a connection: redis-py's own pool refuses the hundred and first.
        pool = asyncio.BlockingConnectionPool.from_url(
            self._url, max_connections=ASYNCIO_CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 0), **self._options
        )
        return asyncio.Redis.from_pool(pool)

    def get(self, key: StateKey) -> UserState | None:
        """The state if Redis answers in time with what was put there under this very key."""
        return run(self._get(self._redis, key))

    def put(self, key: StateKey, state: UserState) -> None:
        """Sends the state to Redis."""
        run(self._put(self._redis, key, state))

    def invalidate(self, key: StateKey) -> None:
        """Deletes the state from Redis."""
        run(self._invalidate(self._redis, key))

    def forget_user(self, model: str, user_key: str) -> None:
        """Deletes the user from Redis, whether or not it is being left alone.

        Raises:
            UnavailableError: Redis did not say that it did.
        """
        run(self._forget_user(self._redis, model, user_key))

    def close(self) -> None:
        """Closes the connections."""
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
        """Closes the connections of this event loop, and those for threads."""
        await self._asyncio_redis.aclose()
        self.close()

    # Each of these takes a client of redis, whose answers are there, or of redis.asyncio, whose answers are awaited.

    async def _get(self, redis: Any, key: StateKey) -> UserState | None:
        payload = await self._try(lambda: redis.hget(self._user(key.model, key.user_key), _field(key)))
        state = None
        if isinstance(payload, bytes):
            try:
                state = from_bytes(key, payload)
            except GarbageError as error:
                self._counts.add("garbage")
                logger.warning("a cached state of '%s' is garbage (%s); computing it again", key.model, error)
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
        if time.monotonic() < self._closed_until:
            self._counts.add("skipped")
            return None
        try:
            answer = await _answer(command())
        except self._failure_types as error:
            self._counts.add("error")
            with self._lock:
                self._failed += 1
                pause = self._failed >= self._allowed_failures
                if pause:
                    self._failed = 0
                    self._closed_until = time.monotonic() + self._pause
            if pause:
                logger.warning("Redis fails (%s); leaving it alone for %g s", error, self._pause)
            return None
        with self._lock:
            self._failed = 0
        return answer


def _field(key: StateKey) -> str:
    return f"{key.version}:{quoted(key.fingerprint)}"


async def _answer(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given
